"""Groups of subcommands of `swirl`, each added to it with one line."""
