"""On the app's PYTHONPATH this makes its personas breakable: they fail while the file that the test names exists.

Python imports a module of this name before the program starts, so the app itself runs as it is.
"""

import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FAULT = Path(os.environ["UNDERSTUDY_TEST_FAULT"])


def break_personas() -> None:
    """Let every persona ask the file before it plays: "raise" and "hang" are what it may hold."""
    sys.path.insert(0, str(ROOT))
    from understudy.swap.one_shot import OneShotRenderer
    from understudy.swap.renderer import LoadedRenderer

    LoadedRenderer.render = breakable(LoadedRenderer.render)
    OneShotRenderer.decide = breakable(OneShotRenderer.decide)


def breakable(play):
    def broken(*arguments):
        if FAULT.exists():
            if FAULT.read_text() == "raise":
                raise RuntimeError("The model failed on purpose.")
            while FAULT.exists():
                time.sleep(0.05)
        return play(*arguments)

    return broken


break_personas()
