"""How long people wait for the pages: `python -m benchmarks.app_speed` prints one JSON object.

Page scripts run again (against an empty page, in turn); a click on another persona until it is in the picture; a photo
handed in until it plays. On Streamlit's own test runner: what a browser and the network add is not in it. The clicks
wait for a moving stream, as on the Live page, one frame after another.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from streamlit.testing.v1 import AppTest

from benchmarks.harness.live_stage import HandCamera, admitted, offered_names, open_page, pick
from benchmarks.harness.machine import machine
from benchmarks.harness.moving_face import frames
from benchmarks.harness.pages import fresh_app, no_worker
from benchmarks.harness.timing import Figures, in_turn, ratio, rows, spread, spreads
from liveframe.gate import ShownState
from understudy.bundle.bundle import default_bundle

Image = NDArray[np.uint8]
_PATIENCE_S = 60.0


def _empty() -> None:
    import streamlit as st

    st.title("Nothing")


def _studio() -> None:
    from ui.studio import page as studio

    studio.page()


def _convert() -> None:
    from ui.convert import page as convert

    convert.page()


def _models() -> None:
    from ui.models import page as models

    models.page()


def reruns(rounds: int, clip: bytes) -> Figures:
    """Time runs of every page's script, in turn with an empty one; three clips wait on Convert."""
    scripts = {"empty": _empty, "studio": _studio, "models": _models, "convert": _convert}
    pages = {name: AppTest.from_function(script, default_timeout=60).run() for name, script in scripts.items()}
    pages["live"] = open_page()
    for number in range(3):
        pages["convert"].file_uploader[0].set_value([(f"{number}.mp4", clip, "video/mp4")]).run()
        pages["convert"].button(key="convert").click().run()
    calls: dict[str, Callable[[], object]] = {name: page.run for name, page in pages.items()}
    times = in_turn(calls, rounds)
    ratios = {f"{name}_to_empty_ratio": ratio(times[name], times["empty"]) for name in times if name != "empty"}
    return {**spreads(times), **ratios}


def switches(page: AppTest, pictures: Sequence[Image], rounds: int) -> list[float]:
    """Time clicks on other personas, each until the picture shows whom it will show from then on, ms."""
    names = offered_names(page)
    camera = HandCamera(admitted())
    camera.send_until(ShownState.SWAPPED, pictures[0])
    for name in names:  # the first click on a persona loads it: not what somebody feels who goes to and fro
        pick(page, name)
        camera.send_until(ShownState.SWAPPED, pictures[0])
    return [_switch(page, camera, names[step % len(names)], pictures[0]) for step in range(rounds)]


def _switch(page: AppTest, camera: HandCamera, name: str, picture: Image) -> float:
    """Time one click, ms. The camera stands still, so that only the persona changes the picture."""
    before = _standing(camera, picture)
    start_s = time.perf_counter()
    pick(page, name)
    return (_arrival_s(camera, picture, before) - start_s) * 1e3


def _standing(camera: HandCamera, picture: Image) -> tuple[Image, float]:
    """Return what is shown of a standing picture, and how much that changes by itself: the watermark moves."""
    shown = [camera.send_until(ShownState.SWAPPED, picture) for _ in range(8)]
    return shown[-1], float(np.median([_off(one, other) for one, other in pairwise(shown)]))


def _arrival_s(camera: HandCamera, picture: Image, before: tuple[Image, float]) -> float:
    """Send frames until a swapped one shows somebody else; returns when, time.perf_counter() seconds.

    Raises:
        RuntimeError: nobody came within a minute.
    """
    start_s = time.perf_counter()
    while time.perf_counter() - start_s < _PATIENCE_S:
        shown = camera.send(picture)
        if admitted().pipeline.stats().state is ShownState.SWAPPED and _off(shown, before[0]) > 3 * before[1]:
            return time.perf_counter()
    raise RuntimeError("Another persona must come within a minute, but did not. Choose one on the Live page to see.")


def _off(one: Image, other: Image) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def instant_personas(live: AppTest, photo: bytes, picture: Image, rounds: int) -> list[float]:
    """Time the way from “Make the persona” until it plays on the Live page, ms."""
    camera = HandCamera(admitted())
    times_ms: list[float] = []
    for number in range(rounds):
        studio = _filled(AppTest.from_function(_studio, default_timeout=60).run(), f"Nobody {number}", photo)
        before = _standing(camera, picture)
        start_s = time.perf_counter()
        studio.button(key="make_persona").click().run()
        live.run()
        pick(live, f"nobody-{number}")
        times_ms.append((_arrival_s(camera, picture, before) - start_s) * 1e3)
        pick(live, offered_names(live)[0])
    return times_ms


def _filled(studio: AppTest, title: str, photo: bytes) -> AppTest:
    """Fill in the Studio's form."""
    if any(button.key == "new_persona" for button in studio.button):
        studio.button(key="new_persona").click().run()
    studio.text_input(key="persona_title").set_value(title)
    studio.file_uploader(key="face_file").set_value(("photo.png", photo, "image/png"))
    studio.button_group(key="face_of").set_value("person").run()
    studio.text_input(key="consent_subject").set_value("Nobody: a machine-made face")
    studio.file_uploader(key="form-False").set_value(("form.pdf", b"%PDF-1.4 signed", "application/pdf"))
    studio.checkbox(key="agreed-person").check()
    return studio.run()


def measure(bundle: Path | None, folder: Path, rounds: int) -> Figures:
    """Run everything on a fresh work folder; without a bundle, with two flat-coloured personas."""
    picture = frames(None, 640, 480, 1)[0]
    clip = _clip(folder / "clip.mp4", frames(None, 320, 240, 20))
    photo = (default_bundle() / "nils" / "reference.png").read_bytes()  # not the camera's face: that stays covered
    with pytest.MonkeyPatch.context() as patch, fresh_app(folder, patch, bundle=bundle), no_worker():
        pages = reruns(rounds, clip)
        live = open_page()
        changes = spread("switch", switches(live, [picture], rounds))
        made = spread("made", instant_personas(live, photo, picture, max(3, rounds // 4)))
    return {**rows("rerun", pages), **rows("persona", changes), **rows("instant", made)}


def _clip(path: Path, pictures: Sequence[Image]) -> bytes:
    size = (pictures[0].shape[1], pictures[0].shape[0])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, size)
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path.read_bytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.app_speed", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options.bundle.resolve(), Path(folder), options.rounds)
    report: dict[str, Any] = {"machine": before, "load_average_after": machine()["load_average"], **figures}
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
