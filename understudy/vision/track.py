"""Follow faces through a stream: detection only where needed, the mesh in between, ids that last."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import hypot

import numpy as np
from numpy.typing import NDArray

from understudy.vision.detect import FaceDetector, far_detector
from understudy.vision.face import Face, Points
from understudy.vision.mesh import FaceMesh, mesh_box
from understudy.vision.one_euro import MeshSmoother
from understudy.vision.roll import FACE_SCORE, UPRIGHT_SCORE, RollCheck, five_points
from understudy.vision.scene_change import Change, SceneWatch

Box = NDArray[np.float32]

_SAME_FACE = 0.4
_MISSES = 3
_REVIVE_RADIUS = 1.5
_STRAY_RADIUS = 0.8
# A face that came further than this share of its side, or was not looked at for longer, may be elsewhere than its fit.
_FAR = 0.25
_LONG_S = 0.1
_SETTLED = 0.08
_SMALL_SHARE = 0.08  # of the picture's larger side: the detector itself misses faces below 6 %
_LEAST_SIDE = 18.0  # px; nobody is told by less
_SMALL_SCORE = 0.3  # a face of 24 px in 1,920 may get no more; a look from near tells


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """How a tracker works.

    Attributes:
        detect_every: frames between two looks for new faces while all goes well; a look comes at once when a
            track is lost, when something moves in outside the known faces, and after a cut.
        detect_gap: frames at least between two looks that movement alone asks for; 1 leaves no frame in which a face
            that comes in could be missed, and costs a look in 10 to 50 % of a talker's frames.
        far_every: frames between two looks for faces that are small in the picture, from 24 px in one of 1,920; three
            times as often while one of them is lost. Such a look takes as long as four to twelve others.
        min_presence: the mesh model's confidence below which a face is lost, 0 to 1.
        min_score: the detector's confidence from which something counts as a face, 0 to 1.
        hold_s: how long a lost face still counts as found: it may be there, unseen.
        remember_s: how long a lost face's id is kept for its return.
        max_faces: how many faces are fitted; further ones are reported without a mesh.
        check_every: frames between two looks whether a track's mesh lies on its face, and the right way up.
    """

    detect_every: int = 15
    detect_gap: int = 1
    far_every: int = 15
    min_presence: float = 0.5
    min_score: float = 0.6
    hold_s: float = 0.7
    remember_s: float = 2.0
    max_faces: int = 24
    check_every: int = 8


class _Fit:
    """A mesh as fitted, the model's confidence in it, its box, and the mean of its points."""

    __slots__ = ("box", "centre", "mesh", "presence")

    def __init__(self, mesh: Points, presence: float) -> None:
        self.mesh, self.presence = mesh, presence
        self.box = mesh_box(mesh)
        self.centre: Points = mesh[:, :2].mean(0)


@dataclass(slots=True, eq=False)
class _Track:
    """One face over time; `fit` is the last one (it leads the next), `face` is smoothed."""

    id: int
    fit: _Fit
    face: Face
    seen_s: float
    smoother: MeshSmoother = field(default_factory=MeshSmoother)
    speed: NDArray[np.float32] = field(default_factory=lambda: np.zeros(2, np.float32))
    misses: int = 0
    unchecked: int = 0

    def box_at(self, now_s: float) -> Box:
        """Where the face should be by now, at its last speed (for half a second at most)."""
        shift = self.speed * np.float32(min(max(now_s - self.seen_s, 0.0), 0.5))
        return (self.fit.box + np.concatenate([shift, shift])).astype(np.float32)

    def advance(self, fit: _Fit, now_s: float) -> None:
        """Take the next fit."""
        elapsed_s = now_s - self.seen_s
        if 0 < elapsed_s < 0.5:
            moved = (fit.centre - self.fit.centre) / np.float32(elapsed_s) - self.speed
            self.speed = (self.speed + np.float32(min(1.0, elapsed_s / 0.15)) * moved).astype(np.float32)
        self.fit, self.seen_s = fit, now_s
        smooth = self.smoother.step(fit.mesh, now_s)
        self.face = Face(mesh_box(smooth), self.face.score, five_points(smooth), smooth, fit.presence, self.id)


