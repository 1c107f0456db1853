"""What a stream learns about its drivers: their bones, frame by frame surer, and where they look."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.swap.nearest import ReferenceChoice
from understudy.swap.shape import FaceShapeModel, Identity, RunningIdentity, shape_model
from understudy.vision.face import Face, Points
from understudy.vision.iris import EyePair, IrisModel, eye_pair, eye_patches

# An eye is open from this share of its widest opening lately on, within these limits; that is forgotten slowly.
_OPEN_SHARE, _OPEN_AT, _FORGET = 0.72, (0.14, 0.27), 0.9995
# Eyes whose picture changed by less, levels, rest: the camera's noise and the mesh's make as much.
_CHANGED = 2.0


class Driver(NamedTuple):
    """A face of a frame with what is known of its owner.

    Attributes:
        face: with its mesh, frame px.
        identity: float32 [I], the mean over the stream (`FaceShapeModel.identify`).
        confidence: 0 to 1, how far that mean may be believed.
        eyes: irises and lids, frame px.
    """

    face: Face
    identity: Identity
    confidence: float
    eyes: EyePair


class _Eyes:
    """Both eyes of one driver, looked at only where they changed, one of them a frame. Not thread-safe.

    Eyes rest for most of the time, and move together: what one of them did, the other is taken to have done until it is
    its turn.
    """

    def __init__(self, model: IrisModel) -> None:
        self._model = model
        self._usual = (0.0, 0.0)
        self._points: list[Points] = []
        self._seen: list[NDArray[np.uint8]] = []

    def look(self, image: NDArray[np.uint8], mesh: Points) -> EyePair:
        """Return both eyes of a frame, as `IrisModel.both`."""
        patches = eye_patches(image, mesh)
        if not self._points:
            self._points = [self._model.fit(patch) for patch in patches]
            self._seen = [_coarse(patch.picture) for patch in patches]
            return self._judged(eye_pair(patches, self._points))
        pictures = [_coarse(patch.picture) for patch in patches]
        changes = [cv2.norm(new, seen, cv2.NORM_L1) / new.size for new, seen in zip(pictures, self._seen, strict=True)]
        which = int(changes[1] > changes[0])
        if changes[which] > _CHANGED:
            new = self._model.fit(patches[which])
            step = new - self._points[which]
            self._points[which], self._seen[which] = new, pictures[which]
            if changes[1 - which] > _CHANGED:
                # Patches are mirrored images of each other: what goes right in one goes left in the other.
                self._points[1 - which] += step * np.array([-1, 1], np.float32)
        return self._judged(eye_pair(patches, self._points))

    def _judged(self, eyes: EyePair) -> EyePair:
        """Add from where on these eyes are open: a share of how wide they were lately, the narrower one's own."""
        right, left = (max(now, _FORGET * usual) for now, usual in zip(eyes.openings, self._usual, strict=True))
        self._usual = (right, left)
        low, high = _OPEN_AT
        right, left = (min(max(_OPEN_SHARE * usual, low), high) for usual in self._usual)
        return eyes._replace(open_at=(right, left))


def _coarse(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a quarter of an eye's size: the camera's noise averages out, a lid or an iris that moves does not."""
    return np.asarray(cv2.resize(picture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA), np.uint8)


class DriverBook:
    """Remembers the drivers of one stream by their tracks. Not thread-safe: one per session.

    Args:
        irises: shared by sessions.
        shapes: the face-shape model; the one that ships where not given.
    """

    def __init__(self, irises: IrisModel, shapes: FaceShapeModel | None = None) -> None:
        self._irises, self._shapes = irises, shapes or shape_model()
        self._known: dict[int, tuple[RunningIdentity, _Eyes]] = {}
        self._choices: dict[int, tuple[object, ReferenceChoice]] = {}

    def look_up(self, image: NDArray[np.uint8], face: Face) -> Driver:
        """Return a face as its track is known by now, this frame included.

        Args:
            image: uint8 [H, W, 3], BGR; left as it is.
            face: with its mesh.

        Raises:
            ValueError: the face has no mesh.
        """
        if face.mesh is None:
            raise ValueError("face must have a mesh to be looked up, but got a detection only. Track it first.")
        if face.track_id not in self._known:
            self._known[face.track_id] = (RunningIdentity(), _Eyes(self._irises))
        known, eyes = self._known[face.track_id]
        identity = known.update(self._shapes.identify(face.mesh))
        return Driver(face, identity, known.confidence, eyes.look(image, face.mesh))

    def choice(self, track: int, persona: object) -> ReferenceChoice:
        """Return what a track is painted from; anew where another persona plays it now.

        Args:
            track: of a face that was looked up.
            persona: who plays it: the renderer.
        """
        known = self._choices.get(track)
        if known is None or known[0] is not persona:
            known = self._choices[track] = (persona, ReferenceChoice())
        return known[1]

    def keep(self, tracks: Collection[int]) -> None:
        """Forget all drivers but those of these tracks."""
        for gone in [track for track in self._known if track not in tracks]:
            del self._known[gone]
            self._choices.pop(gone, None)
