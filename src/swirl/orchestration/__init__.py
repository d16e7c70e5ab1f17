"""What flows need besides Prefect: commands as process groups, signals, worktrees for runs with overrides."""
