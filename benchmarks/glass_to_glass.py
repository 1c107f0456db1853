"""How late a viewer's picture is: `python -m benchmarks.glass_to_glass` prints one JSON object.

Headless Chromium on this machine opens the Live page with a clip as its camera. Every frame carries its number in a
barcode, which is read off the camera's picture and off what comes back, by one clock. The shipped persona (`swap`) and
the same relay with swapping off (`bare`) take turns in one stream, and WebRTC and WebSocket take turns round by round.
`--write README.md` puts the table between its marks there.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import BrowserContext, sync_playwright

from benchmarks.harness.camera_clips import write_y4m
from benchmarks.harness.live_page import BARCODE_READER, LivePage
from benchmarks.harness.machine import machine
from benchmarks.harness.moving_face import frames
from benchmarks.harness.ports import free_port
from benchmarks.harness.report_text import put_between
from benchmarks.harness.timing import Figures, rows, spread
from benchmarks.tables.whole_path import SIZES, Row, crowd
from understudy.bundle.bundle import Bundle, default_bundle
from understudy.swap.swapper import FaceSwapper

ROOT = Path(__file__).resolve().parent.parent
RELAYS = ("webrtc", "websocket")
MODES = ("bare", "swap")
CLIP_FRAMES = 300  # ten seconds: a frame that comes back is never taken for one of the round before
SETTLE_S = 3.0  # after a change, before anything counts
_SCRIPT = Path(__file__).with_suffix(".js")
_START_S = 90.0
_CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
_TITLES = {"webrtc": "WebRTC", "websocket": "WebSocket", "bare": "bare relay", "swap": "swap"}

Seen = Sequence[tuple[int, float]]
"""Frame numbers and when they were presented, ms, in that order."""


def measure(bundle: Path, rounds: int, seconds: float, chromium: str) -> Figures:
    """Run Chromium against the app.

    Args:
        bundle: whose first persona plays.
        rounds: how often every relay has its turn.
        seconds: of every mode, each time.
        chromium: the program.

    Returns:
        By `<relay>.<mode>.<figure>`: fps, and latency's median and 95th percentile.
    """
    seen: dict[str, list[tuple[Seen, Seen]]] = {f"{relay}.{mode}": [] for relay in RELAYS for mode in MODES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clip = write_y4m(folder / "camera.y4m", frames(None, 640, 480, CLIP_FRAMES))
        addresses = {relay: stack.enter_context(served(bundle, relay, folder / relay)) for relay in RELAYS}
        browser = stack.enter_context(browser_with(clip, folder / "profile", chromium))
        for _ in range(rounds):
            for relay, address in addresses.items():
                for mode, sight in watched(browser, address, relay, seconds).items():
                    seen[f"{relay}.{mode}"].append(sight)
    return {key: value for name, sights in seen.items() for key, value in rows(name, figures(sights)).items()}


@contextmanager
def served(bundle: Path, relay: str, folder: Path) -> Iterator[str]:
    """Serve the app, with a work folder of its own; returns its address.

    Raises:
        RuntimeError: it does not answer in time.
    """
    port = free_port()
    settings = {"UNDERSTUDY_BUNDLE": bundle, "UNDERSTUDY_RELAY": relay, "UNDERSTUDY_WORK": folder / "work"}
    environment = os.environ | {name: str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "streamlit", "run", "app.py", f"--server.port={port}", "--server.headless=true"]
    app = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://localhost:{port}"
        _await_answer(f"{address}/_stcore/health")
        yield address
    finally:
        app.send_signal(signal.SIGTERM)
        try:
            app.wait(10)
        except subprocess.TimeoutExpired:
            app.kill()
            app.wait()


@contextmanager
def browser_with(clip: Path, profile: Path, chromium: str) -> Iterator[BrowserContext]:
    """Start Chromium with a clip as its camera."""
    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile,
            executable_path=chromium,
            headless=True,
            args=[*_CHROMIUM, f"--use-file-for-fake-video-capture={clip}"],
        )
        reader = f"const READER = {json.dumps(BARCODE_READER)};"
        context.add_init_script(script=reader + BARCODE_READER + _SCRIPT.read_text())  # the order of several is open
        try:
            yield context
        finally:
            context.close()


def watched(browser: BrowserContext, address: str, relay: str, seconds: float) -> dict[str, tuple[Seen, Seen]]:
    """Open the page, start the camera, and watch every mode in turn.

    Returns:
        By mode: camera frames as they were presented, and shown ones.
    """
    live = LivePage(browser, address, is_webrtc=relay == "webrtc")
    try:
        live.start()
        sights: dict[str, tuple[Seen, Seen]] = {}
        for mode in MODES:  # bare first: what a browser buffers for an uneven stream it gives up slowly
            live.page.get_by_text("Show my own camera").click()
            live.wait_for_state("Not swapped" if mode == "bare" else "Swapped")
            live.wait(SETTLE_S)
            sights[mode] = sight(live, seconds)
        return sights
    finally:
        live.page.close()


def sight(live: LivePage, seconds: float) -> tuple[Seen, Seen]:
    """Collect what is presented from now on: the camera's frames, and the shown ones."""
    live.ask("() => { glass.sent.length = glass.shown.length = 0; }")
    live.wait(seconds)
    sent, shown = live.ask("() => [glass.sent, glass.shown]")  # type: ignore[misc]
    return [(int(number), float(at)) for number, at in sent], [(int(number), float(at)) for number, at in shown]


