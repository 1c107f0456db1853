"""One picture swapped, by a persona that ships: `uv run python -m examples.swap_photo IN.jpg OUT.png`."""

import sys
from pathlib import Path

import cv2
import numpy as np

from liveframe import Frame
from understudy import Bundle, FaceSwapper, SwapSettings, default_bundle


def swap(source: Path, target: Path, persona: str = "") -> int:
    """Write the picture with its faces replaced; returns how many were.

    Args:
        source: a picture that OpenCV reads.
        target: where to write; its ending says as what.
        persona: one of the bundle's; its first where left out.
    """
    image = np.asarray(cv2.imread(str(source)), np.uint8)
    swapper = FaceSwapper(Bundle.load(default_bundle()), SwapSettings(persona))
    swapper.warm_up()
    session = swapper.open_session()
    result = session.process(Frame(image, 0, 0.0))
    session.close()
    cv2.imwrite(str(target), result.image)
    return result.subjects_done


if __name__ == "__main__":
    print(f"{swap(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])} faces replaced. Say so where you show it.")
