"""Makes a persona of a look and a signed permission: a folder on the shelf, ready to play at once."""

import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ui.session.own_personas import ShelfPersona
from ui.session.workspace import Workspace
from ui.studio.photo import PersonaPhoto
from understudy.consent.check import (
    USES,
    Consent,
    ConsentError,
    ConsentFault,
    ConsentRecord,
    hash_files,
    sign,
    write_record,
)
from understudy.consent.trust_store import TrustStore
from understudy.jobs.atomic_file import write_json
from understudy.swap.own_personas import NOTE

_THUMBNAIL_PX = 192


@dataclass(frozen=True, slots=True)
class Permission:
    """What somebody agreed to, as the page took it down.

    Attributes:
        kind: "self" (the face of who sits here) or "person" (somebody else's).
        subject: whose face it is: their name.
        statement: what they agree to.
        uses: of "train", "live", "record".
        days: how long it counts.
        evidence: what stands behind it (`Consent.evidence`); empty while there is nothing.
        is_agreed: whether the box was ticked.
    """

    kind: str
    subject: str
    statement: str
    uses: tuple[str, ...]
    days: int
    evidence: Mapping[str, Any]
    is_agreed: bool

    def missing(self) -> list[str]:
        """Give what is missing for a whole permission, as the page names it; nothing where it is whole."""
        parts = {
            "the name of the person whose face it is": bool(self.subject.strip()),
            "the box beside the statement ticked": self.is_agreed,
            "at least one use that it is for": bool(self.uses),
            "“live” among its uses, or nobody can play it": not self.uses or "live" in self.uses,
            "proof of the permission: a signed form, a recorded statement, or the camera check": bool(self.evidence),
        }
        return [what for what, is_there in parts.items() if not is_there]

    def check(self) -> None:
        """Refuse to go on without a whole permission.

        Raises:
            ConsentError: MISSING, with everything that is missing.
        """
        if missing := self.missing():
            sentence = f"A persona of a person must have {'; '.join(missing)}. Add what is missing."
            raise ConsentError(ConsentFault.MISSING, sentence)


def evidence_of_file(path: Path, name: str) -> dict[str, Any]:
    """Return what a record keeps of a form or a recorded statement."""
    return {"method": "file", "name": Path(name).name, "sha256": hash_files([path])[0]}


def name_for(title: str, taken: Collection[str]) -> str:
    """Make an identifier of a title: lower case, digits and dashes, and not one of those taken."""
    plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40] or "persona"
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    return name


def make_persona(
    workspace: Workspace,
    title: str,
    picture: PersonaPhoto,
    permission: Permission,
    store: TrustStore,
    taken: Collection[str] = (),
) -> ShelfPersona:
    """Make a persona of a person: write its folder and sign its record.

    Args:
        workspace: whose persona it is.
        title: what people read.
        picture: its face.
        permission: who agreed to what.
        store: the operator's key signs.
        taken: names that it may not have, besides those on the shelf.

    Raises:
        ConsentError: the permission is not whole; nothing is written then.
        TrustError: the operator's key cannot be used.
    """
    permission.check()
    if not title.strip():
        raise ConsentError(ConsentFault.MISSING, "A persona must have a name to be picked by. Fill it in.")

    def record(name: str, files: Sequence[Path]) -> ConsentRecord:
        return sign(_consent(name, permission, files), store.signing_key())

    return shelve(workspace, title, picture, record, taken)


def shelve(
    workspace: Workspace,
    title: str,
    picture: PersonaPhoto,
    record: Callable[[str, Sequence[Path]], ConsentRecord],
    taken: Collection[str] = (),
) -> ShelfPersona:
    """Put a persona on the shelf, whole or not at all.

    Args:
        workspace: whose shelf.
        title: what people read.
        picture: its face.
        record: gives the signed record of (name, files that show the face).
        taken: names that it may not have, besides those on the shelf.
    """
    workspace.personas.mkdir(mode=0o700, parents=True, exist_ok=True)
    on_shelf = {path.name for path in workspace.personas.iterdir()}
    name = name_for(title, {*taken, *on_shelf})
    folder = workspace.personas / f".making-{secrets.token_hex(4)}"  # takes its name when it is whole
    folder.mkdir(mode=0o700)
    try:
        files = write_photo(folder, picture)
        write_record(folder / "consent.json", record(name, files))
        write_json(folder / NOTE, {"title": title.strip(), "created_s": time.time()})
        folder.rename(workspace.personas / name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return ShelfPersona(workspace.personas / name, name, title.strip())


def write_photo(folder: Path, picture: PersonaPhoto) -> tuple[Path, ...]:
    """Write photo.png, still.png, mesh.npy and thumbnail.jpg; returns those that a record must list."""
    cv2.imwrite(str(folder / "photo.png"), picture.photo)
    cv2.imwrite(str(folder / "still.png"), picture.still.image)
    np.save(folder / "mesh.npy", picture.still.mesh)
    thumbnail = cv2.resize(picture.still.image, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "thumbnail.jpg"), thumbnail, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return folder / "photo.png", folder / "still.png"


def _consent(name: str, permission: Permission, files: Sequence[Path]) -> Consent:
    now = datetime.now(UTC).replace(microsecond=0)
    return Consent(
        persona=name,
        kind=permission.kind,
        subject=permission.subject.strip(),
        statement=permission.statement,
        uses=tuple(use for use in USES if use in permission.uses),
        not_before=now,
        not_after=now + timedelta(days=permission.days),
        reference=hash_files(files),
        recipe={},
        evidence=dict(permission.evidence),
    )
