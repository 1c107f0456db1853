"""What streamlit-webrtc and aiortc have no setting for, set here and nowhere else; tests fail when they change.

Measured on two cores with the browser on them, 480p: prompt pictures take 33 ms off every one, the quicker encoder
gives a quarter more frames a second where swap and codecs share a core.
"""

import threading
from typing import Any

import aiortc.codecs
import av
from aiortc import MediaStreamTrack, rtcrtpreceiver
from aiortc.codecs import CODECS, h264, is_rtx, vpx
from aiortc.contrib.media import MediaRelay
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from streamlit.runtime import Runtime
from streamlit_webrtc import relay as streamlit_relay

START_BITRATE = 2_500_000  # bits/s; aiortc's 0.5 to 0.9 M make faces soft
SMALLEST_BITRATE = 800_000  # asked of the browser; below it faces are unusable
LARGEST_BITRATE = 3_000_000  # more costs both ends packets that nobody sees

_lock = threading.Lock()


def tune() -> None:
    """Set all of it. Idempotent; from a script run, before `webrtc_streamer`. Counts for connections made later."""
    install_unbuffered_relay()
    with _lock:
        rtcrtpreceiver.JitterBuffer = PromptJitterBuffer  # pyright: ignore[reportPrivateImportUsage]
        aiortc.codecs.Vp8Encoder = QuickVp8Encoder  # type: ignore[misc]
        raise_bitrates()


# ---------------------------------------------------------------- the newest picture, and promptly


class UnbufferedRelay(MediaRelay):
    """A relay whose subscribers to pictures wait for the newest; aiortc's default queues them without bound.

    Sound stays queued: a piece left out would be heard, and its one subscriber does nothing that takes time.
    """

    def subscribe(self, track: MediaStreamTrack, buffered: bool = False) -> MediaStreamTrack:
        """Subscribe to a track; `buffered` is taken as False for pictures, and as True for sound."""
        return super().subscribe(track, buffered=track.kind == "audio")


def install_unbuffered_relay() -> None:
    """Put our relay where streamlit-webrtc keeps the one that all streams of a server share. Idempotent."""
    runtime: Any = Runtime.instance()
    name = streamlit_relay._SERVER_GLOBAL_RELAY_ATTR_NAME_
    if not isinstance(getattr(runtime, name, None), UnbufferedRelay):
        setattr(runtime, name, UnbufferedRelay())


class PromptJitterBuffer(JitterBuffer):
    """Gives a picture as soon as its last packet is there, which carries RTP's marker bit (RFC 3550 5.1, RFC 7741 4.1).

    aiortc's own waits for the first packet of the next picture: every one comes a frame's time late.
    """

    def _remove_frame(self, sequence_number: int) -> JitterFrame | None:
        frame = super()._remove_frame(sequence_number)
        if not self._is_video:
            return frame
        if frame is not None and not frame.data:  # padding, sent after a picture that has left already
            return self._remove_frame(sequence_number)
        return frame or self._complete_frame()

    def _complete_frame(self) -> JitterFrame | None:
        """Take the oldest picture if all of its packets are there; the parent saw that no other one follows."""
        pieces: list[bytes] = []
        for count in range(self.capacity):
            packet: Any = self._packets[((self._origin or 0) + count) % self.capacity]
            if packet is None:
                return None
            pieces.append(packet._data)
            if packet.marker:
                self.remove(count + 1)
                return JitterFrame(b"".join(pieces), packet.timestamp)
        return None


# ---------------------------------------------------------------- the codec


class QuickVp8Encoder(vpx.Vp8Encoder):
    """aiortc's encoder with less effort: no denoising, which costs sharpness too, and a quicker search.

    At 480p and 2.5 Mbit/s 2.2 ms a frame against 3.7, at 37.5 dB against 37.1 (the astronaut before a still room).
    """

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        """Encode a frame; the parent makes a codec where there is none that fits, so one that fits is made first."""
        if not self._fits(frame):
            self.codec = _vp8(frame.width, frame.height, self.target_bitrate)
        return super().encode(frame, force_keyframe)

    def _fits(self, frame: Any) -> bool:
        """Whether the codec may go on: the same size, and a bitrate that is near."""
        codec = self.codec
        if codec is None or (codec.width, codec.height) != (frame.width, frame.height):
            return False
        bitrate = codec.bit_rate or 0
        return abs(self.target_bitrate - bitrate) <= 0.1 * bitrate


def _vp8(width: int, height: int, bitrate: int) -> Any:
    """Open libvpx for real time at a constant bitrate, on one thread."""
    codec: Any = av.CodecContext.create("libvpx", "w")
    codec.width, codec.height, codec.bit_rate, codec.pix_fmt = width, height, bitrate, "yuv420p"
    codec.gop_size, codec.qmin, codec.qmax, codec.thread_count = 3000, 2, 56, 1
    codec.options = {
        "bufsize": str(bitrate),
        "minrate": str(bitrate),
        "maxrate": str(bitrate),
        "undershoot-pct": "100",
        "overshoot-pct": "15",
        "deadline": "realtime",
        "lag-in-frames": "0",
        "cpu-used": "-16",
        "noise-sensitivity": "0",
        "static-thresh": "1",
    }
    return codec


def raise_bitrates() -> None:
    """Let both directions start at 2.5 Mbit/s. Idempotent.

    aiortc's encoders take it from their modules' constants, the browser's from Chromium's x-google parameters in our
    answer.
    """
    for encoder in (vpx, h264):
        encoder.DEFAULT_BITRATE = START_BITRATE  # pyright: ignore[reportAttributeAccessIssue]
        encoder.MAX_BITRATE = LARGEST_BITRATE  # pyright: ignore[reportAttributeAccessIssue]
    for codec in CODECS["video"]:
        if not is_rtx(codec):
            codec.parameters |= {
                "x-google-start-bitrate": str(START_BITRATE // 1000),
                "x-google-min-bitrate": str(SMALLEST_BITRATE // 1000),
                "x-google-max-bitrate": str(LARGEST_BITRATE // 1000),
            }
