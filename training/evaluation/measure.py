"""Measure a swap frame by frame: the driver is watched once, then compared with each swap of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluation import metrics
from training.evaluation.background import BackgroundMeter
from training.evaluation.clip_report import ClipReport, mean, median
from training.evaluation.metrics import IBUG68, MESH
from training.evaluation.motion import MotionError, motion_error
from training.evaluation.observer import Image, Observation, Observer
from training.evaluation.self_swap import likeness
from understudy.vision.align import crop_matrix, transform
from understudy.vision.embedding import Embedding
from understudy.vision.face import Points

# A face counts as swapped when this share of its middle was repainted: a hand may hide the rest.
_SWAPPED_SHARE = 0.4
_CROP = 160
_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """What the judges see in one frame of the driver's clip.

    Attributes:
        region: float32 [468, 3], px: where they looked for the main face, or None where there is none.
        observation: what they saw there.
        boxes: float32 [N, 4], xyxy, px: every face, by the independent detector.
        embeddings: of the main face, by embedder; empty on frames that are not looked at closely.
    """

    region: Points | None
    observation: Observation | None
    boxes: NDArray[np.float32]
    embeddings: Mapping[str, Embedding]


@dataclass(frozen=True, slots=True)
class Driver:
    """A clip whose main face drives the swap, watched.

    Attributes:
        clip: the file.
        frames: in order.
        identity: the main face's mean embedding over the clip, by embedder; empty where there is no face.
    """

    clip: Path
    frames: tuple[SourceFrame, ...]
    identity: Mapping[str, Embedding]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Who a swapped face is compared with: every persona, every driver, and strangers.

    Attributes:
        names: one a row.
        embeddings: by embedder, in the order of the names; None where there is no face to embed.
    """

    names: tuple[str, ...]
    embeddings: Mapping[str, tuple[Embedding | None, ...]]


def watch(clip: Path, observer: Observer, images: Iterable[Image], every: int) -> Driver:
    """Watch a driver's clip: follow its main face, and look closely at every n-th frame.

    Args:
        clip: what to call it.
        observer: who looks.
        images: its frames, uint8 [H, W, 3], BGR.
        every: on which frames identity, gaze, the second opinion and the seam are measured.
    """
    frames: list[SourceFrame] = []
    previous: Points | None = None
    for index, image in enumerate(images):
        is_close = index % every == 0
        region = previous
        observation = observer.observe(image, region, is_close) if region is not None else None
        if observation is None:
            face = observer.find(image)
            region = face.mesh if face else None
            observation = observer.observe(image, region, is_close) if region is not None else None
        has_embedding = is_close and observation is not None and region is not None
        embeddings = observer.embed(image, region) if has_embedding and region is not None else {}
        frames.append(SourceFrame(region if observation else None, observation, observer.boxes(image), embeddings))
        previous = observation.mesh if observation else None
    return Driver(clip, tuple(frames), _mean_identity(frames))


def _mean_identity(frames: list[SourceFrame]) -> dict[str, Embedding]:
    known = [frame.embeddings for frame in frames if frame.embeddings]
    names = known[0] if known else ()
    means = {name: np.mean([embeddings[name] for embeddings in known], axis=0) for name in names}
    return {name: _scaled_like(mean_, known[0][name]) for name, mean_ in means.items()}


def _scaled_like(vector: Embedding, example: Embedding) -> Embedding:
    """Give an average the length that one embedding has: SFace's cosine expects unit vectors."""
    return (vector * (np.linalg.norm(example) / max(float(np.linalg.norm(vector)), 1e-12))).astype(np.float32)


@dataclass(slots=True)
class _Tally:
    """Lists that fill frame by frame, NaN where a frame has no value."""

    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    rigid: list[tuple[Points, Points]] = field(default_factory=list[tuple[Points, Points]])
    meshes: dict[int, tuple[Points, Points]] = field(default_factory=dict[int, tuple[Points, Points]])
    faces: int = 0
    swapped: int = 0


