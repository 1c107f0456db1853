"""A one-shot persona far away paints what the embedded one paints."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import requests
from numpy.typing import NDArray

from benchmarks.harness.moving_face import frames
from benchmarks.harness.remote_path import compare_pixels
from benchmarks.harness.serving_process import serving
from liveframe.errors import FrameError
from liveframe.frame import Frame
from liveframe.remote.client import LocalClient, RemoteClient, RemotePolicy
from liveframe.remote.picture import Encoding
from liveframe.remote.wire import MEDIA_TYPE, encode_batch
from understudy.bundle.bundle import Bundle, default_bundle
from understudy.swap.renderer import one_shot_persona
from understudy.swap.served import ANSWER_PX, OneShotAway, ServedOneShot, crop_model, far_renderer
from understudy.swap.settings import SwapSettings, View
from understudy.swap.swapper import FaceSwapper

pytestmark = pytest.mark.timeout(300)  # a server starts, perhaps on a busy machine
NAME = "clara"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(default_bundle())


Pair = Callable[[SwapSettings], tuple[FaceSwapper, FaceSwapper]]


@pytest.fixture
def near_and_far(bundle: Bundle) -> Iterator[Pair]:
    """A persona of two references, embedded and far away."""
    references = [bundle.still(persona.name) for persona in bundle.personas[:2]]
    near = one_shot_persona(references, bundle.mixer())
    with LocalClient(ServedOneShot(references, bundle.mixer())) as client:
        far = OneShotAway(client, references)
        yield lambda settings: (
            FaceSwapper(bundle, settings, renderers={NAME: near}),
            FaceSwapper(bundle, settings, renderers={NAME: far}),
        )


@pytest.mark.parametrize(
    "settings",
    [
        SwapSettings(NAME),
        SwapSettings(NAME, own_eyes=True, own_mouth=True, keep_occluders=False, shape=0.5, strength=0.9),
        SwapSettings(NAME, view=View.MASK),
    ],
    ids=["default", "options", "mask"],
)
def test_far_persona_of_two_references_paints_the_embedded_pixels(near_and_far: Pair, settings: SwapSettings) -> None:
    near, far = near_and_far(settings)
    same = compare_pixels(near, far, frames(None, 480, 360, 40))
    assert same["frames_compared"] >= 35 and same["largest_difference"] <= 2


def test_face_larger_than_the_answer_is_painted_smaller_and_lies_where_it_should(near_and_far: Pair) -> None:
    swappers = near_and_far(SwapSettings(NAME))
    for swapper in swappers:
        swapper.warm_up()
    sessions = [swapper.open_session() for swapper in swappers]
    for index, picture in enumerate(frames(None, 1280, 960, 3)):
        one, other = (session.process(Frame(picture, index, index / 30)) for session in sessions)
        assert one.is_complete and other.is_complete
        changed = cv2.absdiff(one.image, picture)
        assert changed.max() > 40
        difference = cv2.absdiff(cv2.GaussianBlur(one.image, (0, 0), 3), cv2.GaussianBlur(other.image, (0, 0), 3))
        assert np.percentile(difference, 99.9) <= 6, "the same picture, but for its finest detail"


def test_request_of_a_face_is_small(bundle: Bundle) -> None:
    sent: list[int] = []

    class Counting(LocalClient):
        def submit(self, batch: NDArray[np.uint8], **extras: NDArray[np.float32]) -> Future[NDArray[np.uint8]]:
            sent.append(len(encode_batch(batch, Encoding.JPEG, extras=extras)))
            return super().submit(batch, **extras)

    with Counting(crop_model(bundle, NAME)) as client:
        swapper = FaceSwapper(bundle, SwapSettings(NAME), renderers={NAME: far_renderer(bundle, NAME, client)})
        swapper.warm_up()
        playing = swapper.open_session()
        for index, picture in enumerate(frames(None, 480, 360, 3)):
            assert playing.process(Frame(picture, index, index / 30)).is_complete
    assert len(sent) == 3 and max(sent) <= 30_000


def test_crop_alone_is_swapped_all_over(bundle: Bundle) -> None:
    model = crop_model(bundle, NAME)
    crop = cv2.resize(bundle.still(bundle.personas[1].name).image, (128, 128), interpolation=cv2.INTER_AREA)
    swap = model.predict(crop[None])[0]
    assert swap.shape == (ANSWER_PX, ANSWER_PX, 4)
    middle = swap[ANSWER_PX // 3 : -ANSWER_PX // 3, ANSWER_PX // 3 : -ANSWER_PX // 3, 3]
    assert np.mean(middle > 128) > 0.8 and swap[:4, :, 3].max() == 0
    both = model.predict(np.stack([crop, crop]))
    assert np.array_equal(both[0], swap) and np.array_equal(both[1], swap)


@pytest.mark.parametrize(
    ("tensor", "value", "sentence"),
    [
        ("mesh", 1e9, "must lie within"),
        ("eyes", -1e9, "must lie within"),
        ("target", 7.0, "even sides"),
        ("references", 2.0, "must be places from 0 to 0"),
    ],
)
def test_impossible_tensors_are_refused(bundle: Bundle, tensor: str, value: float, sentence: str) -> None:
    model = crop_model(bundle, NAME)
    shape = next(port.shape for port in model.spec.extras if port.name == tensor)
    with pytest.raises(FrameError, match=sentence):
        model.predict(np.zeros((1, 128, 128, 3), np.uint8), **{tensor: np.full((1, *shape), value, np.float32)})


def test_endpoint_paints_the_embedded_pixels_and_a_bad_neighbour_spoils_nobodys_request(bundle: Bundle) -> None:
    spec = crop_model(bundle, NAME).spec
    policy = RemotePolicy(deadline_s=4.0, encoding=Encoding.RAW)
    with serving(str(default_bundle())) as url, ThreadPoolExecutor(1) as pool:
        refused = pool.submit(spoil, f"{url}/predict")
        with RemoteClient(f"{url}/predict", spec, policy, parameters={"variant": NAME}) as client:
            far = FaceSwapper(bundle, SwapSettings(NAME), renderers={NAME: far_renderer(bundle, NAME, client)})
            same = compare_pixels(FaceSwapper(bundle, SwapSettings(NAME)), far, frames(None, 320, 240, 15))
        assert refused.result() == 20
    assert same["frames_compared"] == 15 and same["largest_difference"] <= 2


def spoil(url: str) -> int:
    """Send faces that nobody can have; how many were refused."""
    mesh = np.full((1, 468, 3), 1e9, np.float32)
    body = encode_batch(np.zeros((1, 128, 128, 3), np.uint8), Encoding.RAW, extras={"mesh": mesh})
    headers = {"Content-Type": f'{MEDIA_TYPE}; variant="{NAME}"'}
    answers = [requests.post(url, body, headers=headers, timeout=30) for _ in range(20)]
    return sum(answer.status_code == 400 and "must lie within" in answer.text for answer in answers)
