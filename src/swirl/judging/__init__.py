"""Judges: the generative reward model, and the filters over its verdicts."""
