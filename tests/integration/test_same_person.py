"""A faceset that shows somebody else than the consent record's person is refused before it is trained on."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.real_faces import astronaut, moved
from training.data.classic import Facesets
from training.data.find_faces import FindOptions
from training.extract import ExtractOptions, extract
from understudy.consent.check import hash_files, read_record, write_record
from understudy.consent.record import Consent, ConsentError, ConsentFault, sign
from understudy.consent.same_person import check_faceset
from understudy.consent.trust_store import TrustStore
from understudy.faceset.faceset import Faceset

SHIPPED = sorted((Path(__file__).parents[2] / "bundles" / "default").glob("*/reference.png"))[0]


def stranger() -> np.ndarray:
    """A shipped persona's look, nobody's face, with room around it as in a photo: uint8 [H, W, 3]."""
    image = cv2.imread(str(SHIPPED))
    assert image is not None
    return cv2.copyMakeBorder(cv2.resize(image, (300, 300)), 60, 60, 60, 60, cv2.BORDER_REPLICATE).astype(np.uint8)


def photos_of(folder: Path, astronauts: int, strangers: int) -> list[Path]:
    """Write photos of the astronaut, and of somebody else."""
    folder.mkdir()
    rng = np.random.default_rng(2)
    pictures = [moved(astronaut(), rng.uniform(-15, 15), rng.uniform(1.1, 1.6)) for _ in range(astronauts)]
    pictures += [cv2.convertScaleAbs(stranger(), alpha=rng.uniform(0.7, 1.1)) for _ in range(strangers)]
    paths = [folder / f"{number:02d}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        cv2.imwrite(str(path), picture)
    return paths


def faceset_of(folder: Path, photos: list[Path], still: np.ndarray | None = None) -> Faceset:
    """Extract the photos' faces and sign a record that lists every photo (and the still, which lies beside)."""
    root = folder / "faces"
    extract(ExtractOptions(tuple(photos), root, FindOptions(size=128), is_quiet=True))
    listed = list(photos)
    if still is not None:
        listed.append(root / "still.png")
        cv2.imwrite(str(listed[-1]), still)
    now = datetime.now(UTC).replace(microsecond=0)
    consent = Consent(
        persona="eileen",
        kind="person",
        subject="Eileen Collins (public-domain portrait, NASA)",
        statement="A test's own record.",
        uses=("train",),
        not_before=now,
        not_after=now + timedelta(days=2),
        reference=hash_files(listed),
        recipe={},
        evidence={"method": "test"},
    )
    write_record(root / "consent.json", sign(consent, TrustStore(folder / "trust").signing_key()))
    return Faceset.open(root)


def check(folder: Path) -> None:
    Facesets({"eileen": str(folder / "faces")}).check_consent("eileen", folder / "trust")


@pytest.fixture(scope="module")
def own_photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return photos_of(tmp_path_factory.mktemp("own") / "photos", astronauts=10, strangers=0)


@pytest.mark.parametrize("has_still", [False, True])
def test_faceset_of_the_records_person_may_be_trained_on(
    own_photos: list[Path], has_still: bool, tmp_path: Path
) -> None:
    faceset_of(tmp_path, own_photos, astronaut() if has_still else None)
    check(tmp_path)


def test_faceset_of_somebody_else_than_the_records_still_is_refused(own_photos: list[Path], tmp_path: Path) -> None:
    """Every file is listed and signed for, but the face beside the record is another one."""
    faceset_of(tmp_path, own_photos, stranger())
    with pytest.raises(ConsentError, match="must show the person of the consent record") as caught:
        check(tmp_path)
    assert caught.value.code is ConsentFault.OTHER_PERSON


@pytest.mark.parametrize("has_still", [False, True])
def test_faceset_with_a_second_person_among_the_first_is_refused(has_still: bool, tmp_path: Path) -> None:
    photos = photos_of(tmp_path / "photos", astronauts=7, strangers=5)
    faceset_of(tmp_path, photos, astronaut() if has_still else None)
    with pytest.raises(ConsentError) as caught:
        check(tmp_path)
    assert caught.value.code is ConsentFault.OTHER_PERSON


def test_picture_that_the_record_does_not_list_vouches_for_nobody(own_photos: list[Path], tmp_path: Path) -> None:
    """Whoever lays another face beside the faceset changes nothing."""
    faceset = faceset_of(tmp_path, own_photos, astronaut())
    shutil.copy(SHIPPED, faceset.root / "another.png")
    check(tmp_path)


def test_nothing_about_the_faces_is_kept(own_photos: list[Path], tmp_path: Path) -> None:
    faceset = faceset_of(tmp_path, own_photos)
    record = (faceset.root / "consent.json").read_bytes()
    before = {path: path.stat().st_mtime_ns for path in faceset.root.rglob("*")}
    assert check_faceset(faceset, read_record(faceset.root / "consent.json")) == 1.0
    assert {path: path.stat().st_mtime_ns for path in faceset.root.rglob("*")} == before
    assert (faceset.root / "consent.json").read_bytes() == record
