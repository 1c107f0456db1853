"""Folders of personas, and bundles made of them.

A persona folder holds `reference.png` (an aligned picture), `mesh.npy` (float32 [468, 3], px of it), `consent.json`,
and, where there are more references, `more/NAME.png` and `more/NAME.npy`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from understudy.bundle.bundle import Bundle, BundleError, write_manifest
from understudy.bundle.manifest import MIXER, ONE_SHOT
from understudy.consent.check import write_record
from understudy.consent.record import ConsentRecord
from understudy.swap.served import ServedOneShot
from understudy.vision.reference import ReferenceFace

_THUMBNAIL_PX = 192
_NOTICE = Path(__file__).with_name("data") / "NOTICE.md"
_LICENCE = (
    "Apache-2.0; personas are mosaics of machine-made faces of the SFHQ data sets, MIT (c) David Beniaguev, "
    "unless their record says otherwise"
)


def write_persona(
    folder: Path, reference: ReferenceFace, record: ConsentRecord, more: Sequence[ReferenceFace] = ()
) -> None:
    """Write a persona folder.

    Args:
        folder: made where missing.
        reference: the look that it is shown by.
        record: its consent record; lists `reference.png` (`training.still`) and what is in `more`.
        more: further references, in other poses and expressions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "reference.png"), reference.image)
    np.save(folder / "mesh.npy", reference.mesh)
    write_record(folder / "consent.json", record)
    if more:
        write_references(folder / "more", more)


def write_references(folder: Path, references: Sequence[ReferenceFace]) -> list[Path]:
    """Write references as `NUMBER.png` and `NUMBER.npy`; returns the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [folder / f"{number:02d}.png" for number in range(len(references))]
    for path, each in zip(pictures, references, strict=True):
        cv2.imwrite(str(path), each.image)
        np.save(path.with_suffix(".npy"), each.mesh)
    return pictures


def write_thumbnail(folder: Path) -> None:
    """Write `thumbnail.jpg` of a persona folder's `reference.png`."""
    image = cv2.imread(str(folder / "reference.png"))
    small = cv2.resize(np.asarray(image), (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "thumbnail.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 88])


def write_one_shot(
    out: Path,
    personas: Path | Bundle,
    write_mixer: Callable[[Path], None],
    *,
    name: str,
    version: str,
    training: Mapping[str, Any],
    titles: Mapping[str, str] | None = None,
) -> Path:
    """Write a bundle of a mixing network and personas.

    Args:
        out: the bundle's folder; replaced as a whole, and only once the new one is complete.
        personas: folder of persona folders, in the order of their names or of `order.txt`; or a bundle that has them.
        write_mixer: writes the network to the path that it is given.
        name: the bundle's.
        version: the bundle's.
        training: what a model card needs to know.
        titles: what people read, by a persona's name, where it is not the name itself.

    Returns:
        out.

    Raises:
        BundleError: a persona lacks a file, or what would be written could not be loaded again.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        root = Path(folder) / "bundle"
        root.mkdir()
        copied = _copy_personas(personas, root) if isinstance(personas, Path) else _take_over(personas, root)
        write_mixer(root / MIXER)
        write_manifest(
            root,
            name=name,
            version=version,
            personas=copied | dict(titles or {}),
            input_shape=ServedOneShot.spec.input_shape,
            output_shape=ServedOneShot.spec.output_shape,
            licence=_LICENCE,
            training=training,
            factory=ONE_SHOT,
        )
        Bundle.load(root).mixer()
        replace_folder(root, out)
    return out


def replace_folder(new: Path, out: Path) -> None:
    """Put a finished folder in the place of an old one."""
    if out.exists():
        old = new.parent / "old"
        out.rename(old)
        new.rename(out)
        shutil.rmtree(old)
    else:
        new.rename(out)


def _copy_personas(source: Path, root: Path) -> dict[str, str]:
    """Copy persona folders and write their thumbnails; return titles by name, in order."""
    shutil.copyfile(_NOTICE, root / _NOTICE.name)
    order = source / "order.txt"
    found = sorted(path.parent.name for path in source.glob("*/reference.png"))
    names = [name for name in order.read_text().split() if name in found] if order.is_file() else found
    if not names:
        raise BundleError(f"{source} must hold folders with a reference.png, but has none. Run training.data.mosaic.")
    for name in names:
        (root / name).mkdir()
        for file in ("reference.png", "mesh.npy", "consent.json"):
            if not (source / name / file).is_file():
                raise BundleError(f"{source / name} must hold {file}, but does not. Make the persona again.")
            shutil.copyfile(source / name / file, root / name / file)
        if (source / name / "more").is_dir():
            shutil.copytree(source / name / "more", root / name / "more")
        write_thumbnail(root / name)
    return {name: name.title() for name in names}


def _take_over(bundle: Bundle, root: Path) -> dict[str, str]:
    if not bundle.manifest.is_one_shot:
        raise BundleError(f"{bundle.path} holds an autoencoder and no references. Name a one-shot bundle.")
    for name in bundle.manifest.files:
        if name != MIXER:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(bundle.read(name))
    return {persona.name: persona.title for persona in bundle.personas}
