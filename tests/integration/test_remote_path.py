"""The app's whole path with the served model far away: the same pixels as with the embedded one."""

from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.harness.delayed import delayed
from benchmarks.harness.moving_face import frames
from benchmarks.harness.remote_path import compare_pixels, stream, summed
from benchmarks.harness.serving_process import serving
from benchmarks.harness.waiting import PATIENT
from liveframe.gate import Shown, ShownState
from liveframe.remote.client import RemoteClient, RemotePolicy
from liveframe.remote.picture import Encoding
from tests.support.serving_bundle import served_bundle
from understudy.bundle.bundle import Bundle
from understudy.swap.swapper import FaceSwapper, SwapSettings

pytestmark = pytest.mark.timeout(300)  # a server starts, perhaps on a busy machine
NAME = "ben"
ONE_WAY_S = 0.02


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bundle, str]]:
    with served_bundle(tmp_path_factory.mktemp("served")) as path, serving(str(path)) as url:
        yield Bundle.load(path), url


def swapper_of(bundle: Bundle, client: RemoteClient) -> FaceSwapper:
    return FaceSwapper(bundle, SwapSettings(NAME), renderers={NAME: client})


def client_of(bundle: Bundle, url: str, variant: str = NAME) -> RemoteClient:
    policy = RemotePolicy(deadline_s=4.0, encoding=Encoding.RAW)
    return RemoteClient(f"{url}/predict", bundle.swap_model(NAME).spec, policy, parameters={"variant": variant})


def test_whole_frames_of_a_far_model_are_the_embedded_ones_pixel_by_pixel(served: tuple[Bundle, str]) -> None:
    bundle, url = served
    pictures = frames(None, 320, 240, 12)
    embedded = FaceSwapper(bundle, SwapSettings(NAME))
    with delayed(url, ONE_WAY_S) as far, client_of(bundle, far) as client:
        same = compare_pixels(embedded, swapper_of(bundle, client), pictures)
    assert same["frames_compared"] >= 10 and same["largest_difference"] <= 2
    with client_of(bundle, url, "ada") as client:
        other = compare_pixels(embedded, swapper_of(bundle, client), pictures[:4])
    assert other["largest_difference"] > 20, "another persona's pictures are told from this one's"


def test_stream_through_a_far_model_keeps_its_order(
    served: tuple[Bundle, str], caplog: pytest.LogCaptureFixture
) -> None:
    bundle, url = served
    pictures = frames(None, 320, 240, 30)
    with delayed(url, ONE_WAY_S) as far, client_of(bundle, far) as client:
        seen = stream(swapper_of(bundle, client), pictures, 2, PATIENT)
    assert seen.swapped > 5 and seen.wrong_order == 0
    assert seen.swapped + seen.stood_in + seen.dropped == 60
    assert caplog.records == [], "the network's end is quiet"


def test_a_picture_that_goes_back_in_time_is_counted_and_a_held_one_is_not() -> None:
    blank = np.zeros((2, 2, 3), np.uint8)
    swapped, held, covered = ShownState.SWAPPED, ShownState.HELD, ShownState.COVERED
    seen = [(swapped, 1, 1), (held, 2, 1), (covered, 3, -1), (swapped, 5, 5), (swapped, 4, 4), (swapped, 6, 6)]
    figures = summed([Shown(blank, state, index, source, 0.0) for state, index, source in seen], 2.0, dropped=7)
    assert (figures.wrong_order, figures.swapped, figures.stood_in, figures.dropped) == (1, 4, 2, 7)
    assert figures.fps == 2.0
