"""The command: `python -m understudy.consent --help`."""

import sys

from understudy.consent.check import main

if __name__ == "__main__":
    sys.exit(main())