class SwapMeter:
    """Compares a swapped clip with its driver, frame by frame, and reports at the end.

    Args:
        driver: the watched clip.
        observer: who looks, the same that watched.
        gallery: whom the swapped face is compared with.
        persona: the persona's name, one of the gallery's.
        reference: which frame of the clip is the persona's own picture, so that the right answer is the clip (a
            self-swap); None for any other persona.
    """

    def __init__(
        self, driver: Driver, observer: Observer, gallery: Gallery, persona: str, reference: int | None = None
    ) -> None:
        self._driver = driver
        self._observer = observer
        self._gallery = gallery
        self._wanted = gallery.names.index(persona)
        self._reference = reference
        self._tally = _Tally()
        self._background = BackgroundMeter()
        self._crops: tuple[Image, Image] | None = None
        self._before: tuple[Image, Image] | None = None
        self._index = 0

    def add(self, source: Image, swapped: Image, elapsed_ms: float) -> None:
        """Take the next frame of the clip and its swap.

        Args:
            source: uint8 [H, W, 3], BGR.
            swapped: uint8 [H, W, 3], BGR.
            elapsed_ms: how long the swap took.
        """
        seen = self._driver.frames[self._index]
        self._index += 1
        values = {"ms": elapsed_ms}
        self._count(source, swapped, seen)
        points = np.full((2, len(MESH.rigid), 2), np.nan, np.float32)
        crops = None
        if (
            seen.region is not None
            and seen.observation is not None
            and _is_swapped(source, swapped, seen.observation.mesh)
        ):
            observation = self._observer.observe(swapped, seen.region, bool(seen.embeddings))
            values |= {"judged": float(observation is not None)}
            if observation is not None:
                self._tally.meshes[self._index - 1] = (seen.observation.mesh, observation.mesh)
                points = np.stack([each.mesh[list(MESH.rigid), :2] for each in (seen.observation, observation)])
                values |= _likeness(seen.observation, observation)
            if seen.embeddings:
                values |= self._identity(swapped, seen) | _surroundings(source, swapped, seen)
            crops = _aligned(source, swapped, seen.observation.mesh)
            values |= self._flicker(crops, seen.observation.mesh)
        if seen.embeddings and seen.observation is not None:
            values |= self._unmoved(source, swapped, seen.observation.mesh)
        self._crops, self._before = crops, (source, swapped)
        self._tally.rigid.append((points[0], points[1]))
        self._note(values)

    def _count(self, source: Image, swapped: Image, seen: SourceFrame) -> None:
        self._tally.faces += len(seen.boxes)
        for box in seen.boxes:
            middle = metrics.box_middle(box, source.shape[:2])
            self._tally.swapped += metrics.changed_share(source, swapped, middle) >= _SWAPPED_SHARE

    def _flicker(self, crops: tuple[Image, Image], mesh: Points) -> dict[str, float]:
        if self._crops is None:
            return {}
        mask = metrics.face_hull(transform(mesh, crop_matrix(mesh, _CROP)), (_CROP, _CROP), 0.85)
        before, swapped_before = self._crops
        return {
            "change_source": metrics.frame_change(before, crops[0], mask),
            "change_swapped": metrics.frame_change(swapped_before, crops[1], mask),
        }

    def _unmoved(self, source: Image, swapped: Image, mesh: Points) -> dict[str, float]:
        """Measure what should be as in the source: the surroundings' movement, and of a self-swap the face."""
        values: dict[str, float] = {}
        if self._before is not None:
            added = self._background.measure(self._before, (source, swapped), mesh)
            values |= {"background_jitter": added.outside_pct, "background_jitter_ring": added.ring_pct}
        if self._reference is not None and self._index - 1 > self._reference:
            values["self_ssim"], values["self_delta_e"] = likeness(source, swapped, mesh)
        return values

    def _identity(self, swapped: Image, seen: SourceFrame) -> dict[str, float]:
        if seen.region is None:
            return {}
        found = self._observer.embed(swapped, seen.region)
        values: dict[str, float] = {}
        for embedder in self._observer.embedders:
            mine = found[embedder.name]
            suffix = "" if embedder.name == "sface" else f"_{embedder.name}"
            rows = self._gallery.embeddings[embedder.name]
            similar = [-np.inf if row is None else embedder.similarity(mine, row) for row in rows]
            to_driver = embedder.similarity(mine, seen.embeddings[embedder.name])
            values[f"identity_to_driver{suffix}"] = to_driver
            values[f"recognised_as_driver{suffix}"] = float(to_driver >= 1 - embedder.same_person)
            if rows[self._wanted] is not None:
                values[f"identity_to_persona{suffix}"] = similar[self._wanted]
                is_persona = similar[self._wanted] >= 1 - embedder.same_person
                values[f"recognised_as_persona{suffix}"] = float(is_persona)
                values[f"retrieval_rank1{suffix}"] = float(metrics.rank_of(similar, self._wanted) == 1)
                values[f"nearer_persona{suffix}"] = float(similar[self._wanted] > to_driver)
        return values

    def _note(self, values: Mapping[str, float]) -> None:
        for name in {*self._tally.values, *values}:
            row = self._tally.values.setdefault(name, [_NAN] * (self._index - 1))
            row.append(values.get(name, _NAN))

    def _note_motion(self) -> MotionError | None:
        """Fill in what needs the whole clip: movements, each against its face's own neutral."""
        meshes = self._tally.meshes
        if not meshes:
            return None
        source, swapped = (np.stack([pair[i] for pair in meshes.values()]) for i in (0, 1))
        error = motion_error(source, swapped)
        for name in ("pose_deg", "mouth_pct", "eyes_pct"):
            row = self._tally.values[name.replace("_", "_motion_")] = [_NAN] * self._index
            for index, value in zip(meshes, getattr(error, name).tolist(), strict=True):
                row[index] = value
        return error

    def report(self, bundle: str = "") -> ClipReport:
        """Add the frames up.

        Args:
            bundle: the bundle's digest.
        """
        tally = self._tally
        rows: dict[str, list[float]] = tally.values
        pairs = np.array(tally.rigid, np.float64).reshape(-1, 2, len(MESH.rigid), 2)
        motion = self._note_motion()
        means = ("identity_to_persona", "identity_to_driver", "retrieval_rank1")
        plain = ("recognised_as_persona", "recognised_as_driver", "self_ssim", "self_delta_e")
        figures: dict[str, Any] = {
            **{name + suffix: mean(rows.get(name + suffix, ())) for name in means for suffix in ("", "_dlib")},
            **{name: mean(rows.get(name, ())) for name in (*plain, "background_jitter", "background_jitter_ring")},
            **{name: median(rows.get(name, ())) for name in _MEDIANS},
            **{name: median(np.abs(rows.get(name, ())).tolist()) for name in ("mouth_open_pct", "eyes_open_pct")},
        }
        return ClipReport(
            clip=self._driver.clip.name,
            persona=self._gallery.names[self._wanted],
            frames=self._index,
            faces=tally.faces,
            coverage=tally.swapped / tally.faces if tally.faces else _NAN,
            jitter_ratio=metrics.jitter_ratio(pairs[:, 0], pairs[:, 1]),
            flicker_ratio=_ratio(mean(rows.get("change_swapped", ())), mean(rows.get("change_source", ()))),
            ms_p50=float(np.percentile(rows["ms"], 50)) if rows else _NAN,
            ms_p95=float(np.percentile(rows["ms"], 95)) if rows else _NAN,
            judged=mean(rows.get("judged", ())),
            nearer_persona_dlib=mean(rows.get("nearer_persona_dlib", ())),
            mouth_followed=motion.mouth_followed if motion else _NAN,
            eyes_followed=motion.eyes_followed if motion else _NAN,
            self_relit_delta_e=_NAN,
            gallery=sum(row is not None for row in self._gallery.embeddings["sface"]),
            bundle=bundle,
            series=rows,
            **figures,
        )


