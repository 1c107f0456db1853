"""A folder of machine-made faces to a persona that is nobody: `python -m ui.studio.composite_job FOLDER --title T ...`.

Every picture is decoded in a limited child; the faces that are most alike are averaged, 40 of them at least.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from liveframe.errors import LiveframeError
from training.reenact import most_alike
from ui.session.workspace import Workspace
from ui.studio.persona_maker import shelve
from ui.studio.photo import PersonaPhoto, face_finder
from understudy.consent.check import ConsentRecord, hash_files, synthetic_record
from understudy.consent.trust_store import TrustStore
from understudy.jobs.atomic_file import write_json
from understudy.media.guard import IMAGE_EXTENSIONS, MediaError, read_upload_image
from understudy.vision.embedding import SFaceEmbedder
from understudy.vision.face import AlignedFace
from understudy.vision.reenact import ReferenceFace, composite

LEAST_FACES = 40
_AVERAGED = 48
_BORDER_PX = 64


class CompositeError(LiveframeError, ValueError):
    """A folder's pictures make no composite."""


def composite_photo(pictures: Sequence[Path], progress: Path | None = None) -> PersonaPhoto:
    """Average the faces of pictures that are most alike.

    Args:
        pictures: uploads; those without a clear face are left out.
        progress: where to write how far it is, as JSON.

    Raises:
        CompositeError: fewer than 40 of them show a face.
    """
    embedder = SFaceEmbedder()
    faces: list[AlignedFace] = []
    vectors: list[np.ndarray] = []
    for number, picture in enumerate(pictures):
        if progress is not None:
            write_json(progress, {"done": number, "total": len(pictures)})
        try:
            image = read_upload_image(picture)
        except MediaError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        face = face_finder().aligned(image)
        if face is not None:
            faces.append(face)
            vectors.append(embedder.embed(image, face.face))
    if len(faces) < LEAST_FACES:
        raise CompositeError(
            f"A composite must be made of {LEAST_FACES} faces or more, so that it is nobody's, but {len(faces)} of "
            f"{len(pictures)} pictures show one. Add pictures."
        )
    chosen = most_alike(np.array(vectors), min(_AVERAGED, len(faces)))
    averaged = composite([(faces[i].crop, faces[i].mesh) for i in chosen])
    # With a border, the face is found again where the training looks for it: in the picture.
    photo = cv2.copyMakeBorder(averaged.image, *(_BORDER_PX,) * 4, cv2.BORDER_REFLECT_101).astype(np.uint8)
    face = face_finder().aligned(photo)
    if face is None:
        raise CompositeError("The average must look like a face, but does not. Use pictures taken from the front.")
    return PersonaPhoto(photo, ReferenceFace(face.crop, face.mesh))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status: 1 when it is refused."""
    parser = argparse.ArgumentParser(prog="ui.studio.composite_job", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--title", required=True)
    parser.add_argument("--source", required=True, help="what made the pictures")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--trust", type=Path, required=True)
    parser.add_argument("--taken", nargs="*", default=[], help="names that the persona may not have")
    parser.add_argument("--progress", type=Path)
    options = parser.parse_args(arguments)
    pictures = sorted(path for path in options.folder.iterdir() if path.suffix in IMAGE_EXTENSIONS)

    def record(name: str, files: Sequence[Path]) -> ConsentRecord:
        recipe = {"method": "composite", "pictures": len(pictures), "source": options.source}
        recipe["pictures_sha256"] = list(hash_files(pictures))
        key = TrustStore(options.trust).signing_key()
        return ConsentRecord.from_json(synthetic_record(name, recipe, [*files, *pictures], key))

    try:
        picture = composite_photo(pictures, options.progress)
        shelve(Workspace(options.workspace, is_kept=True), options.title, picture, record, options.taken)
    except LiveframeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
