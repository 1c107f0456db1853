"""The app in a process of its own, and headless Chromium with a clip as its camera."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Playwright, sync_playwright

from benchmarks.harness.camera_clips import astronaut_frames, write_y4m
from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import PERSONAS

ROOT = Path(__file__).resolve().parents[2]
START_S = 60
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-loopback-in-peer-connection",  # in a network of its own there is nothing else (tests/support/outside.py)
    "--autoplay-policy=no-user-gesture-required",
]
FAKE_CAMERA = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]


@dataclass(frozen=True)
class RunningApp:
    """The app, served.

    Attributes:
        address: its page.
        process: the server.
        log: what it printed.
    """

    address: str
    process: "subprocess.Popen[bytes]"
    log: Path


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's Chromium."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium on the path: apt-get install chromium")
    return path


@pytest.fixture(scope="package")
def playwright_driver() -> Iterator[Playwright]:
    """Playwright keeps an event loop running in the main thread: it must end before other tests start their own."""
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def astronaut_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The public-domain face, moving, as a camera."""
    return write_y4m(tmp_path_factory.mktemp("clips") / "astronaut.y4m", astronaut_frames())


@pytest.fixture(scope="session")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's folder: the tiny bundle's consent records are signed with its key."""
    return tmp_path_factory.mktemp("trust")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, trust: Path) -> Path:
    """Two personas in flat colours."""
    return build_consented_bundle(tmp_path_factory.mktemp("bundle") / "tiny", PERSONAS, trust)


@pytest.fixture(scope="package")
def serve(tmp_path_factory: pytest.TempPathFactory, trust: Path) -> Iterator[Callable[..., RunningApp]]:
    """Start the app as the README says, with environment variables; tests that ask for the same ones share it."""
    running: dict[tuple[tuple[str, str], ...], RunningApp] = {}
    with ExitStack() as stack:

        def start(**environment: str) -> RunningApp:
            environment = {"UNDERSTUDY_HOME": str(trust), **environment}
            key = tuple(sorted(environment.items()))
            if key not in running:
                running[key] = _start_app(tmp_path_factory.mktemp("app") / "app.log", environment)
                stack.callback(_stop_app, running[key])
            return running[key]

        yield start


@pytest.fixture(scope="package")
def browsers(
    chromium: str, playwright_driver: Playwright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., BrowserContext]]:
    """Start a browser whose camera is a clip; tests that ask for the same one share it."""
    running: dict[tuple[Path | None, ...], BrowserContext] = {}
    with ExitStack() as stack:

        def launch(clip: Path | None, *extra: str) -> BrowserContext:
            key = (clip, *map(Path, extra))
            if key not in running:
                camera = [f"--use-file-for-fake-video-capture={clip}"] if clip else []
                running[key] = playwright_driver.chromium.launch_persistent_context(
                    tmp_path_factory.mktemp("profile"),
                    executable_path=chromium,
                    headless=True,
                    viewport={"width": 1280, "height": 900},
                    args=[
                        *QUIET,
                        "--use-fake-ui-for-media-stream",
                        "--use-fake-device-for-media-stream",
                        *camera,
                        *extra,
                    ],
                )
                stack.callback(running[key].close)
            return running[key]

        yield launch


@pytest.fixture
def used_browsers(tmp_path: Path) -> list[BrowserContext]:
    """The browsers that the test opened; a failure leaves their pages' screenshots in `tmp_path`."""
    return []


@pytest.fixture
def open_browser(
    browsers: Callable[..., BrowserContext], used_browsers: list[BrowserContext]
) -> Iterator[Callable[..., BrowserContext]]:
    """Open a browser whose camera is a clip; the test's pages are closed at its end."""

    def open_(clip: Path | None, *extra: str) -> BrowserContext:
        used_browsers.append(browsers(clip, *extra))
        return used_browsers[-1]

    yield open_
    for page in [page for context in used_browsers for page in context.pages]:
        page.close()


def _start_app(log: Path, environment: dict[str, str]) -> RunningApp:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", f"--server.port={port}", "--server.headless=true"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
    address = f"http://localhost:{port}"
    deadline = time.monotonic() + START_S
    while not _answers(f"{address}/_stcore/health"):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"the app did not start:\n{log.read_text()}")
        time.sleep(0.1)
    return RunningApp(address, process, log)


def _stop_app(app: RunningApp) -> None:
    app.process.send_signal(signal.SIGTERM)
    try:
        app.process.wait(10)
    except subprocess.TimeoutExpired:
        app.process.kill()
        app.process.wait(10)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where a browser test fails, leave what its pages showed in the test's own folder, and say where."""
    report = yield
    if report.when == "call" and report.failed:
        contexts = item.funcargs.get("used_browsers", [])
        for number, page in enumerate(page for context in contexts for page in context.pages):
            path = item.funcargs["tmp_path"] / f"failure-{number}.png"
            page.screenshot(path=path, full_page=True)
            report.sections.append(("screenshot", str(path)))
    return report
