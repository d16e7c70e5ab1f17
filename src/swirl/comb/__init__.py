"""The engine: attention by plan, combs, log-probabilities, sampling, slots, gradients."""
