"""A clip's sound, laid beside new pictures: copied where the result's container holds it, else encoded again."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from understudy.media.decode import Note, open_clip

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet

_COPIED: Mapping[str, frozenset[str]] = {
    ".mp4": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}),
    ".m4v": frozenset({"aac", "mp3", "ac3", "eac3", "alac"}),
    ".mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac"}),
    ".webm": frozenset({"opus", "vorbis"}),
}
_AAC_RATES_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
_OPUS_RATES_HZ = (48_000, 24_000, 16_000, 12_000, 8_000)
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_BIT_RATE_A_CHANNEL = 80_000
_USUAL_RATE_HZ = 48_000
_LONGEST_SILENCE_S = 10  # written as silence; after a longer gap, sound goes on at its time


@dataclass(frozen=True, slots=True)
class SoundSource:
    """Whose sound is taken, and which part of it.

    Attributes:
        path: the clip.
        kind: as `check_first_bytes` tells it.
        start_s: where the result begins on the clip's own clock, in seconds.
        end_s: where it ends on that clock; None: with the clip.
        most_packets: so many of each track at most; 0: all.
    """

    path: Path
    kind: str
    start_s: float = 0.0
    end_s: float | None = None
    most_packets: int = 0


def add_sound(source: SoundSource, result: "OutputContainer", suffix: str, note: Note) -> "list[Iterator[Packet[Any]]]":
    """Add a track to the result for each sound track that can be read; give their packets, track by track.

    Languages are kept. Times are repaired: packets rise by at least a tick, whatever the file says.

    Args:
        source: whose sound.
        result: open, its header not written yet.
        suffix: the result's: decides what may be copied.
        note: told of tracks that are left out.
    """
    tracks: list[Iterator[Packet[Any]]] = []
    with open_clip(source.path, source.kind) as container:
        for number, stream in enumerate(container.streams.audio, 1):
            track = _track(source, stream, result, suffix)
            if track is None:
                note(f"Sound track {number} of '{source.path.name}' is of a kind that is not known here: left out.")
            else:
                tracks.append(itertools.islice(track, source.most_packets or None))
        others = sum(each.type not in ("audio", "video") for each in container.streams)
        if others:
            note(f"'{source.path.name}' has {others} streams beside picture and sound (subtitles, data): left out.")
    return tracks


def _track(
    source: SoundSource, stream: "AudioStream", result: "OutputContainer", suffix: str
) -> "Iterator[Packet[Any]] | None":
    # None for codecs that FFmpeg does not know, which its types leave out.
    context = cast("AudioCodecContext | None", stream.codec_context)
    if context is None:
        return None
    name = context.codec.name.removesuffix("float").removeprefix("lib")
    if name in _COPIED[suffix] and context.sample_rate:
        track = result.add_stream_from_template(stream, opaque=True)
        _keep_language(stream, track)
        return _rising(_copied(source, stream.index, track))
    if not context.sample_rate or not context.channels:
        return None
    is_opus = suffix == ".webm"
    rates_hz = _OPUS_RATES_HZ if is_opus else _AAC_RATES_HZ
    rate_hz = context.sample_rate if context.sample_rate in rates_hz else _USUAL_RATE_HZ
    channels = min(context.channels, 8)
    layout = _LAYOUTS[channels if not is_opus or channels in (1, 2, 6) else 2]
    encoded = result.add_stream("libopus" if is_opus else "aac", rate=rate_hz, layout=layout)
    encoded.bit_rate = _BIT_RATE_A_CHANNEL * encoded.codec_context.channels
    _keep_language(stream, encoded)
    return _rising(_encoded(source, stream.index, encoded))


def _keep_language(stream: "AudioStream", track: "AudioStream") -> None:
    language = stream.metadata.get("language")
    if language:
        track.metadata["language"] = language


def _copied(source: SoundSource, index: int, track: "AudioStream") -> "Iterator[Packet[Any]]":
    with open_clip(source.path, source.kind) as container:
        for packet in _demuxed(container, index):
            if packet.size == 0 or packet.pts is None:
                continue
            time_s = float(packet.pts * packet.time_base)
            if source.end_s is not None and time_s >= source.end_s:
                return
            shift = round(source.start_s / packet.time_base)
            packet.pts -= shift
            packet.dts = packet.pts
            if packet.pts < 0 and source.start_s > 0 and packet.pts + (packet.duration or 0) <= 0:
                continue
            packet.stream = track
            yield packet


def _demuxed(container: Any, index: int) -> "Iterator[Packet[Any]]":
    """Return a stream's packets until the file ends or breaks."""
    from av.error import FFmpegError

    packets = container.demux(container.streams[index])
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            return
        if packet is None:
            return
        yield packet