_MEDIANS = (
    *("pose_deg", "expression_pct", "eyes_pct", "mouth_pct", "gaze_pct", "seam_delta_e", "seam_source_delta_e"),
    *("outside_psnr_db", "pose_deg_ibug68", "mouth_pct_ibug68", "eyes_pct_ibug68"),
    *("pose_motion_deg", "mouth_motion_pct", "eyes_motion_pct"),
)


def _is_swapped(source: Image, swapped: Image, mesh: Points) -> bool:
    middle = metrics.face_hull(mesh, (source.shape[0], source.shape[1]), 0.6)
    return metrics.changed_share(source, swapped, middle) >= _SWAPPED_SHARE


def _likeness(source: Observation, swapped: Observation) -> dict[str, float]:
    """Compare pose, expression and gaze."""
    error = metrics.expression_error(source.mesh, swapped.mesh)
    values = {
        "pose_deg": metrics.pose_error_deg(source.mesh, swapped.mesh),
        "expression_pct": error.expression_pct,
        "mouth_pct": error.mouth_pct,
        "eyes_pct": error.eyes_pct,
        "mouth_open_pct": error.mouth_open_pct,
        "eyes_open_pct": error.eyes_open_pct,
    }
    if source.gaze and swapped.gaze:
        values["gaze_pct"] = metrics.gaze_error_pct(source.gaze, swapped.gaze)
    if source.ibug68 is not None and swapped.ibug68 is not None:
        second = metrics.expression_error(source.ibug68, swapped.ibug68, IBUG68)
        values |= {"mouth_pct_ibug68": second.mouth_pct, "eyes_pct_ibug68": second.eyes_pct}
    if source.turn is not None and swapped.turn is not None:
        values["pose_deg_ibug68"] = metrics.rotation_angle_deg(swapped.turn @ source.turn.T)
    return values


