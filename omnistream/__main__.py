"""`python -m omnistream` is the `omnistream` command."""

from omnistream.cli import main

if __name__ == "__main__":
    main()
