"""`python -m amenable` is the command `amenable`."""

import sys

from amenable.cli import main

if __name__ == "__main__":
    sys.exit(main())
