"""What an evaluation says about one persona on one clip: the figures, and how frames add up to them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

import numpy as np


@dataclass(frozen=True, slots=True)
class ClipReport:
    """One persona on one clip. NaN (null in JSON) where nothing could be measured.

    Medians over the swapped frames, unless said otherwise; % are of the source's outer-eye distance.

    Attributes:
        clip: the clip's file name.
        persona: the persona's name.
        frames: frames swapped.
        faces: faces that BlazeFace sees in those frames.
        coverage: share of these faces that were repainted.
        identity_to_persona: cosine of SFace embeddings, swapped frame to the persona's still; mean.
        identity_to_driver: the same to the source frame; mean.
        retrieval_rank1: share of frames whose nearest in the gallery is the persona (SFace).
        pose_deg: Kabsch rotation between 14 rigid mesh points.
        expression_pct: mesh points of mouth and eyes after a similarity fit.
        eyes_pct: of the eyes alone.
        mouth_pct: of the mouth alone.
        jitter_ratio: second differences of the rigid points over the source's, root mean square.
        flicker_ratio: change from frame to frame inside the aligned face over the source's, mean.
        seam_delta_e: CIEDE2000 across the edge of what was repainted.
        outside_psnr_db: outside all faces (the mesh's oval grown by 40 %).
        ms_p50: one frame through the swapper, wall clock.
        ms_p95: the same, 95th percentile.
        mouth_open_pct: how far the lips' opening is off, absolute.
        eyes_open_pct: how far the lids' opening is off, absolute.
        gaze_pct: how far the irises of open eyes are off, in % of the eye's width.
        seam_source_delta_e: the source's own step at the same place, to read `seam_delta_e` by.
        judged: share of the swapped frames in which the mesh still sees a face.
        identity_to_persona_dlib: 1 - distance of dlib's embeddings; above 0.4 is one person; mean.
        identity_to_driver_dlib: the same to the source frame.
        retrieval_rank1_dlib: `retrieval_rank1` by dlib.
        nearer_persona_dlib: share of frames nearer to the persona than to the source frame, by dlib.
        pose_deg_ibug68: `pose_deg` by dlib's 68 points and a perspective fit.
        mouth_pct_ibug68: `mouth_pct` by dlib's 68 points.
        eyes_pct_ibug68: `eyes_pct` by dlib's 68 points.
        recognised_as_persona: share of the looked-at frames that SFace holds for the persona (cosine >= 0.363).
        recognised_as_driver: share of them that it holds for the driver in the source frame.
        pose_motion_deg: how far the head's turn from its mean over the clip is off, each head from its own mean: a
            changed face shape is no error.
        mouth_motion_pct: how far the mouth's way from the face's own neutral (its mean over the clip) is off.
        eyes_motion_pct: the same of the eyes.
        mouth_followed: share of the driver's mouth movement that the swap follows over the clip: 1 moves alike, 0 is as
            good as a frozen face (which has small errors in % on a calm clip).
        eyes_followed: the same of the eyes.
        background_jitter: movement from frame to frame that the swap adds outside the head (the oval grown twofold):
            root mean square over what has contrast; mean.
        background_jitter_ring: the same in the ring next to the face, where hair, neck and the wall by the jaw are.
        self_ssim: of a self-swap (the persona is the clip's own first clear frame): SSIM to the source; mean.
        self_delta_e: the same: CIE 1976 delta E, mean.
        self_relit_delta_e: the same with the reference lit otherwise.
        bundle: digest of the bundle.
        gallery: how many faces, the persona's included, the persona is retrieved from.
        has_spectacles: whether the driver was said to wear spectacles: kept, they make anybody easier to recognise.
        series: per-frame values for plots, NaN where not measured; not part of the JSON.
    """

    clip: str
    persona: str
    frames: int
    faces: int
    coverage: float
    identity_to_persona: float
    identity_to_driver: float
    retrieval_rank1: float
    pose_deg: float
    expression_pct: float
    eyes_pct: float
    mouth_pct: float
    jitter_ratio: float
    flicker_ratio: float
    seam_delta_e: float
    outside_psnr_db: float
    ms_p50: float
    ms_p95: float
    mouth_open_pct: float
    eyes_open_pct: float
    gaze_pct: float
    seam_source_delta_e: float
    judged: float
    identity_to_persona_dlib: float
    identity_to_driver_dlib: float
    retrieval_rank1_dlib: float
    nearer_persona_dlib: float
    pose_deg_ibug68: float
    mouth_pct_ibug68: float
    eyes_pct_ibug68: float
    recognised_as_persona: float
    recognised_as_driver: float
    pose_motion_deg: float
    mouth_motion_pct: float
    eyes_motion_pct: float
    mouth_followed: float
    eyes_followed: float
    background_jitter: float
    background_jitter_ring: float
    self_ssim: float
    self_delta_e: float
    self_relit_delta_e: float
    bundle: str = ""
    gallery: int = 0
    has_spectacles: bool = False
    series: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]], repr=False, compare=False)

    def figures(self) -> dict[str, str | int | float | None]:
        """Return everything but the series, in order, rounded; None where nothing could be measured."""
        values = asdict(self)
        del values["series"]
        return {key: _tidy(value) for key, value in values.items()}

    def to_json(self) -> str:
        """Return the figures as one line of strict JSON."""
        return json.dumps(self.figures(), allow_nan=False)


# Figures that say how good a swap is, and so what two bundles are compared by.
FIGURES = tuple(f.name for f in fields(ClipReport) if f.type in (float, "float"))


def _tidy(value: str | float) -> str | int | float | None:
    if not isinstance(value, float):
        return value
    return round(value, 4) if np.isfinite(value) else None


def median(values: Sequence[float]) -> float:
    """Return the median of what was measured; NaN where nothing was."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.median(known)) if known else float("nan")


def mean(values: Sequence[float]) -> float:
    """Return the mean of what was measured; NaN where nothing was."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
