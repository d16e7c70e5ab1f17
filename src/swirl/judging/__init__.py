"""Judges of steps and answers, such as the generative reward model, and the filters over their verdicts."""