def _encoded(source: SoundSource, index: int, track: "AudioStream") -> "Iterator[Packet[Any]]":
    for frame in _resampled(_decoded(source, index), track):
        yield from track.encode(frame)
    yield from track.encode(None)


def _decoded(source: SoundSource, index: int) -> "Iterator[AudioFrame]":
    """Return a track's frames on the result's clock; what cannot be decoded is passed over."""
    import av
    from av.error import FFmpegError

    with open_clip(source.path, source.kind) as container:
        stream = container.streams[index]
        assert isinstance(stream, av.AudioStream)
        for packet in _demuxed(container, index):
            try:
                frames = stream.decode(packet)
            except FFmpegError:
                continue
            for frame in frames:
                if frame.pts is None or frame.time_base is None:
                    continue
                time_s = float(frame.pts * frame.time_base)
                if source.end_s is not None and time_s >= source.end_s:
                    return
                if time_s + frame.samples / frame.sample_rate <= source.start_s:
                    continue
                frame.pts -= round(source.start_s / frame.time_base)
                yield frame


def _resampled(frames: "Iterator[AudioFrame]", track: "AudioStream") -> "Iterator[AudioFrame]":
    """Bring frames to the encoder's format; gaps become silence, and the format may change in the middle."""
    import av

    context = track.codec_context
    size = context.frame_size or 1024
    rate_hz, channels, layout = context.sample_rate, context.channels, context.layout
    resampler, form, at = None, None, None
    waiting: NDArray[np.float32] = np.zeros((channels, 0), np.float32)
    for frame in frames:
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or now != form:
            resampler, form = av.AudioResampler(format="fltp", layout=layout, rate=rate_hz), now
        due = round(float((frame.pts or 0) * (frame.time_base or 0)) * rate_hz)
        at = due if at is None else at
        gap = due - (at + waiting.shape[1])
        if gap > _LONGEST_SILENCE_S * rate_hz:
            at, waiting = due, waiting[:, :0]
        elif gap > rate_hz // 10:
            waiting = np.concatenate([waiting, np.zeros((channels, gap), np.float32)], axis=1)
        frame.pts = None
        for part in resampler.resample(frame):
            waiting = np.concatenate([waiting, np.asarray(part.to_ndarray(), np.float32)], axis=1)
        while waiting.shape[1] >= size:
            yield _block(waiting[:, :size], layout, rate_hz, at)
            waiting, at = waiting[:, size:], at + size
    if at is not None and waiting.shape[1]:
        yield _block(waiting, layout, rate_hz, at)


def _block(samples: NDArray[np.float32], layout: Any, rate_hz: int, at: int) -> "AudioFrame":
    import av

    block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout.name)
    block.sample_rate, block.pts, block.time_base = rate_hz, at, Fraction(1, rate_hz)
    return block


def _rising(packets: "Iterator[Packet[Any]]") -> "Iterator[Packet[Any]]":
    """Move packets whose time does not rise (torn files have such) on by a tick."""
    last: int | None = None
    for packet in packets:
        dts = packet.dts if packet.dts is not None else packet.pts
        if dts is None:
            continue
        if last is not None and dts <= last:
            dts = last + 1
        packet.dts = last = dts
        packet.pts = max(packet.pts if packet.pts is not None else dts, dts)
        yield packet