class FaceTracker:
    """Tracks the faces of one stream. Not thread-safe; the detector and the mesh may be shared.

    Ids rise from 0 and are not used again. A face keeps its id while it moves, crosses another or is
    covered for up to `remember_s`.
    """

    def __init__(self, detector: FaceDetector, mesh: FaceMesh, settings: TrackSettings | None = None) -> None:
        self._detector = detector
        self._mesh = mesh
        self._roll = RollCheck()
        self._settings = settings or TrackSettings()
        self._ids = itertools.count()
        self._stages_ms: dict[str, float] = {}
        self._shape: tuple[int, ...] = ()
        self.reset()

    def reset(self) -> None:
        """Forget all faces; ids go on rising."""
        self._tracks: list[_Track] = []
        self._lost: list[_Track] = []
        self._unfitted: list[Face] = []
        self._is_unsure = False
        self._turn = 0
        self._is_first_look = True
        self._since_far = 0
        self._scene = SceneWatch()
        self._since_detection = self._settings.detect_every

    @property
    def stages_ms(self) -> Mapping[str, float]:
        """Milliseconds of the last update by stage: `detect`, `check` (0 when they did not run), `mesh`, `smooth`."""
        return self._stages_ms

    def update(self, image: NDArray[np.uint8], now_s: float) -> list[Face]:
        """Find the faces of the next frame.

        Args:
            image: uint8 [H, W, 3], BGR; left as it is.
            now_s: when it was taken, on any monotonic clock, in seconds.

        Returns:
            Faces, oldest first. Those with a mesh are tracked and smoothed. Those without were seen and cannot be
            fitted, or were lost less than `hold_s` ago: nothing can replace them, so whoever shows the frame
            has to hide them.
        """
        self._stages_ms = {"detect": 0.0, "mesh": 0.0, "check": 0.0, "smooth": 0.0}
        try:
            return self._updated(image, now_s)
        except Exception:
            # What this frame would have shown, a face that came in perhaps, is not known: look again with the next.
            self._since_detection = self._settings.detect_every
            raise

    def _updated(self, image: NDArray[np.uint8], now_s: float) -> list[Face]:
        if image.shape != self._shape:
            self.reset()
            self._shape = image.shape
        change = self._scene.update(image, [face.box for face in self._known()])
        if change is Change.CUT:
            self._tracks, self._lost, self._unfitted = [], [], []
        self._follow(image, now_s)
        self._since_detection += 1
        self._since_far += 1
        if self._wants_detection(change, now_s):
            self._detect(image, now_s, change)
        held = [track for track in self._lost if self._is_held(track, now_s)]
        self._lost = [track for track in self._lost if now_s - track.seen_s <= self._settings.remember_s]
        return [track.face for track in self._tracks] + [_ghost(track, now_s) for track in held] + self._unfitted

    def _known(self) -> list[Face]:
        return [track.face for track in self._tracks] + self._unfitted

    def _follow(self, image: NDArray[np.uint8], now_s: float) -> None:
        """Fit every track's mesh where it last was; those that fail, or jump onto another's face, are lost."""
        self._is_unsure = False
        fits: dict[int, _Fit] = {}
        surprise: dict[int, float] = {}
        for track in list(self._tracks):
            fit = self._refit(image, track, now_s)
            if not self._is_face(fit) or not _is_plausible(fit, track.fit, image.shape):
                self._lose(track)
                continue
            fits[track.id] = fit
            surprise[track.id] = _distance(fit.box, track.box_at(now_s))
        for pair in itertools.combinations(list(self._tracks), 2):
            boxes = [fits[track.id].box for track in pair]
            if all(track in self._tracks for track in pair) and _is_same(*boxes):
                self._lose(max(pair, key=lambda track: surprise[track.id]))
        self._check(image, fits)
        for track in self._tracks:
            self._advance(track, fits[track.id], now_s)

    def _check(self, image: NDArray[np.uint8], fits: Mapping[int, _Fit]) -> None:
        """Lose the track whose mesh the detector contradicts; the one unchecked for longest is asked about."""
        for track in self._tracks:
            track.unchecked += 1
        due = max(self._tracks, key=lambda track: track.unchecked, default=None)
        if due is None or due.unchecked < self._settings.check_every:
            return
        due.unchecked = 0
        if self._agrees(image, fits[due.id]) is False:
            self._lose(due)

    def _agrees(self, image: NDArray[np.uint8], fit: _Fit) -> bool | None:
        start_s = time.perf_counter()
        agrees = self._roll.agrees(image, fit.mesh)
        self._stages_ms["check"] += (time.perf_counter() - start_s) * 1e3
        return agrees

    def _advance(self, track: _Track, fit: _Fit, now_s: float) -> None:
        start_s = time.perf_counter()
        track.advance(fit, now_s)
        self._stages_ms["smooth"] += (time.perf_counter() - start_s) * 1e3

    def _fit(self, image: NDArray[np.uint8], where: Face | Points) -> _Fit:
        start_s = time.perf_counter()
        fit = _Fit(*self._mesh.fit(image, where))
        self._stages_ms["mesh"] += (time.perf_counter() - start_s) * 1e3
        return fit

    def _is_face(self, fit: _Fit) -> bool:
        """Whether the model believes its own fit."""
        return fit.presence >= self._settings.min_presence and bool(np.isfinite(fit.mesh).all())

    def _refit(self, image: NDArray[np.uint8], track: _Track, now_s: float) -> _Fit:
        """Fit a track's mesh in the next frame.

        A face at the edge of the region looked at only pulls the mesh nearer. So what came far is fitted again until
        it stays, and the detector is asked as well.
        """
        before = track.fit
        fit = self._fit(image, before.mesh)
        is_far = _distance(fit.box, before.box) > _FAR
        self._is_unsure |= is_far or now_s - track.seen_s > _LONG_S
        for _ in range(2 if is_far else 0):
            if not self._is_face(fit):
                break
            before, fit = fit, self._fit(image, fit.mesh)
            if _distance(fit.box, before.box) < _SETTLED:
                break
        return fit

    def _lose(self, track: _Track) -> None:
        self._tracks.remove(track)
        self._lost.append(track)

    def _is_held(self, track: _Track, now_s: float) -> bool:
        """Whether a lost face may still be in the picture: lately seen, and not on its way out."""
        return now_s - track.seen_s <= self._settings.hold_s and _visible_share(track.box_at(now_s), self._shape) > 0.3

    def _wants_detection(self, change: Change, now_s: float) -> bool:
        if not self._tracks or self._is_unsure or change is Change.CUT:
            return True
        if self._since_detection >= self._settings.detect_every:
            return True
        if self._is_far_due(change, now_s):
            return True
        is_uneasy = change is Change.ARRIVAL or not all(self._is_small(face.box) for face in self._unfitted)
        if is_uneasy and self._since_detection >= self._settings.detect_gap:
            return True
        return any(self._is_held(track, now_s) for track in self._lost)

    def _is_far_due(self, change: Change, now_s: float) -> bool:
        """Whether it is time to look for small faces."""
        if max(self._shape[:2]) <= max(self._detector.size):
            return False  # the detector sees all there is
        missing = [face.box for face in self._unfitted]
        missing += [track.fit.box for track in self._lost if self._is_held(track, now_s)]
        every = self._settings.far_every
        due = max(1, every // 3) if any(self._is_small(box) for box in missing) else every
        return self._is_first_look or change is Change.CUT or self._since_far >= due

    def _is_small(self, box: Box) -> bool:
        """Whether a face may be too small for the detector."""
        return _side(box) < _SMALL_SHARE * max(self._shape[:2])

    def _detect(self, image: NDArray[np.uint8], now_s: float, change: Change) -> None:
        """Look for faces: confirm tracks, bring lost ones back, start new ones, note those that cannot be fitted."""
        start_s = time.perf_counter()
        is_far = self._is_far_due(change, now_s)
        found = self._detector.detect(image, self._settings.min_score)
        if not found or change is not Change.NONE or self._since_detection >= self._settings.detect_every:
            # What comes in moves for some frames, and one turn in each is enough; not so at first and after a cut.
            self._turn = (self._turn + 1) % 3
            turns = (0, 1, 2) if change is Change.CUT or self._is_first_look else (self._turn,)
            self._is_first_look = False
            turned = self._roll.turned_faces(image, self._settings.min_score, turns)
            turned = [face for face in turned if not any(_is_same(face.box, other.box) for other in found)]
            known = [track.fit.box for track in self._tracks]
            found += [
                face
                for face in turned
                if any(_is_same(face.box, box) for box in known) or self._is_face_from_near(image, face)
            ]
        if is_far:
            found += [face for face in self._small_faces(image) if not any(_is_same(face.box, f.box) for f in found)]
            self._since_far = 0
        self._stages_ms["detect"] += (time.perf_counter() - start_s) * 1e3
        self._scene.mark()
        self._since_detection = 0
        self._unfitted = [] if is_far else [face for face in self._unfitted if self._is_small(face.box)]
        new = self._confirm(found, is_far)
        for face in new:
            self._start(image, face, now_s)

    def _small_faces(self, image: NDArray[np.uint8]) -> list[Face]:
        """Find the faces that the detector may miss."""
        found = far_detector(image.shape).detect(image, _SMALL_SCORE)
        small = [face for face in found if self._is_small(face.box) and _side(face.box) >= _LEAST_SIDE]
        return [face for face in small if self._is_face_from_near(image, face)]

    def _is_face_from_near(self, image: NDArray[np.uint8], face: Face) -> bool:
        """Whether what was found in a turned or a large picture is a face: folds and shadows look like one there."""
        upright = self._roll.upright(image, face)
        return upright is not None and upright.score >= FACE_SCORE

    def _confirm(self, found: Sequence[Face], is_far: bool) -> list[Face]:
        """Pair tracks with detections, nearest first; count a miss for the rest; give the faces left to explain.

        What is too small for a look that was not far is no miss.
        """
        pairs = sorted(
            (_distance(track.fit.box, face.box), t, f)
            for t, track in enumerate(self._tracks)
            for f, face in enumerate(found)
            if _is_same(track.fit.box, face.box)
        )
        seen: dict[int, int] = {}
        for _, t, f in pairs:
            if t not in seen and f not in seen.values():
                seen[t] = f
        confirmed = [self._tracks[t] for t in seen]
        for track in list(self._tracks):
            is_missed = track not in confirmed and (is_far or not self._is_small(track.fit.box))
            track.misses = 0 if track in confirmed else track.misses + is_missed
            # A mesh can settle on a hand or a poster: it believes itself, the detector does not.
            if track.misses >= _MISSES and track.face.presence < 0.9:
                self._lose(track)
        left = [face for f, face in enumerate(found) if f not in seen.values()]
        return [face for face in left if not any(_is_same(track.fit.box, face.box) for track in confirmed)]

    def _start(self, image: NDArray[np.uint8], face: Face, now_s: float) -> None:
        """Fit a detected face twice (the first fit finds the better region); continue a lost track, or start one."""
        if len(self._tracks) >= self._settings.max_faces:
            self._unfitted.append(face)
            return
        fit = self._first_fit(image, face)
        if fit is None:
            self._unfitted.append(replace(face, mesh=None))
            return
        if any(_is_same(fit.box, track.fit.box) for track in self._tracks):
            # One face stands behind another, and the mesh slipped onto the one in front.
            self._unfitted.append(replace(face, presence=fit.presence))
            return
        track = self._returning(fit.box, now_s) or _Track(next(self._ids), fit, face, now_s)
        track.misses = 0
        track.face = replace(face, track_id=track.id)
        self._advance(track, fit, now_s)
        self._tracks = sorted([*self._tracks, track], key=lambda t: t.id)

    def _first_fit(self, image: NDArray[np.uint8], face: Face) -> _Fit | None:
        """Fit a face whose roll is not known; None where the model or the detector does not believe the fit."""
        if face.score >= UPRIGHT_SCORE and (fit := self._believed(image, face)) is not None:
            return fit
        start_s = time.perf_counter()
        upright = self._roll.upright(image, face)
        self._stages_ms["detect"] += (time.perf_counter() - start_s) * 1e3
        return self._believed(image, upright) if upright is not None else None

    def _believed(self, image: NDArray[np.uint8], face: Face) -> _Fit | None:
        """Fit twice: the first fit finds the better region."""
        fit = self._fit(image, face)
        if fit.presence >= self._settings.min_presence:
            fit = self._fit(image, fit.mesh)
        return fit if self._is_face(fit) and self._agrees(image, fit) else None

    def _returning(self, box: Box, now_s: float) -> _Track | None:
        """Take the track that this face continues, if any: a lost one, or one that strayed from what was detected.

        A stray must be so near that the two cannot be faces side by side.
        """
        strays = [track for track in self._tracks if track.misses > 0]
        reaches = [(track, _REVIVE_RADIUS) for track in self._lost] + [(track, _STRAY_RADIUS) for track in strays]
        near = [(far, t) for t, radius in reaches if (far := _distance(t.box_at(now_s), box)) <= radius]
        if not near:
            return None
        track = min(near, key=lambda pair: pair[0])[1]
        (self._lost if track in self._lost else self._tracks).remove(track)
        track.smoother = MeshSmoother()
        return track


def _ghost(track: _Track, now_s: float) -> Face:
    """A lost face where it should be by now, without a mesh."""
    return replace(track.face, box=track.box_at(now_s), mesh=None, presence=0.0)


def _is_plausible(fit: _Fit, last: _Fit, shape: tuple[int, ...]) -> bool:
    """Whether a fit can be the face of the frame before: of like size, near, and in the picture."""
    box, before = fit.box, last.box
    growth = float(np.max(box[2:] - box[:2])) / max(float(np.max(before[2:] - before[:2])), 1.0)
    return 0.5 < growth < 2 and _distance(box, before) < 1 and _visible_share(box, shape) > 0.15


def _side(box: Box) -> float:
    return float((box[2:] - box[:2]).max())


def _is_same(box: Box, other: Box) -> bool:
    """Whether two boxes are one face: near centres and like sizes, or a large overlap."""
    return _distance(box, other) < _SAME_FACE or _overlap(box, other) > 0.5


def _distance(box: Box, other: Box) -> float:
    """Between the centres, plus the change of size, in units of the larger face's side."""
    (left, top, right, bottom), (other_left, other_top, other_right, other_bottom) = box.tolist(), other.tolist()
    side, other_side = max(right - left, bottom - top), max(other_right - other_left, other_bottom - other_top)
    across = (left + right - other_left - other_right) / 2
    down = (top + bottom - other_top - other_bottom) / 2
    return (hypot(across, down) + abs(side - other_side) / 2) / max(side, other_side, 1.0)


def _shared_area(box: Box, other: Box) -> float:
    (left, top, right, bottom), (other_left, other_top, other_right, other_bottom) = box.tolist(), other.tolist()
    width, height = min(right, other_right) - max(left, other_left), min(bottom, other_bottom) - max(top, other_top)
    return max(width, 0.0) * max(height, 0.0)


def _overlap(box: Box, other: Box) -> float:
    """Intersection over union."""
    inner = _shared_area(box, other)
    return inner / max(_shared_area(box, box) + _shared_area(other, other) - inner, 1e-6)


def _visible_share(box: Box, shape: tuple[int, ...]) -> float:
    """How much of a box lies in a picture [H, W, ...]."""
    return _shared_area(box, np.array([0, 0, shape[1], shape[0]], np.float32)) / max(_shared_area(box, box), 1e-6)
