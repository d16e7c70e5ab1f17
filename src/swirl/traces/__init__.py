"""Trajectories as MLflow traces, and traces of a tracking server as files."""
