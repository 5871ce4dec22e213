"""`python -m amenable` is the command `amenable`."""

import sys

from amenable.cli import main
from amenable.ranks import end_at_once, in_group

if __name__ == "__main__":
    code = main()
    if in_group():
        end_at_once(code)
    sys.exit(code)
