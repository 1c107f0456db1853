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

from training.data.drivers import DriverFinder
from understudy.consent.check import check, hash_files, read_record
from understudy.consent.record import ConsentRecord
from understudy.consent.trust_store import TrustStore
from understudy.media.guard import MediaError
from understudy.vision.reference import ReferenceFace, reference_face


def photo_still(photo: Path) -> ReferenceFace:
    """Return the still of a photo: its largest face, aligned.

    Raises:
        MediaError: the photo cannot be read or shows no clear face.
    """
    image = cv2.imread(str(photo))
    if image is None:
        raise MediaError(f"{photo} must be a picture, but it cannot be read. Use a JPEG or PNG.")
    face = DriverFinder().largest_face(np.asarray(image, np.uint8))
    if face is None:
        raise MediaError(f"{photo} must show a clear face, but none was found. Use a sharp, frontal photo.")
    return reference_face(np.asarray(image, np.uint8), face)


def write_still(photo: Path, path: Path) -> ReferenceFace:
    """Write a photo's still as a PNG: the same bytes as in the bundle that is made of the photo; raises as the above.

    Args:
        photo: a picture with a clear face.
        path: the PNG.
    """
    look = photo_still(photo)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), look.image)
    return look


def consented_photo(photo: Path, name: str, record: Path, trust: Path) -> ConsentRecord:
    """Return a persona's consent record, once it covers the photo for training.

    Raises:
        ConsentError: the record is missing, invalid, or does not cover the photo.
        MediaError: there is no such photo.
    """
    if not photo.is_file():
        raise MediaError(f"{photo} must be a picture, but there is no such file. Check --photo.")
    signed = read_record(record)
    check(signed, "train", TrustStore(trust).read(), faces=hash_files([photo]), persona=name)
    return signed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status: 2 where the photo is refused."""
    parser = argparse.ArgumentParser(prog="training.still", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    options = parser.parse_args(arguments)
    try:
        write_still(options.photo, options.out)
    except MediaError as error:
        print(f"training.still: {error}", file=sys.stderr)
        return 2
    print(
        f"{options.out}: now sign it: python -m understudy.consent make --files {options.photo} {options.out} "
        "--persona NAME --kind self --subject ... --statement ... --use train --use live --use record --evidence FORM"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
