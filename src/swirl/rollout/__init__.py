"""The agent loop: many trajectories in flight on one model."""
