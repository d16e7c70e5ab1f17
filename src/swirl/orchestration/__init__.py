"""What flows need beside Prefect: stages as process groups, settings laid over, worktrees to run them in."""
