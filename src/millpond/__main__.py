"""`python -m millpond` is the same program as `millpond`."""

from millpond.cli import main

if __name__ == "__main__":
    main()