def figures(sights: Sequence[tuple[Seen, Seen]]) -> Figures:
    """Sum up what was seen of one relay and mode."""
    latencies_ms = [value for sent, shown in sights for value in latencies(sent, shown)]
    if not latencies_ms:
        raise RuntimeError("Numbered frames must come back, but none did. Look at the page with a browser.")
    return {"fps": round(float(np.mean([fps(shown) for _, shown in sights])), 1), **spread("latency", latencies_ms)}


def latencies(sent: Seen, shown: Seen) -> list[float]:
    """Return how long each shown frame took, ms, since the camera last presented its number; repeats count once."""
    moments: dict[int, list[float]] = {}
    for number, time_ms in sent:
        moments.setdefault(number, []).append(time_ms)
    found: list[float] = []
    last: int | None = None
    for number, time_ms in shown:
        before = bisect_right(moments.get(number, []), time_ms)
        if number != last and before:
            found.append(time_ms - moments[number][before - 1])
        last = number
    return found


def fps(shown: Seen) -> float:
    """Return how many frames with new content came a second."""
    changes = sum(after[0] != before[0] for before, after in pairwise(shown))
    return changes * 1000 / (shown[-1][1] - shown[0][1]) if changes else 0.0


def server_alone(bundle: Path, count: int) -> Figures:
    """Measure the swap of one face at 720p without relay, browser and codec, one thread."""
    swapper = FaceSwapper(Bundle.load(bundle), threads=1)
    swapper.warm_up()
    row = Row(swapper.open_session(), crowd(*SIZES["720p"], 1, 24), 1)
    for _ in range(count):
        row.step()
    row.session.close()
    return {"fps": round(1e3 / float(np.median(row.wall_ms)), 1), **spread("latency", row.wall_ms)}


def as_table(report: Mapping[str, Any]) -> str:
    """Return a report as the README shows it."""
    cells = ["| 640×480, one face | frames/s | median, ms | 95 of 100 below, ms |", "|---|--:|--:|--:|"]
    for name in (*(f"{relay}.{mode}" for relay in RELAYS for mode in MODES), "server_720p"):
        title = ", ".join(_TITLES.get(part, "server alone, 1280×720, one thread") for part in name.split("."))
        values = (report[f"{name}.{key}"] for key in ("fps", "latency_p50_ms", "latency_p95_ms"))
        cells.append(f"| {title} | " + " | ".join(f"{value:.0f}" for value in values) + " |")
    made_on, load = report["machine"], report["machine"]["load_average"][0]
    priority = " by other work, over which it had priority," if report["niceness"] < 0 else ""
    words = (
        f"Camera's picture to shown picture, Chromium on the same machine: {made_on['processor']}, {made_on['cores']} "
        f"cores, at a load average of {load:.1f}{priority} before and {report['load_average_after'][0]:.1f} after. "
        "Bare and swap in one stream, in turn: `uv run python -m benchmarks.glass_to_glass`."
    )
    return "\n".join([*cells, "", words])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.glass_to_glass", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of every mode in every round")
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this Markdown file")
    options = parser.parse_args(arguments)
    before = machine()
    measured = measure(options.bundle, options.rounds, options.seconds, _program(options.chromium))
    load_after = machine()["load_average"]
    cv2.setNumThreads(1)
    measured |= rows("server_720p", server_alone(options.bundle, 150))
    report: dict[str, Any] = {"machine": before, "niceness": os.nice(0), "load_average_after": load_after, **measured}
    for relay in RELAYS:
        p95 = [report[f"{relay}.{mode}.latency_p95_ms"] for mode in ("swap", "bare")]
        report[f"{relay}.swap_to_bare_p95_ratio"] = round(p95[0] / p95[1], 2)
    print(json.dumps(report, indent=2))
    if options.write:
        put_between(options.write, "latency", as_table(report))
    return 0


def _program(name: str) -> str:
    from shutil import which

    path = which(name)
    if path is None:
        raise SystemExit(f"'{name}' must be on the path, but is not. Install Chromium (Debian: apt install chromium).")
    return path


def _await_answer(address: str) -> None:
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s:
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"The app must answer within {_START_S:g} s, but {address} does not. Start it by hand to see.")


if __name__ == "__main__":
    sys.exit(main())
