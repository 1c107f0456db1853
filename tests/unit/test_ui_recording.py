"""Recordings of what is shown: pictures and sound by their times, nothing raw, nothing that stops the stream."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.harness.waiting import wait_until
from liveframe.gate import Shown, ShownState
from ui.session.recording import Recording, RecordingError, Sound

SIZE = (96, 128)


def shown(index: int, state: ShownState = ShownState.SWAPPED, level: int = 120, size: tuple[int, int] = SIZE) -> Shown:
    image = np.full((*size, 3), level, np.uint8)
    seen = ("ada",) if state is ShownState.SWAPPED else ()
    return Shown(image, state, index, index, captured_s=100 + index / 25, personas=seen)


def tone(index: int) -> Sound:
    """20 ms of a 440 Hz tone in stereo, in time with picture 0."""
    moments = np.arange(960) + index * 960
    wave = (8000 * np.sin(2 * np.pi * 440 * moments / 48_000)).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None], format="s16", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48_000, index * 960, Fraction(1, 48_000)
    return Sound(frame, 100 + index / 50)


def test_pictures_keep_the_times_at_which_they_came(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "clip.mp4", has_sound=False)
    for index in (0, 1, 2, 5, 9, 20):
        recording.write(shown(index))
    with av.open(str(recording.finish())) as clip:
        times = [float(frame.time) for frame in clip.decode(video=0)]
        assert clip.streams.video[0].codec_context.name in ("h264", "mpeg4")
    assert times == pytest.approx([index / 25 for index in (0, 1, 2, 5, 9, 20)], abs=2e-3)
    assert recording.played == ("ada",)


def test_sound_is_kept_beside_the_pictures(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "clip.mp4", has_sound=True)
    for index in range(50):
        if index % 2 == 0:
            recording.write(shown(index // 2))
        recording.hear(tone(index))
        wait_until(lambda: recording._queue.qsize() < 20)
    assert recording.dropped == 0
    with av.open(str(recording.finish())) as clip:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in clip.decode(audio=0)])
    assert len(samples) / 48_000 == pytest.approx(1.0, abs=0.06)
    spectrum = np.abs(np.fft.rfft(samples[4096 : 4096 + 32_768]))
    assert spectrum.argmax() * 48_000 / 32_768 == pytest.approx(440, abs=3)


def test_the_viewers_own_camera_is_replaced_by_a_card(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "clip.mp4", has_sound=False)
    recording.write(shown(0))
    recording.write(shown(1, ShownState.OFF, level=255))
    with av.open(str(recording.finish())) as clip:
        pictures = [frame.to_ndarray(format="bgr24") for frame in clip.decode(video=0)]
    assert np.median(pictures[0]) == pytest.approx(120, abs=4)
    assert np.median(pictures[1]) < 80


def test_a_camera_that_is_turned_meanwhile_is_fitted_in(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "clip.mp4", has_sound=False)
    recording.write(shown(0))
    recording.write(shown(1, size=(128, 96)))
    with av.open(str(recording.finish())) as clip:
        pictures = [frame.to_ndarray(format="bgr24") for frame in clip.decode(video=0)]
    assert [picture.shape[:2] for picture in pictures] == [SIZE, SIZE]
    assert pictures[1][:, :20].mean() < 20 < pictures[1][:, 50:80].mean()


def test_what_the_encoder_cannot_take_is_dropped_and_the_stream_goes_on(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "clip.mp4", has_sound=False)
    large = shown(0, size=(720, 1280))
    for _ in range(200):
        recording.write(large)
    assert recording.dropped > 0
    assert recording.finish().stat().st_size > 0


def test_nothing_shown_gives_a_sentence_and_no_file(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "clip.mp4", has_sound=False)
    with pytest.raises(RecordingError, match="Nothing was shown"):
        recording.finish()
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_gives_a_sentence(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "missing" / "clip.mp4", has_sound=False)
    recording.write(shown(0))
    with pytest.raises(RecordingError, match="could not be written"):
        recording.finish()


def test_discarded_recording_leaves_nothing(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "clip.mp4", has_sound=False)
    recording.write(shown(0))
    recording.discard()
    recording._thread.join(10)
    assert not list(tmp_path.iterdir())
