"""The `swirl` command, one module per subject. Slow imports are left to the subcommand that needs them."""
