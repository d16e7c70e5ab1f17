"""The MLflow stores of a project: which one it has, how it is reached, and where runs wait for it."""