def _surroundings(source: Image, swapped: Image, seen: SourceFrame) -> dict[str, float]:
    """Measure the main face's seam, and what lies outside all faces."""
    if seen.observation is None:
        return {}
    mesh = seen.observation.mesh
    face = metrics.face_hull(mesh, (source.shape[0], source.shape[1]), 1.4)
    region = metrics.changed_region(source, swapped, face)
    width = max(2.0, 0.08 * metrics.eye_distance(mesh))
    return {
        "seam_delta_e": metrics.seam_delta_e(swapped, region, width),
        "seam_source_delta_e": metrics.seam_delta_e(source, region, width),
        "outside_psnr_db": metrics.outside_psnr_db(source, swapped, _with_others(face, seen.boxes)),
    }


def _with_others(face: metrics.Mask, boxes: NDArray[np.float32]) -> metrics.Mask:
    """Add the other faces of the frame: boxes whose middle lies elsewhere, grown by half."""
    faces = face.copy()
    for box in boxes:
        centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * 0.75
        x, y = np.clip(centre.astype(int), 0, np.array(face.shape[::-1]) - 1)
        if not face[y, x]:
            left, top = np.maximum(centre - half, 0).astype(int)
            right, bottom = np.maximum(centre + half, 0).astype(int)
            faces[top:bottom, left:right] = True
    return faces


def _aligned(source: Image, swapped: Image, mesh: Points) -> tuple[Image, Image]:
    """Cut both frames by the source's alignment, so that only what was painted differs."""
    matrix = crop_matrix(mesh, _CROP)
    first, second = (cv2.warpAffine(image, matrix, (_CROP, _CROP)) for image in (source, swapped))
    return first, second  # type: ignore[return-value]  # uint8 in, uint8 out


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else _NAN
