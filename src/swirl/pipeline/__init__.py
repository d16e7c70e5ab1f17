"""What running the stages needs but no output depends on: their table, dvc.yaml, source, environment, progress."""
