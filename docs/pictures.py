"""Draw the front page's picture: drivers at the left, personas on each of them.

uv run python docs/pictures.py [DRIVER ...]

The drivers that ship are put together from machine-made faces, as personas are: no real person stands in the docs.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.frame import Frame
from understudy.bundle.bundle import Bundle, default_bundle
from understudy.swap.swapper import FaceSwapper, SwapSettings

PERSONAS = ("clara", "nils", "mei", "ines", "kofi")
SIDE = 256
_DOCS = Path(__file__).parent
_DRIVERS = (_DOCS / "images/driver_1.webp", _DOCS / "images/driver_2.webp")
_SETTLED = 40  # frames until a driver's bones are known


def swapped(picture: NDArray[np.uint8], bundle: Bundle, persona: str) -> NDArray[np.uint8]:
    """Return a picture, uint8 [H, W, 3], BGR, with a persona on it, as a stream shows it once it has settled.

    Raises:
        SystemExit: it has no face.
    """
    swapper = FaceSwapper(bundle, SwapSettings(persona))
    swapper.warm_up()
    session = swapper.open_session()
    result = None
    for index in range(_SETTLED):
        result = session.process(Frame(picture, index, index / 30))
    session.close()
    if result is None or not result.is_complete or not result.subjects_done:
        raise SystemExit(f"{persona} cannot be shown: no face was found in a driver's picture. Name another one.")
    return result.image


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drivers", nargs="*", default=_DRIVERS, type=Path, metavar="DRIVER")
    parser.add_argument("--personas", nargs="+", default=PERSONAS, metavar="NAME")
    parser.add_argument("--out", type=Path, default=_DOCS / "before_after.webp")
    options = parser.parse_args()
    bundle = Bundle.load(default_bundle())
    rows: list[NDArray[np.uint8]] = []
    for path in options.drivers:
        image = cv2.imread(str(path))
        if image is None:
            raise SystemExit(f"{path} must be a picture, but cannot be read. Check the path.")
        picture = np.asarray(cv2.resize(image, (640, 640), interpolation=cv2.INTER_CUBIC), np.uint8)
        row = [picture, *(swapped(picture, bundle, name) for name in options.personas)]
        rows.append(np.hstack([cv2.resize(each, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for each in row]))
    cv2.imwrite(str(options.out), np.vstack(rows), [cv2.IMWRITE_WEBP_QUALITY, 88])


if __name__ == "__main__":
    main()
