"""The `swirl` command, one module a subject. Everything heavy is imported by the subcommand that needs it."""
