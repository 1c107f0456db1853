r"""Make persona stills and the pairs that decoders learn from.

    uv run python -m training.reenact --drivers FACES_FOLDER CLIP... --out PAIRS \
        --personas training/configs/personas.toml --faces FACES_FOLDER
    uv run python -m training.reenact --drivers FOLDER --out PAIRS --name me --photo me.jpg --consent me.json
    uv run python -m training.reenact --drivers FOLDER --out PAIRS --name me --faceset FACESET

Drivers are pictures, clips and facesets (training.extract) of any people. Each is brought into the
crop once; each persona's still is then reenacted onto it (understudy.vision.reenact). A killed run goes on
where it stopped.
"""

import argparse
import hashlib
import os
import random
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.data.classic import Facesets, best_stills
from training.data.drivers import (
    CANVAS_PX,
    CROP_PX,
    MARGIN_PX,
    DriverFinder,
    DriversError,
    collect,
    list_drivers,
    open_crops,
)
from training.data.pairs import PairedFaceset, PairsError
from understudy.consent.check import check, hash_files, read_record, write_record
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import TrustStore, trust_folder
from understudy.draw.contact_sheet import labelled
from understudy.media.limits import IMAGE_EXTENSIONS
from understudy.vision.embedding import SFaceEmbedder
from understudy.vision.face import AlignedFace, Points
from understudy.vision.reenact import (
    ReferenceFace,
    attention_map,
    caricature,
    composite,
    face_mask,
    reenact,
    reference_face,
)

_CHUNK = 256


# ---- stills ----------------------------------------------------------------------------------------------------


def make_composite(
    spec: dict[str, Any], faces_root: Path, average: ReferenceFace, finder: DriverFinder
) -> ReferenceFace:
    """Make a composite persona: the faces of a folder that are most alike, averaged, then set apart.

    Args:
        spec: folder, faces (how many, at least 40), caricature (1 is none).
        faces_root: what the folder is relative to.
        average: everybody's composite.
        finder: finds the faces.

    Raises:
        ValueError: the folder has too few faces.
    """
    embedder = SFaceEmbedder()
    found: list[tuple[AlignedFace, NDArray[np.float32]]] = []
    for image in tqdm(list(_some_pictures(faces_root / spec["folder"], 260)), desc=spec["name"], unit="face"):
        aligned = finder.aligned(image)
        if aligned is not None:
            found.append((aligned, embedder.embed(image, aligned.face)))
    chosen = most_alike(np.array([vector for _, vector in found]), int(spec["faces"])) if found else []
    still = composite([(found[i][0].crop, found[i][0].mesh) for i in chosen], CROP_PX)
    return caricature(still, average, float(spec.get("caricature", 1.0)))


def _composite_stills(
    spec: dict[str, Any], faces_root: Path, average: ReferenceFace, finder: DriverFinder
) -> list[ReferenceFace]:
    return [make_composite(spec, faces_root, average, finder)]


