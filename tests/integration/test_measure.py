"""A swap of known kind gets the figures that it must get: judged by the real models on a moving face."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from liveframe.frame import Image
from tests.faults.persona import drawn_still
from tests.support.real_faces import astronaut, laid, moved
from training.evaluation.clip_report import ClipReport
from training.evaluation.measure import Driver, Gallery, SwapMeter, watch
from training.evaluation.metrics import PSNR_CAP_DB, face_hull
from training.evaluation.observer import Observer
from understudy.vision.face import Points

Paint = Callable[[Image, Points, int], Image]


@dataclass(frozen=True)
class _Stage:
    observer: Observer
    frames: list[Image]
    driver: Driver

    def measure(self, paint: Paint, reference: int | None = None) -> ClipReport:
        """Swap every frame by a function of the frame, the face's mesh and the frame's index."""
        gallery = Gallery(
            ("ada", "driver"),
            {name: (np.roll(vector, 7), vector) for name, vector in self.driver.identity.items()},
        )
        meter = SwapMeter(self.driver, self.observer, gallery, "ada", reference)
        for index, (frame, seen) in enumerate(zip(self.frames, self.driver.frames, strict=True)):
            assert seen.observation is not None
            meter.add(frame, paint(frame, seen.observation.mesh, index), 10.0 + index)
        return meter.report("digest")


@pytest.fixture(scope="module")
def stage() -> _Stage:
    phase = np.linspace(0, 2 * np.pi, 12)
    frames = [moved(astronaut(), 8 * np.sin(p), 1.5 + 0.1 * np.cos(p), 20 * np.sin(p)) for p in phase]
    observer = Observer()
    return _Stage(observer, frames, watch(Path("astronaut.mp4"), observer, frames, every=4))


def _inside(frame: Image, mesh: Points, change: Callable[[Image], Image]) -> Image:
    """Change the face's oval only."""
    painted = frame.copy()
    hull = face_hull(mesh, (frame.shape[0], frame.shape[1]))
    painted[hull] = change(frame)[hull]
    return painted


def _brighter(frame: Image, mesh: Points, index: int) -> Image:
    return _inside(frame, mesh, lambda image: cv2.add(image, (12, 12, 12, 0)).astype(np.uint8))


def test_a_swap_that_does_nothing_covers_nothing_and_scores_nothing(stage: _Stage) -> None:
    report = stage.measure(lambda frame, mesh, index: frame.copy())
    assert report.coverage == 0
    assert np.isnan(report.pose_deg) and np.isnan(report.identity_to_persona) and np.isnan(report.seam_delta_e)
    assert report.figures()["pose_deg"] is None
    assert '"coverage": 0.0' in report.to_json()


def test_a_swap_that_only_brightens_keeps_pose_expression_and_calm(stage: _Stage) -> None:
    report = stage.measure(_brighter)
    assert report.frames == report.faces == 12
    assert report.coverage == report.judged == 1
    assert report.pose_deg < 0.5
    assert report.expression_pct < 0.6
    assert report.gaze_pct < 2
    assert report.pose_deg_ibug68 < 1.5
    assert report.mouth_pct_ibug68 < 1.5
    assert report.jitter_ratio == pytest.approx(1, abs=0.1)
    assert report.flicker_ratio == pytest.approx(1, abs=0.1)
    assert report.outside_psnr_db == PSNR_CAP_DB
    assert report.seam_delta_e > report.seam_source_delta_e + 1
    assert (report.ms_p50, report.ms_p95) == pytest.approx((15.5, 20.45))


def test_the_same_person_is_not_retrieved_as_the_persona(stage: _Stage) -> None:
    report = stage.measure(_brighter)
    assert report.identity_to_driver > 0.9 > report.identity_to_persona
    assert report.identity_to_driver_dlib > 0.8
    assert report.retrieval_rank1 == report.retrieval_rank1_dlib == report.nearer_persona_dlib == 0


def test_another_face_is_far_from_the_driver(stage: _Stage) -> None:
    """A face is another one to an embedder when its features move: eyes nearer, nose and mouth lower."""

    def squeezed(frame: Image, mesh: Points, index: int) -> Image:
        x, y = (float(v) for v in mesh[1, :2])
        squeeze = np.float32([[1.35, 0, -0.35 * x], [0, 0.8, 0.2 * y]])
        return _inside(frame, mesh, lambda image: cv2.warpAffine(image, squeeze, image.shape[1::-1]).astype(np.uint8))

    same, other = stage.measure(_brighter), stage.measure(squeezed)
    assert other.identity_to_driver < same.identity_to_driver - 0.1
    assert other.identity_to_driver_dlib < same.identity_to_driver_dlib - 0.1
    assert other.expression_pct > 3 * same.expression_pct


