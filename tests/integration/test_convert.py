"""Clips through `convert` with a small real model: times, rotation, sound, covers, resumption, death."""

import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from liveframe.errors import ModelError
from liveframe.frame import Frame, FrameResult
from tests.support.clips import add_sound, ffmpeg, numbered, read_clip, read_number, read_sound, rotate, write_clip
from understudy.convert import Conversion, ConvertError, ConvertStopped, Progress, convert
from understudy.jobs.lock import LockedError, exclusive
from understudy.media.clip_gate import OnMissedFace, OnNoFace, ScreenPolicy
from understudy.media.encoding import EncodingError
from understudy.media.guard import MediaError

COLOUR = (200, 60, 160)


class DiscSwapper:
    """A FrameModel that paints the lower half; frames listed as missed show a subject it cannot do, as empty none."""

    def __init__(self, missed=(), empty=(), failing=()):
        self.missed, self.empty, self.failing = set(missed), set(empty), set(failing)
        self.seen: list[tuple[int, float]] = []
        self.closed = 0

    def warm_up(self):
        pass

    def open_session(self):
        return self

    def process(self, frame: Frame) -> FrameResult:
        self.seen.append((frame.index, frame.captured_s))
        if frame.index in self.failing:
            raise ModelError(f"Frame {frame.index} must be swappable, but is not.")
        image = frame.image.copy()
        is_done = frame.index not in self.missed | self.empty
        if is_done:
            image[image.shape[0] // 2 :] = COLOUR
        return FrameResult(image, frame.index, int(frame.index not in self.empty), int(is_done))

    def close(self):
        self.closed += 1


def is_swapped(image) -> bool:
    return bool(np.abs(image[-20:-4].mean(axis=(0, 1)) - COLOUR).max() < 12)


def is_raw(image) -> bool:
    """Whether the disc of `numbered` can be seen."""
    disc = cv2.inRange(image[image.shape[0] // 2 :], (30, 90, 170), (90, 150, 230))
    return bool(disc.mean() > 5)


@pytest.fixture
def clip(tmp_path):
    times_s = [number / 25 for number in range(60)]
    silent = write_clip(tmp_path / "silent.mp4", [numbered(number) for number in range(60)], times_s)
    return add_sound(silent, tmp_path / "in.mp4", 2.4)


def test_every_frame_is_swapped_in_order_and_the_sound_is_copied(clip, tmp_path):
    report = convert(Conversion(clip, tmp_path / "out.mp4", segment_frames=25), DiscSwapper())
    images, times_s = read_clip(report.target)
    assert [read_number(image) for image in images] == list(range(60))
    assert all(is_swapped(image) for image in images)
    assert times_s == read_clip(clip)[1]
    assert np.array_equal(read_sound(report.target), read_sound(clip))
    assert (report.tally.swapped, report.tally.frames, report.resumed_frames) == (60, 60, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "silent.mp4"]


def test_colours_of_untouched_regions_survive(clip, tmp_path):
    convert(Conversion(clip, tmp_path / "out.mp4"), DiscSwapper())
    before, after = (read_clip(path)[0][30].astype(float) for path in (clip, tmp_path / "out.mp4"))
    assert np.abs(before - after)[:40].mean() < 2
    assert np.abs((before - after)[:40].mean(axis=(0, 1))).max() < 1.5


def test_variable_frame_rate_keeps_every_time(tmp_path):
    times_s = [0.0, 0.04, 0.08, 0.5, 0.533, 0.6, 1.9, 1.95, 2.0, 3.25]
    clip = write_clip(tmp_path / "in.mp4", [numbered(number) for number in range(10)], times_s)
    convert(Conversion(clip, tmp_path / "out.mp4", segment_frames=4), DiscSwapper())
    images, kept_s = read_clip(tmp_path / "out.mp4")
    assert kept_s == pytest.approx(times_s, abs=1e-6)
    assert [read_number(image) for image in images] == list(range(10))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied_to_the_pixels(tmp_path, degrees):
    stored = [np.ascontiguousarray(np.rot90(numbered(number), -degrees // 90)) for number in range(5)]
    plain = write_clip(tmp_path / "plain.mp4", stored, [number / 25 for number in range(5)])
    clip = rotate(plain, tmp_path / "in.mp4", degrees)
    model = DiscSwapper()
    convert(Conversion(clip, tmp_path / "out.mp4"), model)
    images, _ = read_clip(tmp_path / "out.mp4")
    assert images[0].shape == (96, 160, 3)
    assert [read_number(image) for image in images] == list(range(5))
    assert all(is_swapped(image) for image in images)


def test_an_ending_in_capitals_decides_the_container_too(clip, tmp_path):
    convert(Conversion(clip, tmp_path / "OUT.MOV"), DiscSwapper())
    assert (tmp_path / "OUT.MOV").read_bytes()[4:12] == b"ftypqt  "


def test_odd_sizes_lose_one_line(tmp_path):
    image = numbered(7, 161, 97)
    ffmpeg_input = tmp_path / "odd.avi"
    cv2.imwrite(str(tmp_path / "odd.png"), image)
    ffmpeg("-loop", "1", "-framerate", "25", "-t", "0.2", "-i", tmp_path / "odd.png", "-c:v", "ffv1", ffmpeg_input)
    convert(Conversion(ffmpeg_input, tmp_path / "out.mp4"), DiscSwapper())
    assert {image.shape for image in read_clip(tmp_path / "out.mp4")[0]} == {(96, 160, 3)}


def test_sound_that_mp4_cannot_hold_becomes_aac(clip, tmp_path):
    with_pcm = add_sound(tmp_path / "silent.mp4", tmp_path / "in.mkv", 2.4, "pcm_s16le")
    convert(Conversion(with_pcm, tmp_path / "out.mp4"), DiscSwapper())
    sound = read_sound(tmp_path / "out.mp4")
    spectrum = np.abs(np.fft.rfft(sound[4410:48510]))
    assert spectrum.argmax() * 44100 / 44100 == pytest.approx(440, abs=2)
    assert len(sound) == pytest.approx(2.4 * 44100, rel=0.03)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (ScreenPolicy(), {"covered": 20}),
        (ScreenPolicy(on_miss=OnMissedFace.HOLD), {"held": 12, "covered": 8}),
        (ScreenPolicy(on_miss=OnMissedFace.KEEP), {"kept": 20}),
    ],
)
def test_missed_faces_follow_the_policy(clip, tmp_path, policy, expected):
    model = DiscSwapper(missed=range(20, 40))
    report = convert(Conversion(clip, tmp_path / "out.mp4", policy=policy), model)
    images, _ = read_clip(report.target)
    assert {"swapped": 40, "held": 0, "covered": 0, "kept": 0} | expected == {
        name: getattr(report.tally, name) for name in ("swapped", "held", "covered", "kept")
    }
    assert any(is_raw(image) for image in images) == (policy.on_miss is OnMissedFace.KEEP)


def test_frames_without_a_face_are_covered_unless_kept_by_choice(clip, tmp_path):
    model = DiscSwapper(empty=range(10, 60))
    covered = convert(Conversion(clip, tmp_path / "covered.mp4"), model)
    assert covered.tally.covered == 50
    kept = convert(
        Conversion(
            clip,
            tmp_path / "kept.mp4",
            policy=ScreenPolicy(on_no_face=OnNoFace.KEEP),
            is_face_suspected=lambda image: read_number(image) >= 50,
        ),
        model,
    )
    # the last face is seen at 0.36 s: frames up to 1.36 s stay covered, and so do those where one is suspected
    assert [is_raw(image) for image in read_clip(kept.target)[0]] == [False] * 35 + [True] * 15 + [False] * 10
    assert kept.tally.kept == 15


def test_frames_that_the_model_fails_on_are_covered(clip, tmp_path):
    report = convert(
        Conversion(clip, tmp_path / "out.mp4", policy=ScreenPolicy(on_no_face=OnNoFace.KEEP)),
        DiscSwapper(failing=range(5, 20)),
    )
    assert report.tally.covered == 15
    assert not any(is_raw(image) for image in read_clip(report.target)[0])


def test_a_model_that_always_fails_ends_the_conversion(clip, tmp_path):
    model = DiscSwapper(failing=range(60))
    with pytest.raises(ModelError, match="50 frames in a row"):
        convert(Conversion(clip, tmp_path / "out.mp4"), model)
    assert model.closed == 1
    assert not (tmp_path / "out.mp4").exists()


def test_a_clip_without_faces_gives_an_error_and_no_file(clip, tmp_path):
    with pytest.raises(ConvertError, match=r"none was found in its 60 frames"):
        convert(Conversion(clip, tmp_path / "out.mp4"), DiscSwapper(empty=range(60)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "silent.mp4"]


def test_stopped_work_goes_on_without_being_done_again(clip, tmp_path):
    conversion, reported = Conversion(clip, tmp_path / "out.mp4", segment_frames=10), []
    with pytest.raises(ConvertStopped, match="Run the same command again"):
        convert(conversion, DiscSwapper(), reported.append, lambda: len(reported) >= 34)
    assert not (tmp_path / "out.mp4").exists()
    model = DiscSwapper()
    report = convert(conversion, model)
    assert report.resumed_frames == 34
    assert min(index for index, _ in model.seen) == 34 - 12
    images, times_s = read_clip(report.target)
    assert [read_number(image) for image in images] == list(range(60))
    assert times_s == read_clip(clip)[1]
    assert report.tally.swapped == 60


def test_other_settings_start_anew(clip, tmp_path):
    reported = []
    with pytest.raises(ConvertStopped):
        convert(
            Conversion(clip, tmp_path / "out.mp4", fingerprint={"persona": "ada"}),
            DiscSwapper(),
            reported.append,
            lambda: len(reported) >= 20,
        )
    report = convert(Conversion(clip, tmp_path / "out.mp4", fingerprint={"persona": "ben"}), DiscSwapper())
    assert report.resumed_frames == 0


def test_progress_counts_up_to_the_end(clip, tmp_path):
    reported: list[Progress] = []
    convert(Conversion(clip, tmp_path / "out.mp4", segment_frames=25), DiscSwapper(), reported.append)
    swapping = [progress for progress in reported if progress.phase == "swapping"]
    assert [progress.frames for progress in swapping] == list(range(1, 61))
    assert {progress.total for progress in reported} == {60}
    assert swapping[-1].eta_s == 0
    assert [progress.phase for progress in reported[-2:]] == ["joining", "done"]


def test_paints_reach_every_picture_and_the_seal_the_file_before_it_has_its_name(clip, tmp_path):
    sealed = []

    def paint(image):
        image[:8, -16:] = (0, 255, 255)
        return image

    def seal(path):
        assert not (tmp_path / "out.mp4").exists()
        sealed.append(path.suffix)

    policy = ScreenPolicy(on_miss=OnMissedFace.KEEP, on_no_face=OnNoFace.KEEP)
    model = DiscSwapper(missed=[3], empty=range(40, 60))
    convert(Conversion(clip, tmp_path / "out.mp4", policy=policy, overlays=[paint], seal=seal), model)
    assert sealed == [".mp4", ".mp4"], "a trial before the first frame, and the result"
    corners = [image[2:6, -12:-4].mean(axis=(0, 1)) for image in read_clip(tmp_path / "out.mp4")[0]]
    assert np.abs(np.array(corners) - (0, 255, 255)).max() < 25


def test_a_clip_that_nothing_can_seal_is_refused_before_any_frame_is_made(clip, tmp_path):
    def refuse(path):
        raise ModelError("No key.")

    model = DiscSwapper()
    with pytest.raises(ModelError, match="No key"):
        convert(Conversion(clip, tmp_path / "out.mp4", seal=refuse), model)
    assert not (tmp_path / "out.mp4").exists()
    assert convert(Conversion(clip, tmp_path / "out.mp4"), DiscSwapper()).resumed_frames == 0


def test_a_clip_that_cannot_be_sealed_is_not_published_and_its_work_is_kept(clip, tmp_path):
    tried = []

    def refuse(path):  # the key goes while the frames are made
        tried.append(path)
        if len(tried) > 1:
            raise ModelError("No key.")

    with pytest.raises(ModelError, match="No key"):
        convert(Conversion(clip, tmp_path / "out.mp4", seal=refuse), DiscSwapper())
    assert not (tmp_path / "out.mp4").exists()
    assert convert(Conversion(clip, tmp_path / "out.mp4"), DiscSwapper()).resumed_frames == 60
    assert len(read_clip(tmp_path / "out.mp4")[0]) == 60


@pytest.mark.parametrize(
    ("target", "sentence"),
    [("out.mkv", "must end in .mp4"), ("nowhere/out.mp4", "must lie in a folder"), ("in.mp4", "another file than IN")],
)
def test_impossible_targets_are_refused(clip, tmp_path, target, sentence):
    with pytest.raises((ConvertError, EncodingError), match=sentence):
        convert(Conversion(clip, tmp_path / target, is_overwriting=True), DiscSwapper())


def test_an_existing_result_is_replaced_only_on_request(clip, tmp_path):
    (tmp_path / "out.mp4").write_text("precious")
    with pytest.raises(ConvertError, match="--overwrite"):
        convert(Conversion(clip, tmp_path / "out.mp4"), DiscSwapper())
    assert (tmp_path / "out.mp4").read_text() == "precious"
    convert(Conversion(clip, tmp_path / "out.mp4", is_overwriting=True), DiscSwapper())
    assert len(read_clip(tmp_path / "out.mp4")[0]) == 60


def test_what_is_no_clip_is_refused_by_name(tmp_path):
    (tmp_path / "in.mp4").write_text("not a clip")
    with pytest.raises(MediaError, match=r"in\.mp4"):
        convert(Conversion(tmp_path / "in.mp4", tmp_path / "out.mp4"), DiscSwapper())


def test_two_conversions_to_one_target_do_not_mix(clip, tmp_path):
    with (
        exclusive(tmp_path / "out.mp4.lock", "it"),
        pytest.raises(LockedError, match="another process"),
    ):
        convert(Conversion(clip, tmp_path / "out.mp4"), DiscSwapper())


SLOW_CONVERSION = """
import sys, time
from pathlib import Path
from tests.integration.test_convert import DiscSwapper
from understudy.convert import Conversion, convert
def slow(progress):
    time.sleep(0.02)
convert(Conversion(Path(sys.argv[1]), Path(sys.argv[2]), segment_frames=5), DiscSwapper(), slow)
"""


@pytest.mark.faults
def test_killed_work_goes_on_after_the_last_whole_segment(clip, tmp_path, repository):
    target = tmp_path / "out.mp4"
    for kills in range(2):
        process = subprocess.Popen([sys.executable, "-c", SLOW_CONVERSION, clip, target], cwd=repository)
        whole = tmp_path / "out.mp4.partial" / f"segment-00000{kills * 3 + 2}.json"
        deadline_s = time.monotonic() + 30
        while not whole.exists() and process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        assert not target.exists()
    report = convert(Conversion(clip, target, segment_frames=5), DiscSwapper())
    assert 25 <= report.resumed_frames < 60
    images, times_s = read_clip(target)
    assert [read_number(image) for image in images] == list(range(60))
    assert times_s == read_clip(clip)[1]
    assert np.array_equal(read_sound(target), read_sound(clip))
