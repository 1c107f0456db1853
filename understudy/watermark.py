"""The command that looks for the watermark: `python -m understudy.watermark detect CLIP`."""

import sys

from understudy.provenance.watermark import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
