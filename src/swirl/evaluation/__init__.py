"""Grading predictions and the statistics that say how far a difference can be trusted."""
