"""Who plays whom when several people are in sight: told by the face itself, not by where or when it was first seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from liveframe.errors import LiveframeError
from liveframe.frame import Image
from understudy.media.clip import read_photo
from understudy.vision.detect import FaceDetector
from understudy.vision.embedding import Embedding, SFaceEmbedder
from understudy.vision.face import Face

AS_IT_IS = ""  # in place of a persona's name: the face is shown as the camera sees it
PLACES = ("left", "middle", "right")
_KEEP_WORDS = frozenset({"keep", "nobody"})
_LOOK_AGAIN_FRAMES = 10
_LEAST_COSINE = 1 - SFaceEmbedder.same_person
_FORGET_TRACKS = 64


class PeopleError(LiveframeError, ValueError):
    """Who plays whom cannot be told from what was given."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One person and who plays them.

    Attributes:
        persona: the persona's name, or `AS_IT_IS`.
        reference: the person's embedding (`SFaceEmbedder`), where a picture of them was given.
        place: one of `PLACES`, where only their place was given: whoever is there when a face is first seen.
    """

    persona: str
    reference: Embedding | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class People:
    """Rules for several people. Immutable; each stream opens its own `PeopleWatch`.

    Attributes:
        rules: at least one. Faces that no rule fits get the persona of the settings.
    """

    rules: tuple[Rule, ...]

    @property
    def personas(self) -> tuple[str, ...]:
        """The personas that the rules name."""
        return tuple(dict.fromkeys(rule.persona for rule in self.rules if rule.persona))

    def open(self) -> "PeopleWatch":
        """Begin to watch one stream."""
        return PeopleWatch(self.rules)


@dataclass(slots=True)
class _Known:
    """What is known of one track: who plays it, and when it was last looked at."""

    persona: str | None
    looked: int


class PeopleWatch:
    """Tells who plays each face of one stream, through cuts and crossings. Not thread-safe.

    Every track is compared with the references when it is first seen and every tenth frame after, about 25 ms each.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._embedder = SFaceEmbedder()
        self._references = [(rule.reference, rule.persona) for rule in rules if rule.reference is not None]
        self._places = {rule.place: rule.persona for rule in rules if rule.reference is None}
        self._known: dict[int, _Known] = {}
        self._frame = 0

    def assign(self, image: Image, faces: Sequence[Face]) -> Mapping[int, str]:
        """Return the persona (or `AS_IT_IS`) of each face that a rule fits, by track id.

        Args:
            image: uint8 [H, W, 3] BGR, the frame.
            faces: as the tracker reports them.
        """
        self._frame += 1
        if self._places and faces:
            self._learn_places(image, faces)
        assigned: dict[int, str] = {}
        for face in faces:
            known = self._known.get(face.track_id)
            if known is None or self._frame - known.looked >= _LOOK_AGAIN_FRAMES:
                known = _Known(self._best(self._embedder.embed(image, face)), self._frame)
                self._known[face.track_id] = known
            if known.persona is not None:
                assigned[face.track_id] = known.persona
        while len(self._known) > _FORGET_TRACKS:
            del self._known[min(self._known, key=lambda track: self._known[track].looked)]
        return assigned

    def _best(self, vector: Embedding) -> str | None:
        cosines = [float(vector @ reference) for reference, _ in self._references]
        if not cosines or max(cosines) < _LEAST_COSINE:
            return None
        return self._references[int(np.argmax(cosines))][1]

    def _learn_places(self, image: Image, faces: Sequence[Face]) -> None:
        """Take whoever stands at a place as the person meant; from then on the face counts, not the place."""
        ordered = sorted(faces, key=lambda face: float(face.box[0] + face.box[2]))
        if len(ordered) < len(self._places):
            return  # wait until all who were meant are in sight
        at = {"left": 0, "right": len(ordered) - 1, "middle": len(ordered) // 2}
        for place, persona in self._places.items():
            self._references.append((self._embedder.embed(image, ordered[at[place]]), persona))
        self._places = {}
        self._known.clear()


def read_rule(text: str) -> tuple[str, str]:
    """Split REFERENCE.jpg=PERSONA or left=PERSONA into who is meant and who plays; the persona may be "keep".

    Raises:
        PeopleError: it is neither.
    """
    who, _, persona = text.rpartition("=")
    if not who or not persona:
        raise PeopleError(f"A rule must be like REFERENCE.jpg=PERSONA or left=PERSONA, but got '{text}'. Change it.")
    return who, AS_IT_IS if persona.casefold() in _KEEP_WORDS else persona


def rule_for(who: str, persona: str) -> Rule:
    """Make a rule.

    Args:
        who: a place, or the path of a picture that shows one person.
        persona: the persona's name, or `AS_IT_IS`.

    Raises:
        PeopleError: the picture shows no face.
        MediaError: the picture cannot be read.
    """
    if who.casefold() in PLACES:
        return Rule(persona, place=who.casefold())
    image = read_photo(Path(who))
    faces = FaceDetector().detect(image)
    if not faces:
        raise PeopleError(f"'{Path(who).name}' must show the person who is meant, but no face was found in it.")
    return Rule(persona, reference=SFaceEmbedder().embed(image, faces[0]))
