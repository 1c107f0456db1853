"""A small real paired faceset: the astronaut as driver, turned and lit in many ways, and as photo persona."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

from tests.support.real_faces import astronaut, moved
from training import reenact
from training.data.pairs import PairedFaceset
from understudy.consent.check import hash_files, write_record
from understudy.consent.record import Consent, sign
from understudy.consent.trust_store import TrustStore


def build_tiny_pairs(folder: Path, persona: str = "eileen", drivers: int = 20) -> PairedFaceset:
    """Make `folder/pairs` through the command's own code, and `folder/trust` that signed the consent to it."""
    pictures = folder / "drivers"
    pictures.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for i in range(drivers):
        image = moved(astronaut(), rng.uniform(-25, 25), rng.uniform(1.0, 1.8))
        lit = np.clip(image * rng.uniform(0.5, 1.2, 3), 0, 255).astype(np.uint8)
        cv2.imwrite(str(pictures / f"{i:02d}.jpg"), lit)
    photo = folder / "photo.png"
    cv2.imwrite(str(photo), astronaut())
    record = sign_photo(photo, persona, folder / "trust")
    arguments = ["--drivers", str(pictures), "--out", str(folder / "pairs"), "--name", persona, "--photo", str(photo)]
    reenact.run(reenact.parser().parse_args([*arguments, "--consent", str(record), "--trust", str(folder / "trust")]))
    return PairedFaceset(folder / "pairs")


def sign_photo(photo: Path, persona: str, trust: Path, uses: tuple[str, ...] = ("train", "live", "record")) -> Path:
    """Sign a record that lets a photo become a persona; returns its path."""
    now = datetime.now(UTC).replace(microsecond=0)
    consent = Consent(
        persona=persona,
        kind="person",
        subject="Eileen Collins (public-domain portrait, NASA)",
        statement="A test's own record.",
        uses=uses,
        not_before=now,
        not_after=now + timedelta(days=2),
        reference=hash_files([photo]),
        recipe={},
        evidence={"method": "test"},
    )
    path = photo.with_suffix(".consent.json")
    write_record(path, sign(consent, TrustStore(trust).signing_key()))
    return path
