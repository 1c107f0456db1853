r"""Put the personas that ship together: each a mosaic of parts of several machine-made faces, photoreal and nobody.

    uv run python -m training.data.mosaic --faces FACES_FOLDER --out OUT [--only NAME...]

Eyes, brows, nose, mouth, forehead, and skin with the outline come from different faces of like age, sex and skin. They
are warped to one shape, lit alike, and joined by multi-band blending (Burt & Adelson 1983, "A multiresolution spline
with application to image mosaics"). Each persona gets a folder: reference.png (an aligned crop), mesh.npy (fitted anew
on the finished picture), sources.json (which file gave what, and how like it the mosaic is) and consent.json (the
same, signed: nobody's face). A mosaic that a recogniser takes for one of its sources is refused.
order.txt has their names; `training.one_shot_bundle --personas OUT` takes them from there.
"""

import argparse
import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.join_parts import PARTS, Source, join, trimmed
from understudy.consent.check import synthetic_record
from understudy.consent.trust_store import TrustError, TrustStore, trust_folder
from understudy.vision.detect import FaceDetector
from understudy.vision.embedding import SFaceEmbedder
from understudy.vision.face import Crop, Face, Points
from understudy.vision.mesh import FaceMesh

REFERENCE_PX = 512
MAX_SIMILARITY = 0.6
LEAST_SOURCES = 4
REFERENCE = "reference.png"
ORDER = "order.txt"
RECIPES = Path("training/configs/personas.toml")

_LEAST_PRESENCE = 0.8
_EVEN = 0.5


class MosaicError(ValueError):
    """A persona cannot be put together as its recipe says."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which faces a persona is made of.

    Attributes:
        name: identifier.
        title: what people read.
        parts: file name of the face that gives each of `PARTS`.
        even: how much of the light's difference between left and right is taken away, 0 to 1.
    """

    name: str
    title: str
    parts: Mapping[str, str]
    even: float = _EVEN


@dataclass(frozen=True, slots=True)
class Mosaic:
    """A finished persona.

    Attributes:
        image: uint8 [S, S, 3], BGR, aligned.
        mesh: float32 [468, 3], px of the image, fitted on it.
        likeness: SFace similarity to each source, by file name, -1 to 1.
    """

    image: Crop
    mesh: Points
    likeness: Mapping[str, float]


def read_recipes(path: Path) -> list[Recipe]:
    """Read the personas of a TOML file, in the order that they are offered in.

    Raises:
        MosaicError: a part is missing or unknown, or fewer than four faces give all of them.
    """
    recipes: list[Recipe] = []
    for given in tomllib.loads(path.read_text(encoding="utf-8")).get("persona", []):
        values = dict(given)
        name, even = str(values.pop("name", "")), float(values.pop("even", _EVEN))
        title = str(values.pop("title", name.title()))
        values = {"forehead": values.get("skin"), "brows": values.get("eyes"), **values}
        if not name or set(values) != set(PARTS):
            raise MosaicError(
                f"{path}: persona '{name}' must name a face for each of {', '.join(PARTS)}, but names "
                f"{', '.join(sorted(map(str, values)))}. Correct the recipe."
            )
        if len(set(values.values())) < LEAST_SOURCES:
            raise MosaicError(
                f"{path}: persona '{name}' must be made of at least {LEAST_SOURCES} faces, "
                f"but is made of {len(set(values.values()))}. Name others."
            )
        recipes.append(Recipe(name, title, {part: str(values[part]) for part in PARTS}, even))
    return recipes


