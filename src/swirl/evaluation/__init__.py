"""Scores of predictions, and the statistics that say how far a difference between them can be trusted."""
