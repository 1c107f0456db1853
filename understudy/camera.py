"""Your camera, swapped, as a camera for other programs: `python -m understudy.camera --persona NAME`.

The frames go through the same pipeline and gate as in the app. Needs a loopback driver on the system and the extra
`camera`: `uv run --extra camera python -m understudy.camera`. See docs/camera.md.
"""

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from liveframe.cover import CoverStyle
from liveframe.errors import LiveframeError
from liveframe.frame import Image
from liveframe.gate import ShownState
from liveframe.pipeline import FramePipeline
from understudy.bundle.bundle import default_bundle
from understudy.consent.persona import ConsentWatch
from understudy.consent.trust_store import TrustStore, trust_folder
from understudy.jobs.stop_requests import stop_requests
from understudy.media.clip import read_frames
from understudy.swap.raw_face import RawFaceInspector
from understudy.swap.swapper import SwapSettings
from understudy.swap.verified_swapper import VerifiedSwapper

_FIRST_FRAME_S = 10.0
_LOST_S = 3.0


class CameraError(LiveframeError, RuntimeError):
    """A camera, real or virtual, is missing or gone. Says what to do."""


class FrameSource(Protocol):
    """Where frames come from. Used by one thread."""

    def read(self) -> Image | None:
        """Wait for the newest frame: uint8 [H, W, 3] BGR, one size throughout; None at the end.

        Raises:
            CameraError: the camera is gone.
        """
        ...

    def close(self) -> None:
        """Let the device go. Safe to call twice."""
        ...


class FrameSink(Protocol):
    """Where shown frames go. Used by one thread."""

    def send(self, image: Image) -> None:
        """Show a frame: uint8 [H, W, 3] BGR."""
        ...

    def close(self) -> None:
        """Let the device go. Safe to call twice."""
        ...


class CameraSource:
    """A real camera. A thread of its own keeps the newest frame; older ones are dropped."""

    def __init__(self, device: int | str, width: int, height: int, fps: int) -> None:
        """Open the camera.

        Args:
            device: its number, or its path ("/dev/video2").
            width: px to ask for; the camera may choose another size.
            height: px to ask for.
            fps: to ask for.

        Raises:
            CameraError: there is none of that number, or another program holds it.
        """
        self._capture = cv2.VideoCapture(device)
        if not self._capture.isOpened():
            raise CameraError(
                f"Camera {device} must be there and free, but cannot be opened. Plug it in, close other programs "
                "that use it, or choose another one with --device."
            )
        for setting, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, width),
            (cv2.CAP_PROP_FRAME_HEIGHT, height),
            (cv2.CAP_PROP_FPS, fps),
        ):
            self._capture.set(setting, value)
        self._device = device
        self._newest: Image | None = None
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._grab, name="understudy-camera", daemon=True)
        self._thread.start()

    def _grab(self) -> None:
        lost_s: float | None = None
        while not self._is_closed:
            is_read, image = self._capture.read()
            if is_read:
                lost_s = None
                with self._changed:
                    self._newest = np.asarray(image, np.uint8)
                    self._changed.notify()
                continue
            lost_s = lost_s or time.monotonic()
            if time.monotonic() - lost_s > _LOST_S:
                return
            time.sleep(0.05)

    def read(self) -> Image | None:
        """Wait for a frame newer than the last one read; see `FrameSource.read`."""
        with self._changed:
            is_there = self._changed.wait_for(lambda: self._newest is not None or self._is_closed, _FIRST_FRAME_S)
            image, self._newest = self._newest, None
        if image is None and not (is_there and self._is_closed):
            raise CameraError(f"Camera {self._device} must send frames, but went silent. Plug it in again.")
        return image

    def close(self) -> None:
        """Stop the thread and let the camera go."""
        self._is_closed = True
        with self._changed:
            self._changed.notify()
        self._thread.join(_LOST_S)
        self._capture.release()


class ClipSource:
    """A clip in place of a camera, played once at its own pace."""

    def __init__(self, path: Path) -> None:
        self._frames = read_frames(path)
        self._started_s: float | None = None

    def read(self) -> Image | None:
        """Return the next frame when its time has come; see `FrameSource.read`."""
        frame = next(self._frames, None)
        if frame is None:
            return None
        self._started_s = self._started_s or time.monotonic() - frame.time_s
        time.sleep(max(0.0, self._started_s + frame.time_s - time.monotonic()))
        return frame.image

    def close(self) -> None:
        """Nothing is held."""