class MosaicMaker:
    """Puts personas together. An instance belongs to one thread.

    Args:
        faces: the folder that the recipes' files lie in.
        size: side of a persona's picture, px.
    """

    def __init__(self, faces: Path, size: int = REFERENCE_PX) -> None:
        self._faces, self._size = faces, size
        self._detector, self._mesh, self._embedder = FaceDetector(), FaceMesh(), SFaceEmbedder()

    def make(self, recipe: Recipe) -> Mosaic:
        """Put a persona together.

        Raises:
            MosaicError: a face cannot be read, the finished picture shows no clear face, or a recogniser takes it for
                one of its sources (`check_likeness`).
        """
        sources = {file: self._read(self._faces / file) for file in sorted(set(recipe.parts.values()))}
        image = join({part: sources[file] for part, file in recipe.parts.items()}, self._size, recipe.even)
        margin = self._size // 4  # the detector wants some air around a face
        framed = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
        made = self._source(framed, f"the mosaic '{recipe.name}'")
        likeness = {file: round(float(made.identity @ source.identity), 3) for file, source in sources.items()}
        check_likeness(recipe.name, likeness)
        mesh = made.mesh - np.array([margin, margin, 0], np.float32)
        return Mosaic(image, trimmed(mesh, image), likeness)

    def _read(self, path: Path) -> Source:
        image = cv2.imread(str(path))
        if image is None:
            raise MosaicError(f"{path} must be a picture, but it cannot be read. Check --faces.")
        return self._source(np.asarray(image, np.uint8), str(path))

    def _source(self, image: NDArray[np.uint8], what: str) -> Source:
        faces = self._detector.detect(image)
        face: Face | None = self._mesh.refine(image, faces[0]) if faces else None
        if face is None or face.mesh is None or face.presence < _LEAST_PRESENCE:
            raise MosaicError(f"{what} must show a clear face, but none was found. Name other faces in the recipe.")
        return Source(image, face.mesh, self._embedder.embed(image, face))


def check_likeness(name: str, likeness: Mapping[str, float]) -> None:
    """Refuse a mosaic that is too like one of its sources.

    Raises:
        MosaicError: a similarity of `MAX_SIMILARITY` or more.
    """
    file = max(likeness, key=lambda each: likeness[each])
    if likeness[file] >= MAX_SIMILARITY:
        raise MosaicError(
            f"The mosaic '{name}' must be less than {MAX_SIMILARITY} like each of its sources (SFace), but is "
            f"{likeness[file]:.2f} like {file}. Take fewer or other parts of it."
        )


# ---- command ---------------------------------------------------------------------------------------------------


def write_persona(mosaic: Mosaic, recipe: Recipe, faces: Path, folder: Path, trust: TrustStore) -> None:
    """Write a persona's reference.png, mesh.npy, sources.json and consent.json into its folder.

    Args:
        mosaic: the finished persona.
        recipe: what it was made of.
        faces: the folder that the recipe's files lie in.
        folder: made where missing.
        trust: whose key signs that the face is nobody's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / REFERENCE), mosaic.image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    np.save(folder / "mesh.npy", mosaic.mesh.astype(np.float32))
    said = {
        "kind": "mosaic",
        "name": recipe.name,
        "title": recipe.title,
        "even": recipe.even,
        "parts": dict(recipe.parts),
        "sources": {
            file: {"sha256": hashlib.sha256((faces / file).read_bytes()).hexdigest(), "sface": likeness}
            for file, likeness in mosaic.likeness.items()
        },
    }
    record = synthetic_record(recipe.name, said, [folder / REFERENCE], trust.signing_key())
    for name, content in (("sources.json", said), ("consent.json", record)):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status: 2 where a persona is refused."""
    command = argparse.ArgumentParser(prog="training.data.mosaic", description=(__doc__ or "").split("\n\n")[0])
    command.add_argument("--recipes", type=Path, default=RECIPES, help="TOML of personas (%(default)s)")
    command.add_argument("--faces", type=Path, required=True, help="the folder that the recipes' files lie in")
    command.add_argument("--out", type=Path, required=True, help="where each persona gets a folder")
    command.add_argument("--only", nargs="*", help="only these personas")
    options = command.parse_args(arguments)
    try:
        maker, trust = MosaicMaker(options.faces), TrustStore(trust_folder(os.environ))
        recipes = read_recipes(options.recipes)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / ORDER).write_text("".join(f"{recipe.name}\n" for recipe in recipes), encoding="utf-8")
        for recipe in recipes:
            if not options.only or recipe.name in options.only:
                mosaic = maker.make(recipe)
                write_persona(mosaic, recipe, options.faces, options.out / recipe.name, trust)
                print(f"{recipe.name}: {', '.join(f'{file} {like:.2f}' for file, like in mosaic.likeness.items())}")
    except (MosaicError, TrustError, OSError, tomllib.TOMLDecodeError) as error:
        print(f"training.data.mosaic: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
