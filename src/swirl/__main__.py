"""`python -m swirl` is the `swirl` command."""

from swirl.cli.main import main

if __name__ == "__main__":
    main()
