"""Clips as people bring them: damaged, interlaced, HDR, oddly timed, oddly named; each comes out whole and right."""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pictures

from liveframe.frame import Frame, FrameResult
from tests.support.clips import add_sound, ffmpeg, numbered, read_clip, read_number, read_sound, rotate, write_clip
from understudy.media.clip import read_frames
from understudy.media.colour import HLG, PQ, ColourTags, ToneMap, to_bgr
from understudy.media.conversion import Conversion, ConvertReport, convert
from understudy.media.guard import MediaError, check_media

FRAMES = 30


class CornerMarker:
    """A FrameModel that marks one corner and leaves the rest as it is."""

    def warm_up(self) -> None:
        pass

    def open_session(self) -> "CornerMarker":
        return self

    def process(self, frame: Frame) -> FrameResult:
        image = frame.image.copy()
        image[-8:, -8:] = 255 - image[-8:, -8:]
        return FrameResult(image, frame.index, 1, 1)

    def close(self) -> None:
        pass


def converted(source: Path, name: str = "out.mp4") -> ConvertReport:
    return convert(Conversion(source, source.parent / name), CornerMarker())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with sound, its index at the front."""
    folder = tmp_path_factory.mktemp("plain")
    times_s = [number / 25 for number in range(FRAMES)]
    silent = write_clip(folder / "silent.mp4", [numbered(number, 320, 192) for number in range(FRAMES)], times_s)
    add_sound(silent, folder / "sound.mp4", 1.2)
    ffmpeg("-i", folder / "sound.mp4", "-c", "copy", "-movflags", "+faststart", folder / "plain.mp4")
    return folder / "plain.mp4"


def sound_streams(path: Path) -> list[tuple[str, int, str, str]]:
    with av.open(str(path)) as container:
        return [
            (s.codec_context.name, s.codec_context.sample_rate, s.codec_context.layout.name, s.metadata["language"])
            for s in container.streams.audio
        ]


# ------------------------------------------------------------------------------------------------ sound


def test_sound_of_a_rate_that_aac_does_not_know_is_resampled(plain: Path, tmp_path: Path) -> None:
    tone = "sine=frequency=440:sample_rate=192000:duration=1.2"
    source = tmp_path / "in.mov"
    ffmpeg(
        "-i",
        plain,
        "-f",
        "lavfi",
        "-i",
        tone,
        "-map",
        "0:v",
        "-map",
        "1:a",
        "-c:v",
        "copy",
        "-c:a",
        "pcm_s24le",
        source,
    )
    report = converted(source)
    assert report.tally.frames == FRAMES
    assert sound_streams(report.target)[0][:2] == ("aac", 48_000)
    sound = read_sound(report.target)
    peak = int(np.abs(np.fft.rfft(sound[4_800:52_800])).argmax())
    assert peak == pytest.approx(440, abs=2)
    assert len(sound) == pytest.approx(1.2 * 48_000, rel=0.05)


def test_six_channels_and_languages_stay(plain: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    noise = "anoisesrc=d=1.2:c=pink:a=0.1"
    ffmpeg("-i", plain, "-f", "lavfi", "-i", noise, "-map", "0:v", "-map", "1:a", "-map", "1:a", "-c:v", "copy",
           "-ac:a:0", "6", "-c:a:0", "libopus", "-ac:a:1", "6", "-c:a:1", "pcm_s16le",
           "-metadata:s:a:0", "language=deu", "-metadata:s:a:1", "language=fra", source)  # fmt: skip
    copied, encoded = sound_streams(converted(source).target)
    assert (copied[0], copied[2], copied[3]) == ("opus", "5.1", "deu")
    assert (encoded[0], encoded[2], encoded[3]) == ("aac", "5.1", "fra")


def test_a_sound_track_of_an_unknown_codec_is_left_out_with_a_word(plain: Path, tmp_path: Path) -> None:
    two = tmp_path / "two.mov"
    ffmpeg("-i", plain, "-map", "0:v", "-map", "0:a", "-map", "0:a", "-c", "copy", two)
    content = bytearray(two.read_bytes())
    second = content.index(b"mp4a", content.index(b"stsd", content.index(b"soun", content.index(b"mp4a"))))
    content[second : second + 4] = b"apac"
    at = content.index(b"esds", second)
    content[at : at + 4] = b"free"
    (tmp_path / "in.mov").write_bytes(content)
    report = converted(tmp_path / "in.mov")
    assert report.tally.frames == FRAMES
    assert [stream[0] for stream in sound_streams(report.target)] == ["aac"]
    assert any("Sound track 2" in note and "left out" in note for note in report.notes)


# ------------------------------------------------------------------------------------------------ damage


def test_a_hole_in_the_middle_costs_no_more_than_itself(plain: Path, tmp_path: Path) -> None:
    content = bytearray(plain.read_bytes())
    middle = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 2
    content[middle : middle + 600] = bytes(600)
    (tmp_path / "in.mp4").write_bytes(content)
    report = converted(tmp_path / "in.mp4")
    assert FRAMES - 3 <= report.tally.frames <= FRAMES
    _, times_s = read_clip(report.target)
    assert (np.diff(times_s) > 0).all()
    with av.open(str(report.target)) as container:
        sound = [packet.dts for packet in container.demux(audio=0) if packet.dts is not None]
    assert (np.diff(sound) > 0).all() and len(sound) > 40


def test_a_torn_clip_gives_what_it_has_and_a_note(plain: Path, tmp_path: Path) -> None:
    content = plain.read_bytes()
    (tmp_path / "in.mp4").write_bytes(content[: len(content) * 2 // 3])
    report = converted(tmp_path / "in.mp4")
    assert FRAMES // 3 < report.tally.frames < FRAMES
    assert any(f"{report.tally.frames} of {FRAMES} frames" in note for note in report.notes)
    images, _ = read_clip(report.target)
    assert [read_number(image) for image in images] == list(range(report.tally.frames))


def test_a_cover_picture_is_left_out(plain: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "cover.jpg"), np.full((200, 200, 3), 200, np.uint8))
    source = tmp_path / "in.mp4"
    ffmpeg("-i", plain, "-i", tmp_path / "cover.jpg", "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:1",
           "attached_pic", source)  # fmt: skip
    report = converted(source)
    assert report.tally.frames == FRAMES
    assert [read_number(image) for image in read_clip(report.target)[0]] == list(range(FRAMES))


# ------------------------------------------------------------------------------------------------ times, shapes


def test_b_frames_in_avi_come_in_even_steps(plain: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.avi"
    ffmpeg("-i", plain, "-c:v", "libx264", "-bf", "3", "-r", "25", "-an", source)
    images, times_s = read_clip(converted(source).target)
    assert [read_number(image) for image in images] == list(range(FRAMES))
    assert times_s == pytest.approx([number / 25 for number in range(FRAMES)], abs=1e-6)


def test_pixel_aspect_is_turned_with_the_picture(tmp_path: Path) -> None:
    stored = [np.ascontiguousarray(np.rot90(numbered(number), -1)) for number in range(3)]
    write_clip(tmp_path / "plain.mp4", stored, [0, 0.04, 0.08])
    ffmpeg("-i", tmp_path / "plain.mp4", "-vf", "setsar=3/4", "-c:v", "libx264", tmp_path / "narrow.mp4")
    source = rotate(tmp_path / "narrow.mp4", tmp_path / "in.mp4", 90)
    with av.open(str(converted(source).target)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (160, 96)
        assert stream.sample_aspect_ratio == Fraction(4, 3)


def test_the_containers_own_aspect_counts(plain: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"  # 16:9 by the container; the video itself says nothing of it
    ffmpeg("-i", plain, "-c", "copy", "-aspect", "16:9", source)
    with av.open(str(converted(source).target)) as container:
        assert container.streams.video[0].display_aspect_ratio == Fraction(16, 9)


def test_interlaced_video_is_deinterlaced(tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=50:duration=0.8", "-vf", "tinterlace=interleave_top",
           "-c:v", "libx264", "-x264opts", "tff=1", "-flags", "+ildct+ilme", source)  # fmt: skip
    report = converted(source)
    with av.open(str(source)) as container:
        combed = [to_bgr(frame) for frame in container.decode(video=0)]
    images, times_s = read_clip(report.target)
    assert report.tally.frames == len(combed) == 20
    assert np.diff(times_s) == pytest.approx(np.full(19, 0.04), abs=1e-6)
    assert combing(images[10]) < 0.6 * combing(combed[10])


def combing(image: NDArray[np.uint8]) -> float:
    """How much neighbouring rows differ more than rows two apart do."""
    rows = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(float)
    return float(np.abs(rows[1:-1] * 2 - rows[:-2] - rows[2:]).mean())


# ------------------------------------------------------------------------------------------------ colours

PATCHES_BGR = [(30, 30, 200), (30, 180, 30), (200, 40, 40), (40, 200, 220), (128, 128, 128), (235, 235, 235)]


def patches(width: int, height: int) -> NDArray[np.uint8]:
    image = np.zeros((height, width, 3), np.uint8)
    for number, colour in enumerate(PATCHES_BGR):
        image[:, number * width // len(PATCHES_BGR) : (number + 1) * width // len(PATCHES_BGR)] = colour
    return image


def patch_values(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    height, width = image.shape[:2]
    step = width // len(PATCHES_BGR)
    return np.array([image[height // 2, n * step + step // 2].astype(float) for n in range(len(PATCHES_BGR))])


@pytest.mark.parametrize(
    ("size", "matrix", "tags"),
    [
        ("1280x720", "bt709", ColourTags(1, 1, 1, 1)),
        ("1280x720", "bt709:out_range=pc", ColourTags(1, 1, 1, 2)),
        ("320x240", "smpte170m", ColourTags(6, 6, 6, 1)),
        ("320x240", "bt709", ColourTags(1, 1, 13, 1)),
    ],
)
def test_tagged_colours_are_read_and_written(tmp_path: Path, size: str, matrix: str, tags: ColourTags) -> None:
    width, height = map(int, size.split("x"))
    cv2.imwrite(str(tmp_path / "in.png"), patches(width, height))
    ffmpeg("-loop", "1", "-i", tmp_path / "in.png", "-frames:v", "3", "-vf",
           f"scale=out_color_matrix={matrix}:flags=accurate_rnd+full_chroma_int,format=yuv420p",
           "-c:v", "libx264", "-crf", "4",
           "-colorspace", str(tags.matrix), "-color_primaries", str(tags.primaries), "-color_trc", str(tags.transfer),
           "-color_range", str(tags.range), tmp_path / "in.mp4")  # fmt: skip
    first = next(read_frames(tmp_path / "in.mp4")).image
    assert patch_values(first) == pytest.approx(np.array(PATCHES_BGR, float), abs=4)
    target = converted(tmp_path / "in.mp4").target
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
    assert ColourTags.of(frame) == tags
    assert patch_values(to_bgr(frame)) == pytest.approx(np.array(PATCHES_BGR, float), abs=4)


@pytest.mark.parametrize("size", [(1280, 720), (320, 240)])
def test_untagged_colours_go_back_as_they_came(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = write_clip(tmp_path / "in.mp4", [patches(*size)] * 3, [0, 0.04, 0.08], crf=4)
    planes = []
    for path in (clip, converted(clip).target):
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        assert ColourTags.of(frame).matrix == 2
        planes.append(frame.to_ndarray().astype(int))
    assert (
        np.abs(planes[0] - planes[1])[: size[1] - 16].mean() < 0.3
    )  # whatever matrix a player takes, it shows the same


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_hdr_is_tone_mapped(tmp_path: Path, transfer: int) -> None:
    tone = ToneMap(transfer, [])
    grey, white = 0.38 if transfer == HLG else 0.36, 0.75 if transfer == HLG else 0.58  # BT.2408: 18 % grey, white
    signal = np.zeros((240, 320, 3), np.uint16)
    signal[:, :280], signal[:, 280:] = round(grey * 65535), round(white * 65535)
    signal.tofile(tmp_path / "in.raw")
    names = {HLG: "arib-std-b67", PQ: "smpte2084"}
    ffmpeg("-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", "320x240", "-r", "5", "-i", tmp_path / "in.raw",
           "-vf", "scale=out_color_matrix=bt2020:flags=accurate_rnd,format=yuv420p10le", "-c:v", "libx265",
           "-x265-params", f"log-level=none:colorprim=bt2020:transfer={names[transfer]}:colormatrix=bt2020nc",
           tmp_path / "in.mov")  # fmt: skip
    report = converted(tmp_path / "in.mov")
    with av.open(str(report.target)) as container:
        frame = next(container.decode(video=0))
    assert ColourTags.of(frame) == ColourTags(1, 1, 1, 1)
    image = to_bgr(frame).astype(int)
    assert 75 < image[120, 80].mean() < 140
    assert 200 < image[120, 300].mean() <= 255
    assert np.ptp(image[120, 80]) <= 3
    mapped = tone.sdr(np.linspace(0, 1, 64)[:, None].repeat(3, axis=1))
    assert (np.diff(mapped[:, 0]) >= 0).all() and mapped.max() <= 1


# ------------------------------------------------------------------------------------------------ kinds


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("in.3gp", ["-c:v", "libx264", "-an"]),
        ("in.ts", ["-c:v", "libx264"]),
        ("in.m2ts", ["-c:v", "libx264"]),
        ("in.mpg", ["-c:v", "mpeg2video", "-q:v", "2"]),
        ("in.mov", ["-c:v", "libx264"]),
        ("in.gif", ["-an"]),
        ("in.apng", ["-an", "-f", "apng"]),
    ],
)
def test_other_containers_are_read(plain: Path, tmp_path: Path, name: str, options: list[str]) -> None:
    source = tmp_path / name
    ffmpeg("-i", plain, *options, source)
    images, times_s = read_clip(converted(source).target)
    assert [read_number(image) for image in images] == list(range(FRAMES))
    assert np.diff(times_s) == pytest.approx(np.full(FRAMES - 1, 0.04), abs=1e-3)


def test_a_quicktime_file_without_a_type_box_is_read(plain: Path, tmp_path: Path) -> None:
    content = plain.read_bytes()
    (tmp_path / "in.mov").write_bytes(b"\x00\x00\x00\x08free" * 4 + content[int.from_bytes(content[:4], "big") :])
    content = (tmp_path / "in.mov").read_bytes()
    assert content[4:8] == b"free" and b"ftyp" not in content[:64]
    assert check_media(tmp_path / "in.mov").kind == "mp4"


def test_an_animated_webp_is_a_clip_within_the_limits(tmp_path: Path) -> None:
    pages = [Pictures.fromarray(numbered(number)[..., ::-1]) for number in range(5)]
    pages[0].save(
        tmp_path / "in.webp", save_all=True, append_images=pages[1:], duration=[40, 100, 40, 40, 40], quality=95
    )
    images, times_s = read_clip(converted(tmp_path / "in.webp").target)
    assert [read_number(image) for image in images] == list(range(5))
    assert times_s == pytest.approx([0, 0.04, 0.14, 0.18, 0.22], abs=1e-3)
    (tmp_path / "torn.webp").write_bytes((tmp_path / "in.webp").read_bytes()[:60])
    with pytest.raises(MediaError, match=r"torn\.webp"):
        list(read_frames(tmp_path / "torn.webp"))


# ------------------------------------------------------------------------------------------------ names


def test_names_are_paths_and_never_addresses(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source, target = Path("12:30:05.mp4"), Path("http:out.mp4")
    shutil.copy(plain, source)
    report = convert(Conversion(source, target), CornerMarker())
    assert report.tally.frames == FRAMES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["12:30:05.mp4", "http:out.mp4"]


def test_a_name_of_250_letters_works(plain: Path, tmp_path: Path) -> None:
    target = tmp_path / ("x" * 246 + ".mp4")
    assert convert(Conversion(plain, target), CornerMarker()).tally.frames == FRAMES
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