def test_a_head_rolled_by_five_degrees_is_off_by_five_degrees(stage: _Stage) -> None:
    def rolled(frame: Image, mesh: Points, index: int) -> Image:
        centre = tuple(float(v) for v in mesh[6, :2])
        turn = cv2.getRotationMatrix2D(centre, 5, 1)
        return cv2.warpAffine(frame, turn, frame.shape[1::-1], borderMode=cv2.BORDER_REFLECT).astype(np.uint8)

    report = stage.measure(rolled)
    assert report.pose_deg == pytest.approx(5, abs=1)
    assert report.pose_deg_ibug68 == pytest.approx(5, abs=1.5)
    assert report.outside_psnr_db < 30


def test_a_shaking_swap_jitters_and_a_blinking_one_flickers(stage: _Stage) -> None:
    def shaking(frame: Image, mesh: Points, index: int) -> Image:
        shift = np.float32([[1, 0, 4 * (-1) ** index], [0, 1, 0]])
        return _inside(frame, mesh, lambda image: cv2.warpAffine(image, shift, image.shape[1::-1]).astype(np.uint8))

    def blinking(frame: Image, mesh: Points, index: int) -> Image:
        light = 8 + 30 * (index % 2)
        return _inside(frame, mesh, lambda image: cv2.add(image, (light, light, light, 0)).astype(np.uint8))

    assert stage.measure(shaking).jitter_ratio > 2
    assert stage.measure(blinking).flicker_ratio > 2


def test_a_face_painted_over_is_swapped_but_no_face_any_more(stage: _Stage) -> None:
    report = stage.measure(lambda frame, mesh, index: _inside(frame, mesh, lambda image: np.full_like(image, 128)))
    assert report.coverage == 1
    assert report.judged < 0.5


def test_a_self_swap_that_gives_the_clip_back_is_right_in_every_pixel(stage: _Stage) -> None:
    report = stage.measure(lambda frame, mesh, index: frame.copy(), reference=0)
    assert (report.self_ssim, report.self_delta_e) == (1, 0)
    assert (report.background_jitter, report.background_jitter_ring) == (0, 0)
    assert np.isnan(stage.measure(_brighter).self_ssim), "only a self-swap has a right answer"


def test_a_self_swap_that_only_brightens_keeps_structure_and_shifts_colour(stage: _Stage) -> None:
    report = stage.measure(_brighter, reference=0)
    assert 0.9 < report.self_ssim < 1
    assert 3 < report.self_delta_e < 12
    looks = [index for index, seen in enumerate(stage.driver.frames) if seen.embeddings]
    measured = np.flatnonzero(np.isfinite(report.series["self_ssim"])).tolist()
    assert measured == looks[1:], "the persona's own frame is not asked"


def test_the_driver_is_recognised_under_a_little_light_and_the_persona_is_not(stage: _Stage) -> None:
    report = stage.measure(_brighter)
    assert (report.recognised_as_driver, report.recognised_as_persona) == (1, 0)


def test_the_driver_is_not_recognised_behind_another_face(stage: _Stage) -> None:
    still = drawn_still()

    def other(frame: Image, mesh: Points, index: int) -> Image:
        painted = laid(still, mesh, frame.shape[0])
        return np.where(painted[..., 3:] > 0, painted[..., :3], frame)

    report = stage.measure(other)
    assert report.recognised_as_driver == 0
    assert report.identity_to_driver < 0.363


def test_movement_is_judged_from_each_faces_own_neutral(stage: _Stage) -> None:
    """A face that lies 6 % lower in its head moves as before; one whose mouth quivers does not."""

    def shifted(px: float) -> Paint:
        def paint(frame: Image, mesh: Points, index: int) -> Image:
            down = px * (-1) ** index if px < 0 else px
            shift = np.float32([[1, 0, 0], [0, 1, down]])
            out = frame.copy()
            mouth = face_hull(mesh, (frame.shape[0], frame.shape[1]))
            mouth &= np.arange(frame.shape[0])[:, None] > (mesh[2, 1] + mesh[0, 1]) / 2
            moved_frame = cv2.warpAffine(frame, shift, frame.shape[1::-1])
            out[mouth] = moved_frame[mouth]
            return cv2.add(out, (4, 4, 4, 0)).astype(np.uint8)

        return paint

    lower, quivering = stage.measure(shifted(4.0)), stage.measure(shifted(-4.0))
    assert lower.mouth_pct > 2 * lower.mouth_motion_pct
    assert quivering.mouth_motion_pct > 2 * lower.mouth_motion_pct


def test_what_bends_beside_the_head_is_measured(stage: _Stage) -> None:
    def trembling(frame: Image, mesh: Points, index: int) -> Image:
        shift = np.float32([[1, 0, 2.0 * (-1) ** index], [0, 1, 0]])
        head = face_hull(mesh, (frame.shape[0], frame.shape[1]), 1.9)
        out = _brighter(frame, mesh, index)
        out[head] = cv2.warpAffine(out, shift, frame.shape[1::-1])[head]
        return out

    report = stage.measure(trembling)
    assert report.background_jitter_ring > 1
    assert report.background_jitter_ring > 4 * report.background_jitter
