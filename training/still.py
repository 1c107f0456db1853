"""A photo to a persona's still: the picture that its consent record must list.

    uv run python -m training.still me.jpg --out me-still.png
    uv run python -m understudy.consent make --persona me --files me.jpg me-still.png ...

The same photo gives the same bytes every time, so the record can be signed before anything is trained.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from training.data.pairs import PairsError
from understudy.vision.mesh import FaceMesh
from understudy.vision.reenact import ReferenceFace

_FITS = 3
_LEAST_PRESENCE = 0.5


def write_still(photo: Path, path: Path) -> ReferenceFace:
    """Bring a photo into the crop and write it as a persona's still.

    Args:
        photo: a picture with a clear face.
        path: the PNG to write; the same bytes as in the bundle that is made of the photo.

    Raises:
        PairsError: the photo cannot be read or shows no clear face.
    """
    from training.data.drivers import DriverFinder
    from training.reenact import photo_still

    look = photo_still(photo, DriverFinder())
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), look.image)
    return look


def refitted(still: ReferenceFace) -> ReferenceFace:
    """Fit the mesh anew to a still's picture; the still as it was where no face is seen in it.

    A composite's own mesh is the mean of its faces', and caricature moves brows and lids away from it; live, detail
    must lie where the mesh model sees the same brows and lids.
    """
    margin = still.image.shape[0] // 4
    image = np.asarray(cv2.copyMakeBorder(still.image, *[margin] * 4, cv2.BORDER_REFLECT_101), np.uint8)
    shift = np.float32([margin, margin, 0])
    model, mesh = FaceMesh(), still.mesh + shift
    for _ in range(_FITS):  # each fit finds the better region
        mesh, presence = model.fit(image, mesh)
        if presence < _LEAST_PRESENCE:
            return still
    return ReferenceFace(still.image, (mesh - shift).astype(np.float32))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status: 2 where the photo is refused."""
    parser = argparse.ArgumentParser(prog="training.still", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    options = parser.parse_args(arguments)
    try:
        write_still(options.photo, options.out)
    except PairsError as error:
        print(f"training.still: {error}", file=sys.stderr)
        return 2
    print(
        f"{options.out}: now sign it: python -m understudy.consent make --files {options.photo} {options.out} "
        "--persona NAME --kind self --subject ... --statement ... --use train --use live --use record --evidence FORM"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
