"""A paired faceset: drivers and, for each persona, the same faces as that persona would look.

A directory of flat arrays that are mapped, not read, so that a million pairs need no memory:

    pairs.json              what it holds, and how much of it is done
    drivers/                aligned crops with a margin for augmentation, and their meshes (training.data.drivers)
    maps.npy                uint8 [N, C, C, 2]: mask (what may be replaced), attention (eyes and mouth)
    targets/<persona>.npy   uint8 [N, C, C, 3], BGR: the persona in the driver's pose and light
    stills/<persona>.png, stills/<persona>.npy    the persona's look and its mesh
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.drivers import CANVAS_PX, CROP_PX, MARGIN_PX, DriverCrops, open_crops
from training.data.read_sources import file_digest
from understudy.consent.check import check, read_record
from understudy.consent.trust_store import TrustStore
from understudy.jobs.atomic_file import write_json
from understudy.vision.align import ALIGNMENT_VERSION
from understudy.vision.reenact import ReferenceFace

__all__ = ["CANVAS_PX", "COMMON", "CROP_PX", "MARGIN_PX", "PairedFaceset", "PairsError", "PairsIndex"]

# The decoder that paints the drivers themselves.
COMMON = "common"


class PairsError(RuntimeError):
    """A paired faceset is missing, unfinished or of another kind."""


@dataclass(frozen=True, slots=True)
class PairsIndex:
    """What pairs.json says.

    Attributes:
        count: how many drivers there are.
        done: how many rows are written, per array (drivers, and each persona).
        personas: recipe by persona name.
        sources: where each driver came from: (file, frame index).
        wanted: SHA-256 of the drivers that were asked for: their files' content, and which frames.
        digests: SHA-256 of the files among them, by name: what a model that learns from them must not be judged by.
    """

    count: int
    done: dict[str, int] = field(default_factory=dict[str, int])
    personas: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    sources: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    wanted: str = ""
    digests: dict[str, str] = field(default_factory=dict[str, str])
    alignment: int = ALIGNMENT_VERSION
    canvas_px: int = CANVAS_PX


class PairedFaceset:
    """A paired faceset on disk.

    Raises:
        PairsError: there is none at the path, or it was aligned in another way.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        path = root / "pairs.json"
        if not path.is_file():
            raise PairsError(f"{root} must be a paired faceset, but has no pairs.json. Make one: training.reenact.")
        self.index = PairsIndex(**json.loads(path.read_text()))
        if self.index.alignment != ALIGNMENT_VERSION or self.index.canvas_px != CANVAS_PX:
            raise PairsError(f"{root} was aligned in another way. Make it anew: training.reenact.")

    @classmethod
    def create(cls, root: Path, sources: list[tuple[str, int]], wanted: str = "") -> "PairedFaceset":
        """Start one of these drivers, or reopen it if it has the same (resume).

        Raises:
            PairsError: it holds pairs of others.
        """
        if (root / "pairs.json").is_file():
            pairs = cls(root)
            if [tuple(source) for source in pairs.index.sources] != sources:
                raise pairs.others()
            return pairs
        (root / "targets").mkdir(parents=True, exist_ok=True)
        (root / "stills").mkdir(exist_ok=True)
        digests = {file: file_digest(Path(file)) for file in dict(sources) if Path(file).is_file()}
        index = PairsIndex(len(sources), sources=sources, wanted=wanted, digests=digests)
        write_json(root / "pairs.json", asdict(index), indent=1)
        return cls(root)

    def others(self) -> PairsError:
        """The refusal of drivers that this one was not made of."""
        return PairsError(f"{self.root} holds pairs of other drivers. Choose another --out, or remove it.")

    @cached_property
    def drivers(self) -> DriverCrops:
        """The drivers' crops and meshes, mapped.

        Raises:
            DriversError: they are gone.
        """
        return open_crops(self.root / "drivers")

    def source_digests(self) -> list[str]:
        """Return the SHA-256 of the files that the drivers come from."""
        return sorted(set(self.index.digests.values()))

    def array(self, name: str, channels: int, *, write: bool = False) -> NDArray[np.uint8]:
        """Map an array: uint8 [N, CANVAS_PX, CANVAS_PX, channels]; made when it is written first."""
        path = self.root / f"{name}.npy"
        if path.is_file():
            return np.load(path, mmap_mode="r+" if write else "r")
        if not write:
            raise PairsError(f"{self.root} has no {name}. Make it: training.reenact.")
        shape = (self.index.count, CANVAS_PX, CANVAS_PX, channels)
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)

    def mark_done(self, name: str, rows: int) -> None:
        """Record that an array's first rows are written, after their bytes are."""
        self.index = replace(self.index, done={**self.index.done, name: rows})
        write_json(self.root / "pairs.json", asdict(self.index), indent=1)

    def add_persona(self, name: str, stills: list[ReferenceFace], recipe: dict[str, Any]) -> None:
        """Record a persona's looks, the one to show first, and how they were made."""
        for i, still in enumerate(stills):
            stem = self.root / "stills" / (f"{name}.{i}" if i else name)
            cv2.imwrite(f"{stem}.png", still.image)
            np.save(f"{stem}.npy", still.mesh)
        self.index = replace(self.index, personas={**self.index.personas, name: recipe})
        write_json(self.root / "pairs.json", asdict(self.index), indent=1)

    def still(self, name: str) -> ReferenceFace:
        """Return the look that a persona is shown by."""
        return self.stills(name)[0]

    def stills(self, name: str) -> list[ReferenceFace]:
        """Return all of a persona's looks.

        Raises:
            PairsError: there is no such persona.
        """
        found: list[ReferenceFace] = []
        while True:
            stem = self.root / "stills" / (f"{name}.{len(found)}" if found else name)
            if not Path(f"{stem}.npy").is_file():
                break
            found.append(ReferenceFace(cv2.imread(f"{stem}.png"), np.load(f"{stem}.npy")))  # type: ignore[arg-type]
        if not found:
            raise PairsError(f"{self.root} has no persona {name!r}. It has: {', '.join(self.personas) or 'none'}.")
        return found

    @property
    def count(self) -> int:
        """How many drivers there are."""
        return self.index.count

    def recipe(self, name: str) -> dict[str, Any]:
        """Return how a persona was made."""
        return self.index.personas[name]

    def consent_path(self, name: str) -> Path:
        """Where a persona's consent record lies, if it has one of its own."""
        return self.root / "stills" / f"{name}.consent.json"

    def check_consent(self, name: str, trust: Path) -> None:
        """Refuse to train a persona that shows a person whose consent does not cover it.

        Composites are nobody's face: their recipe is their record.

        Raises:
            understudy.consent.record.ConsentError: the record is missing, expired, revoked or does not fit.
        """
        recipe = self.recipe(name)
        if recipe.get("kind") == "composite":
            return
        record = read_record(self.consent_path(name))
        check(record, "train", TrustStore(trust).read(), faces=recipe.get("files", []), persona=name)

    @property
    def personas(self) -> list[str]:
        """The names of the personas whose targets are all written."""
        return [name for name in self.index.personas if self.index.done.get(name) == self.index.count]

    def digest(self) -> str:
        """Return the SHA-256 of what the pairs were made from."""
        return hashlib.sha256(json.dumps(asdict(self.index), sort_keys=True).encode()).hexdigest()


def split_by_file(files: Sequence[str], most: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part rows into those for validation and those to learn from, so that no file is in both.

    Neighbouring frames of a clip are nearly the same picture: a split by frames would measure memory.

    Args:
        files: each row's source; at least two rows.
        most: how many rows validation wants. It gets at least one, and no more than needed to reach that number.
        seed: of the choice.

    Returns:
        Rows for validation and rows for training, int64, neither empty. Of a single file its last rows are held out.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[int]] = {}
    for row, file in enumerate(files):
        rows.setdefault(file, []).append(row)
    most = max(1, most)
    if len(rows) == 1:
        every = np.arange(len(files))
        return every[-most:], rng.permutation(every[:-most])
    names = sorted(rows)
    order = sorted((names[place] for place in rng.permutation(len(names))), key=lambda name: len(rows[name]) > most)
    held = rows[order[0]]
    for name in order[1:-1]:
        if len(held) + len(rows[name]) <= most:
            held = held + rows[name]
    left = sorted(set(range(len(files))) - set(held))
    return rng.permutation(np.array(held)), rng.permutation(np.array(left))
