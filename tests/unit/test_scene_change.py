"""A glance at the scene tells an arrival from a cut from nothing."""

import cv2
import numpy as np

from understudy.vision.scene_change import Change, SceneWatch


def room(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(40, 216, (30, 40, 3), dtype=np.uint8)
    return cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)


def shaken(image: np.ndarray, seed: int) -> np.ndarray:
    """Camera noise and a little change of exposure."""
    grain = np.random.default_rng(seed).normal(seed % 3 * 4, 5, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def watching(image: np.ndarray) -> SceneWatch:
    watch = SceneWatch()
    watch.update(image, [])
    watch.mark()
    return watch


def test_noise_and_exposure_are_no_news() -> None:
    watch = watching(room())
    assert {watch.update(shaken(room(), seed), []) for seed in range(10)} == {Change.NONE}


def test_something_the_size_of_a_small_face_is_an_arrival_until_it_is_marked() -> None:
    watch, image = watching(room()), room()
    cv2.ellipse(image, (500, 200), (30, 40), 0, 0, 360, (250, 250, 250), -1)
    assert watch.update(image, []) is Change.ARRIVAL
    assert watch.update(image, []) is Change.ARRIVAL
    watch.mark()
    assert watch.update(image, []) is Change.NONE


def test_what_moves_inside_a_known_face_is_no_news() -> None:
    watch, image = watching(room()), room()
    cv2.ellipse(image, (500, 200), (30, 40), 0, 0, 360, (250, 250, 250), -1)
    assert watch.update(image, [np.array([460, 150, 540, 250], np.float32)]) is Change.NONE


def test_another_picture_is_a_cut_and_the_next_frame_of_it_is_not() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 640, dtype=np.uint8)[None, :, None], (480, 640, 3))
    watch, other = watching(ramp), np.ascontiguousarray(ramp[:, ::-1])
    assert watch.update(other, []) is Change.CUT
    assert watch.update(shaken(other, 0), []) is Change.NONE


def test_box_outside_the_picture_is_harmless() -> None:
    watch = watching(room())
    assert watch.update(room(), [np.array([-900, -900, -100, -100], np.float32)]) is Change.NONE
