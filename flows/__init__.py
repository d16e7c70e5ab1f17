"""Flows of Prefect over the stages of dvc.yaml."""
