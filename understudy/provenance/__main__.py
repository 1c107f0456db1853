"""The command: `python -m understudy.provenance verify FILE...`."""

import sys

from understudy.provenance.c2pa import main

if __name__ == "__main__":
    sys.exit(main())
