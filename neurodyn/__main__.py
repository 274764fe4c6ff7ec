"""`python -m neurodyn`: the command line, where no script is on the path."""

from neurodyn.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
