"""The tuned policy in MLflow's model registry."""