class VirtualCamera:
    """A camera that other programs see, by pyvirtualcam. The frames' size is fixed at the first one."""

    def __init__(self, fps: int, name: str | None = None) -> None:
        """Check that a virtual camera can be made here; it appears with the first frame.

        Args:
            fps: what it says of itself.
            name: the loopback device, "/dev/video10" say; the first free one where not given.

        Raises:
            CameraError: the library is missing.
        """
        try:
            self._library: Any = import_module("pyvirtualcam")
        except ImportError as error:
            raise CameraError(
                "A virtual camera needs the package pyvirtualcam, but it is not installed. "
                "Run: uv run --extra camera python -m understudy.camera"
            ) from error
        self._fps, self._name = fps, name
        self._camera: Any = None

    def send(self, image: Image) -> None:
        """Show a frame.

        Raises:
            CameraError: the system has no loopback device.
        """
        if self._camera is None:
            self._camera = self._open(image.shape[1], image.shape[0])
        if image.shape[:2] != (self._camera.height, self._camera.width):
            image = np.asarray(cv2.resize(image, (self._camera.width, self._camera.height)), np.uint8)
        self._camera.send(np.ascontiguousarray(image))

    def _open(self, width: int, height: int) -> Any:
        try:
            pixels = self._library.PixelFormat.BGR
            camera = self._library.Camera(width=width, height=height, fps=self._fps, fmt=pixels, device=self._name)
        except RuntimeError as error:
            raise CameraError(f"A virtual camera needs a free loopback device, but: {error} {_REMEDY}") from error
        print(f"The virtual camera is '{camera.device}', {width}x{height}. Press Ctrl-C to end.", flush=True)
        return camera

    def close(self) -> None:
        """Let the device go."""
        if self._camera is not None:
            self._camera.close()


_REMEDY = {
    "linux": (
        "Install v4l2loopback (Debian: apt install v4l2loopback-dkms), then run: "
        "sudo modprobe v4l2loopback exclusive_caps=1 card_label=Understudy"
    ),
    "darwin": "Install OBS Studio, start its virtual camera once, and end OBS.",
    "win32": "Install OBS Studio; its installer brings the virtual camera.",
}.get(sys.platform, "This system has none that pyvirtualcam knows.")


def relay(
    source: FrameSource,
    sink: FrameSink,
    pipeline: FramePipeline,
    problem: Callable[[], str],
    should_stop: Callable[[], bool],
    is_mirrored: bool = False,
) -> int:
    """Move frames from a camera through a pipeline to another camera, until the source ends or a stop is asked for.

    Args:
        source: gives the camera's frames.
        sink: gets what may be shown, and nothing else.
        pipeline: decides it.
        problem: why the persona may no longer be shown; "" while it may. Asked before every frame.
        should_stop: asked before every frame.
        is_mirrored: whether frames are turned left to right before they are swapped, so that the label reads well.

    Returns:
        How many frames were sent.

    Raises:
        CameraError: a camera is missing or gone.
    """
    sent, told, blocked = 0, "", ""
    while not should_stop():
        image = source.read()
        if image is None:
            break
        captured_s = time.monotonic()
        sentence = problem()
        if sentence != blocked:
            blocked = sentence
            if sentence:
                pipeline.block(sentence)
            else:
                pipeline.unblock()
        shown = pipeline.process(np.ascontiguousarray(image[:, ::-1]) if is_mirrored else image, captured_s)
        sink.send(shown.image)
        sent += 1
        state = "swapped" if shown.state is ShownState.SWAPPED else f"{shown.state}: {shown.note}"
        if state != told:
            print(state, file=sys.stderr, flush=True)
            told = state
    return sent


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="understudy.camera", description="Your camera, swapped, as a camera for other programs."
    )
    parser.add_argument("--persona", default="", metavar="NAME", help="who plays (default: the bundle's first)")
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="a bundle's directory or .zip")
    photo_persona = (
        "a persona made of one photo, as the Studio keeps it (still.png, mesh.npy, consent.json); its still plays"
    )
    parser.add_argument("--photo-persona", type=Path, metavar="FOLDER", help=photo_persona)
    parser.add_argument("--device", type=int, default=0, help="the camera's number (default 0)")
    parser.add_argument("--clip", type=Path, help="play a clip in place of the camera")
    parser.add_argument("--to", metavar="DEVICE", help="the loopback device (default: the first free one)")
    parser.add_argument("--size", default="640x480", metavar="WxH", help="what to ask of the camera")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--faces", choices=("all", "largest"), default="all", help="whose faces are swapped")
    parser.add_argument("--cover", type=CoverStyle, choices=list(CoverStyle), default=CoverStyle.BLUR)
    parser.add_argument("--mirror", action="store_true", help="turn the picture left to right")
    return parser


def _open_source(options: argparse.Namespace) -> FrameSource:
    if options.clip is not None:
        return ClipSource(options.clip)
    width, _, height = options.size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise CameraError(f"--size must be like 640x480, but got '{options.size}'. Change it.")
    return CameraSource(options.device, int(width), int(height), options.fps)


def run(options: argparse.Namespace, environment: Mapping[str, str], sink: FrameSink) -> int:
    """Set up and relay; returns how many frames were sent. The sink is closed at the end."""
    store = TrustStore(trust_folder(environment))
    settings = SwapSettings(persona=options.persona, faces=options.faces)
    verified = VerifiedSwapper.open(options.bundle, settings, "live", store, photo_persona=options.photo_persona)
    watch = ConsentWatch(verified.persona, "live", store)
    source = _open_source(options)
    try:
        inspect = RawFaceInspector()
        with (
            FramePipeline(verified.swapper, overlays=verified.overlays(), inspect=inspect) as pipeline,
            stop_requests() as should_stop,
        ):
            pipeline.set_cover(options.cover)
            return relay(source, sink, pipeline, watch.problem, should_stop, options.mirror)
    finally:
        source.close()
        sink.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        run(options, os.environ, VirtualCamera(options.fps, options.to))
    except (LiveframeError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
