"""Which faces of a frame are replaced, by whom, and how they are put back: what the user sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from understudy.swap.blend import BlendSettings
from understudy.swap.one_shot import PaintOptions
from understudy.vision.face import Face

LEAST_STRENGTH = 0.8
"""Below it a face recogniser still sees whom the camera filmed: the picture is a mix, and is called that.

SFace's cosine to the filmed face, median of 18 frames of six clips: 0.37 at full strength, 0.47 at 0.8, 0.52 at 0.7,
0.66 at 0.5, 0.92 at 0.2; above 0.6 a face counts as shown (`RAW_SIMILARITY`)."""

_MUCH_LARGER = 1.5
_FEATHER_SPAN = 0.16
_SIZE_SPAN = 0.2


class View(StrEnum):
    """What is drawn: the swap; or, to look into the works, the swap with its mask or its mesh on top."""

    RESULT = "result"
    MASK = "mask"
    MESH = "mesh"


@dataclass(frozen=True, slots=True)
class SwapSettings:
    """What a user sets. Takes effect from the next frame.

    Attributes:
        persona: who plays; empty: the model's first.
        strength: 0 shows the camera's face, 1 the persona; between, a mix.
        colour_match: how far the persona takes the camera's colours, 0 to 1; True is 1, False is 0.
        mask_feather: softness of the mask's edge, 0 (hard) to 1.
        mask_size: 1 is the network's own mask, 0.5 much smaller, 1.5 much larger.
        faces: "all"; "largest", which stays with one face until another is half as large again; or a track's
            id. Faces not chosen are shown as the camera sees them.
        persona_by_track: personas by track id, for several faces; faces not named get `persona`, and those named
            with "" are shown as the camera sees them.
        use_hull: whether the mask ends at the mesh's face oval.
        shape: how far the face takes the persona's shape, 0 to 1.
        own_eyes: whether the actor's own eyes show; else the persona's, looking where the actor looks.
        own_mouth: whether the actor's own lips show; the inner mouth is the actor's always.
        keep_occluders: whether hands, hair and spectacles before the actor's face stay before the persona's.
        view: what is drawn.
    """

    persona: str = ""
    strength: float = 1.0
    colour_match: float = True
    mask_feather: float = 0.25
    mask_size: float = 1.0
    faces: str | int = "all"
    persona_by_track: Mapping[int, str] = field(default_factory=dict[int, str])
    use_hull: bool = True
    shape: float = 1.0
    own_eyes: bool = False
    own_mouth: bool = False
    keep_occluders: bool = True
    view: View = View.RESULT

    def __post_init__(self) -> None:
        if not 0 <= self.mask_feather <= 1 or not 0.5 <= self.mask_size <= 1.5:
            raise ValueError(
                "mask_feather must be from 0 to 1 and mask_size from 0.5 to 1.5, "
                f"but got {self.mask_feather!r} and {self.mask_size!r}. Move them into those ranges."
            )
        if not 0 <= self.shape <= 1:
            raise ValueError(f"shape must be from 0 to 1, but got {self.shape!r}. Move it into that range.")
        if isinstance(self.faces, str) and self.faces not in ("all", "largest"):
            raise ValueError(f"faces must be 'all', 'largest' or a track's id, but got {self.faces!r}. Pick one.")
        View(self.view)
        self.blend()

    def blend(self) -> BlendSettings:
        """The same in the blender's terms."""
        return BlendSettings(
            strength=self.strength,
            colour_match=float(self.colour_match),
            mask_feather=self.mask_feather * _FEATHER_SPAN,
            mask_size=(self.mask_size - 1) * _SIZE_SPAN,
            use_hull=self.use_hull,
        )

    def painting(self) -> PaintOptions:
        """The same in the one-shot painter's terms."""
        return PaintOptions(self.own_eyes, self.own_mouth, self.keep_occluders)

    def persona_of(self, face: Face) -> str:
        """Who plays a face."""
        return self.persona_by_track.get(face.track_id, self.persona)


class FaceSelector:
    """Chooses the faces to replace; remembers whom it chose. Not thread-safe: one per session."""

    def __init__(self) -> None:
        self._chosen_id: int | None = None

    def choose(self, faces: Sequence[Face], settings: SwapSettings) -> list[Face]:
        """Return the faces that must be replaced, those without a mesh included, but for those left as they are."""
        return [face for face in self._chosen(faces, settings.faces) if settings.persona_of(face)]

    def _chosen(self, faces: Sequence[Face], which: str | int) -> list[Face]:
        if which == "all":
            return list(faces)
        if which != "largest":
            return [face for face in faces if face.track_id == which]
        if not faces:
            return []
        largest = max(faces, key=_side)
        kept = next((face for face in faces if face.track_id == self._chosen_id and face.track_id >= 0), None)
        # A face that was lost for a moment stays chosen: otherwise a bystander would be swapped in its place,
        # and the viewer's own face be shown.
        chosen = largest if kept is None or _side(largest) > _MUCH_LARGER * _side(kept) else kept
        self._chosen_id = chosen.track_id
        return [chosen]


def _side(face: Face) -> float:
    return float(np.max(face.box[2:] - face.box[:2]))
