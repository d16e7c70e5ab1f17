"""What runs the stages and shapes no output: their table, dvc.yaml, their source, environment, progress."""