def most_alike(vectors: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return the indices of the tightest group: the face with the nearest neighbours, and those neighbours."""
    cosine = vectors @ vectors.T
    centre = np.sort(cosine, axis=1)[:, -count:].mean(1).argmax()
    return np.argsort(-cosine[centre])[:count]


def everybody(faces_root: Path, finder: DriverFinder, count: int = 320) -> ReferenceFace:
    """Return the composite of as many faces from every folder."""
    folders = sorted({path.parent for path in faces_root.rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS})
    found = [
        finder.aligned(image)
        for folder in tqdm(folders, desc="average", unit="folder")
        for image in _some_pictures(folder, max(1, count // max(1, len(folders))))
    ]
    return composite([(face.crop, face.mesh) for face in found if face is not None], CROP_PX)


def consented_photo(photo: Path, name: str, record: Path, trust: Path) -> dict[str, Any]:
    """Return the recipe of a photo persona, once its consent record covers the photo for training.

    Raises:
        ConsentError: the record is missing, invalid, or does not cover the photo.
        PairsError: there is no such photo.
    """
    if not photo.is_file():
        raise PairsError(f"{photo} must be a picture, but there is no such file. Check --photo.")
    digests = hash_files([photo])
    check(read_record(record), "train", TrustStore(trust).read(), faces=digests, persona=name)
    return {"kind": "photo", "title": name.title(), "files": list(digests)}


def photo_still(path: Path, finder: DriverFinder) -> ReferenceFace:
    """Return the still of one photo.

    Raises:
        PairsError: the file cannot be read or shows no clear face.
    """
    image = cv2.imread(str(path))
    if image is None:
        raise PairsError(f"{path} must be a picture, but it cannot be read. Use a JPEG or PNG.")
    aligned = finder.aligned(image)
    if aligned is None:
        raise PairsError(f"{path} must show a clear face, but none was found. Use a sharp, frontal photo.")
    return reference_face(np.asarray(image, np.uint8), aligned.face)


def _some_pictures(folder: Path, limit: int) -> Iterator[NDArray[np.uint8]]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_EXTENSIONS)
    random.Random(2).shuffle(paths)
    for path in paths[:limit]:
        image = cv2.imread(str(path))
        if image is not None:
            yield image


# ---- drivers ---------------------------------------------------------------------------------------------------


def write_drivers(root: Path, wanted: Sequence[tuple[Path, int]], finder: DriverFinder) -> PairedFaceset:
    """Find each driver's face, and write crops, masks and attention maps; what shows no face is left out.

    A killed run resumes: what was found is on disk, and not looked for again.

    Raises:
        DriversError: no driver shows a face.
        PairsError: the folder holds pairs of other drivers.
    """
    asked = _digest(wanted)
    if (root / "pairs.json").is_file():
        pairs = PairedFaceset(root)
        if pairs.index.wanted != asked:
            raise pairs.others()
    else:
        collect(wanted, root / "drivers", finder)
        pairs = PairedFaceset.create(root, open_crops(root / "drivers").sources, asked)
    meshes = pairs.drivers.meshes
    _fill(pairs, "maps", "maps", 2, lambda row: _maps(meshes[row]))
    return pairs


def _digest(wanted: Sequence[tuple[Path, int]]) -> str:
    """Return the SHA-256 of drivers: their files' content, and which frames."""
    hashes = {file: hash_files([file])[0] for file in {file for file, _ in wanted}}
    lines = sorted(f"{hashes[file]} {index}" for file, index in wanted)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _maps(mesh: Points) -> NDArray[np.uint8]:
    return np.dstack([face_mask(mesh, CANVAS_PX), attention_map(mesh, CANVAS_PX)])


def write_targets(pairs: PairedFaceset, name: str) -> None:
    """Reenact a persona's still onto every driver."""
    drivers, meshes = pairs.drivers.crops, pairs.drivers.meshes
    stills = pairs.stills(name)

    def target(row: int) -> NDArray[np.uint8]:
        return reenact(nearest_still(stills, meshes[row]), drivers[row], meshes[row])[0]

    _fill(pairs, f"targets/{name}", name, 3, target)


def nearest_still(stills: list[ReferenceFace], mesh: Points) -> ReferenceFace:
    """Return the still whose pose and expression are nearest to a driver's, so that it is warped least.

    Args:
        stills: aligned, CROP_PX wide.
        mesh: float32 [468, 3], the driver's, px of its canvas.
    """
    if len(stills) == 1:
        return stills[0]
    wanted = mesh[:, :2] - MARGIN_PX
    return min(stills, key=lambda still: float(np.abs(still.mesh[:, :2] - wanted).mean()))


def _fill(pairs: PairedFaceset, array: str, key: str, channels: int, make: Any) -> None:
    """Write an array chunk by chunk on all cores; a killed run goes on after the last whole chunk."""
    rows = pairs.array(array, channels, write=True)
    start = pairs.index.done.get(key, 0)
    bar = tqdm(total=pairs.index.count, initial=start, desc=key, unit="face")
    with ThreadPoolExecutor() as pool:
        for first in range(start, pairs.index.count, _CHUNK):
            last = min(first + _CHUNK, pairs.index.count)
            for row, value in zip(range(first, last), pool.map(make, range(first, last)), strict=True):
                rows[row] = value
            rows.flush()  # type: ignore[attr-defined]
            pairs.mark_done(key, last)
            bar.update(last - first)
    bar.close()


# ---- looking at it ---------------------------------------------------------------------------------------------


def pairs_sheet(pairs: PairedFaceset, personas: list[str], rows: int = 24) -> NDArray[np.uint8]:
    """Return a sheet to look at, labelled: driver, each persona, mask; uint8 [H, W, 3], BGR."""
    inner = slice(MARGIN_PX, MARGIN_PX + CROP_PX)
    drivers, maps = pairs.drivers.crops, pairs.array("maps", 2)
    targets = [pairs.array(f"targets/{name}", 3) for name in personas]
    lines: list[NDArray[np.uint8]] = []
    for row in np.linspace(0, pairs.index.count - 1, rows).astype(int):
        mask = cv2.merge([maps[row, inner, inner, 0]] * 3)
        cells: Iterable[Any] = [drivers[row, inner, inner], *(t[row, inner, inner] for t in targets), mask]
        lines.append(np.hstack([cv2.resize(np.ascontiguousarray(c), (128, 128)) for c in cells]))
    half = (len(lines) + 1) // 2
    lines += [np.zeros_like(lines[0])] * (2 * half - len(lines))
    return labelled(np.hstack([np.vstack(lines[:half]), np.vstack(lines[half:])]))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument(
        "--drivers", type=Path, nargs="+", required=True, help="pictures, clips, folders of them, facesets"
    )
    command.add_argument("--out", type=Path, required=True, help="the paired faceset to make or go on with")
    command.add_argument("--personas", type=Path, help="TOML of composite personas")
    command.add_argument("--only", nargs="*", help="only these personas of the TOML")
    command.add_argument("--faces", type=Path, help="the folder that the TOML's folders are in")
    command.add_argument("--name", help="name of a persona made of one photo")
    command.add_argument("--photo", type=Path, help="the photo")
    command.add_argument("--faceset", type=Path, help="or a faceset of one person, with their consent.json in it")
    command.add_argument("--stills", type=int, default=32, help="how many of its faces to warp from (32)")
    command.add_argument("--consent", type=Path, help="the consent record that covers the photo")
    command.add_argument("--trust", type=Path, help="folder of keys (default: UNDERSTUDY_HOME or ~/.understudy)")
    command.add_argument("--frames-per-clip", type=int, default=240)
    command.add_argument("--pictures", type=int, default=3000)
    return command


def main() -> None:
    """Run from the command line."""
    try:
        run(parser().parse_args())
    except (ConsentError, DriversError, PairsError, ValueError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error}. What is done is kept; free some disk space and run the same command again.")


def run(args: argparse.Namespace) -> None:
    """Make the stills and pairs that the command line asks for."""
    finder = DriverFinder()
    drivers = list_drivers(args.drivers, args.frames_per_clip, args.pictures)
    pairs = write_drivers(args.out, drivers, finder)
    for name, recipe, make in _wanted_personas(args, pairs, finder):
        if name not in pairs.index.personas:
            pairs.add_persona(name, make(), recipe)
        write_targets(pairs, name)
        cv2.imwrite(str(args.out / "sheet.jpg"), pairs_sheet(pairs, pairs.personas))
    print(f"{pairs.index.count} drivers, personas: {', '.join(pairs.personas)}. Look at {args.out / 'sheet.jpg'}.")


def _wanted_personas(
    args: argparse.Namespace, pairs: PairedFaceset, finder: DriverFinder
) -> Iterator[tuple[str, dict[str, Any], Callable[[], list[ReferenceFace]]]]:
    """Return name, recipe and maker of each persona, consent checked."""
    if args.photo:
        if not args.name or not args.consent:
            raise PairsError("a photo must have a --name and a --consent record (understudy.consent make).")
        recipe = consented_photo(args.photo, args.name, args.consent, args.trust or trust_folder(os.environ))
        write_record(pairs.consent_path(args.name), read_record(args.consent))
        yield args.name, recipe, lambda: [photo_still(args.photo, finder)]
    if args.faceset:
        if not args.name:
            raise PairsError("a faceset must have a --name.")
        facesets = Facesets({args.name: str(args.faceset)})
        facesets.check_consent(args.name, args.trust or trust_folder(os.environ))
        write_record(pairs.consent_path(args.name), read_record(facesets.consent_path(args.name)))
        faceset = facesets.by_name[args.name]
        yield args.name, facesets.recipe(args.name), lambda: best_stills(faceset, args.stills)
    if args.personas:
        if not args.faces:
            raise PairsError("composites must have --faces, the folder that the TOML's folders are in.")
        specs = tomllib.loads(args.personas.read_text())["persona"]
        specs = [spec for spec in specs if not args.only or spec["name"] in args.only]
        if missing := [spec for spec in specs if spec["name"] not in pairs.index.personas]:
            average = everybody(args.faces, finder)
            for spec in missing:
                stills = _composite_stills(spec, args.faces, average, finder)
                pairs.add_persona(spec["name"], stills, {"kind": "composite", **spec})
        for spec in specs:
            yield spec["name"], pairs.recipe(spec["name"]), lambda: []
