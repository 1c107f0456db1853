"""Personas beside those that ship: what whoever runs the app made in the Studio, and any photo with its record."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from liveframe.errors import LiveframeError
from understudy.bundle.bundle import Bundle
from understudy.consent.check import hash_files, read_record, write_record
from understudy.media.clip import read_photo
from understudy.vision.detect import FaceDetector
from understudy.vision.mesh import FaceMesh
from understudy.vision.reference import reference_face

NOTE = "persona.json"
REFERENCES, REFERENCES_NOTE = "references", "references.json"
_LEAST_PRESENCE = 0.8


class PersonaError(LiveframeError, ValueError):
    """There is no such persona, or none can be made of what was given."""


@dataclass(frozen=True, slots=True)
class OwnPersona:
    """A persona that was made in the Studio on this machine.

    Attributes:
        folder: holds everything about it.
        name: identifier; the folder's name.
        title: what people read.
    """

    folder: Path
    name: str
    title: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Whom a command was asked for.

    Attributes:
        name: the persona's.
        title: what people read.
        bundle: holds it, or the mixing network that plays its photo.
        look: the folder of its photo, of a persona that is in no bundle; else None.
        photo: the picture that its record lists, where that is not the look's own.
    """

    name: str
    title: str
    bundle: Path
    look: Path | None = None
    photo: Path | None = None


def own_personas(work: Path) -> list[OwnPersona]:
    """The personas of whoever runs the app, by name; half-made ones are left out."""
    found: list[OwnPersona] = []
    with suppress(OSError):  # no such folder, or closed to us: nobody's
        for note in sorted((work / "viewers" / "operator" / "personas").glob(f"*/{NOTE}")):
            with suppress(ValueError, KeyError, TypeError, OSError):
                title = str(json.loads(note.read_text())["title"])
                found.append(OwnPersona(note.parent, note.parent.name, title))
    return found


def further_references(folder: Path) -> tuple[Path, ...]:
    """Return the pictures that a persona is played by besides its still: those of its clips, where they are in use.

    `training.references` writes them, each with its mesh beside it, and whether they are better than the still alone.

    Args:
        folder: the persona's.
    """
    with suppress(ValueError, OSError):  # no note, or a torn one: the still plays
        if json.loads((folder / REFERENCES / REFERENCES_NOTE).read_text())["is_used"] is True:
            return tuple(sorted((folder / REFERENCES).glob("*.png")))
    return ()


def choose_persona(word: str, source: Path, bundle: Bundle, own: Sequence[OwnPersona]) -> Choice:
    """Find a persona by its name or title, without regard to case; empty: the bundle's first.

    Args:
        word: what was asked for.
        source: where the bundle was loaded from.
        bundle: the personas that ship.
        own: those made here.

    Raises:
        PersonaError: nobody is called that, or several are.
    """
    offered = [Choice(info.name, info.title, source) for info in bundle.personas]
    offered += [Choice(each.name, each.title, source, each.folder) for each in own]
    if not word:
        return offered[0]
    exact = [each for each in offered if each.name == word]
    alike = exact or [each for each in offered if word.casefold() in (each.name.casefold(), each.title.casefold())]
    if len(alike) == 1:
        return alike[0]
    names = ", ".join(each.name for each in alike or offered)
    if not alike:
        raise PersonaError(f"The persona must be one of {names}, but got '{word}'. Pick one.")
    raise PersonaError(f"'{word}' must name one persona, but several are called that ({names}). Use the name.")


def persona_of_photo(photo: Path, record: Path, folder: Path, bundle: Path) -> Choice:
    """Make a persona of a photo whose owner agreed: its reference picture, its mesh, and the record beside them.

    Args:
        photo: one clear face.
        record: the signed consent record; it lists the photo, or the reference picture made of it.
        folder: where to write; made where missing.
        bundle: what else is needed to play it.

    Raises:
        MediaError: the photo cannot be read.
        ConsentError: the record cannot be read.
        PersonaError: the photo shows no clear face, or more than one, or the record is another photo's.
    """
    image, signed = read_photo(photo), read_record(record)
    faces = FaceDetector().detect(image)
    if len(faces) > 1 and _side(faces[1].box) > _side(faces[0].box) / 2:
        raise PersonaError(f"'{photo.name}' must show one person, but shows {len(faces)}. Cut out the one you mean.")
    face = FaceMesh().refine(image, faces[0]) if faces else None
    if face is None or face.presence <= _LEAST_PRESENCE:
        raise PersonaError(f"'{photo.name}' must show a clear face, but none was found. Use a sharp, frontal photo.")
    reference = reference_face(image, face)
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "still.png"), reference.image)
    np.save(folder / "mesh.npy", reference.mesh)
    listed = set(signed.consent.reference)
    is_own_still = bool(listed & {*hash_files([folder / "still.png"])})
    if not is_own_still and not listed & {*hash_files([photo])}:
        raise PersonaError(
            f"'{record.name}' must list '{photo.name}', but lists other files. Sign one that does: "
            f"python -m understudy.consent make --files {photo.name} ..."
        )
    write_record(folder / "consent.json", signed)
    name = signed.consent.persona
    return Choice(name, name.title(), bundle, folder, None if is_own_still else photo)


def _side(box: np.ndarray) -> float:
    return float(np.max(box[2:] - box[:2]))
