"""`python -m credibly`: the command without its name on the path."""

from credibly.cli.main import main

if __name__ == "__main__":
    main()
