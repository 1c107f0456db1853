"""Two small real facesets with their records: the astronaut, and a shipped persona's look, turned and lit anew."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

from liveframe.frame import Image
from tests.support.real_faces import astronaut, moved
from training.data.find_faces import FindOptions
from training.extract import ExtractOptions, extract
from understudy.consent.check import hash_files, write_record
from understudy.consent.record import USES, Consent, sign
from understudy.consent.trust_store import TrustStore

NAMES = ("eileen", "nobody")
_SHIPPED = Path(__file__).parents[2] / "bundles/default/clara/reference.png"


def build_facesets(folder: Path, faces: int = 12) -> dict[str, str]:
    """Extract `folder/<name>/faces` of photos, and sign what they may be used for by the key in `folder/trust`.

    Returns:
        The facesets' folders by name, as [facesets] takes them.
    """
    looks = {"eileen": astronaut(), "nobody": _with_room(cv2.imread(str(_SHIPPED)))}
    roots: dict[str, str] = {}
    for seed, (name, look) in enumerate(looks.items()):
        photos = _photos(folder / name / "photos", look, faces, seed)
        root = folder / name / "faces"
        extract(ExtractOptions(tuple(photos), root, FindOptions(size=128), is_quiet=True))
        sign_files(root / "consent.json", name, photos, folder / "trust")
        roots[name] = str(root)
    return roots


def sign_files(path: Path, persona: str, files: Sequence[Path], trust: Path, uses: Sequence[str] = USES) -> None:
    """Write a record that lets files become a persona."""
    now = datetime.now(UTC).replace(microsecond=0)
    consent = Consent(
        persona=persona,
        kind="person",
        subject="Eileen Collins (public-domain portrait, NASA), or nobody",
        statement="A test's own record.",
        uses=tuple(uses),
        not_before=now,
        not_after=now + timedelta(days=2),
        reference=hash_files(files),
        recipe={},
        evidence={"method": "test"},
    )
    write_record(path, sign(consent, TrustStore(trust).signing_key()))


def _photos(folder: Path, look: Image, count: int, seed: int) -> list[Path]:
    folder.mkdir(parents=True)
    rng, paths = np.random.default_rng(seed), [folder / f"{number:02d}.png" for number in range(count)]
    for path in paths:
        image = moved(look, rng.uniform(-15, 15), rng.uniform(1.1, 1.6))
        cv2.imwrite(str(path), np.clip(image * rng.uniform(0.6, 1.1), 0, 255).astype(np.uint8))
    return paths


def _with_room(face: Image) -> Image:
    """Return a picture of 512 px with the face where the astronaut's is."""
    small = cv2.resize(face, (180, 180), interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, 30, 302, 130, 202, cv2.BORDER_REPLICATE).astype(np.uint8)
