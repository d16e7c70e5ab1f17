"""Step-wise reinforcement learning on combs."""
