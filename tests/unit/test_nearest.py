"""Which reference a frame is painted from: the nearest, but never back and forth."""

import numpy as np

from understudy.swap.driver import DriverBook
from understudy.swap.mesh_warp import ReferenceFace
from understudy.swap.nearest import NearestReference, ReferenceChoice
from understudy.vision.align import mean_mesh
from understudy.vision.iris import iris_model


def reference(shift: float, side: int = 256) -> ReferenceFace:
    mesh = (mean_mesh() * np.float32(side) + np.float32([shift * side / 128, 0, 0])).astype(np.float32)
    return ReferenceFace(np.zeros((side, side, 3), np.uint8), mesh)


def test_distance_is_the_points_way_in_px_of_the_crop_whatever_the_references_size() -> None:
    nearest = NearestReference([reference(0), reference(4, 512), reference(-2)], 128)
    found = nearest.distances((mean_mesh() * np.float32(128)).astype(np.float32))
    np.testing.assert_allclose(found, [0, 4, 2], atol=1e-4)


def test_the_first_frame_shows_the_nearest_alone() -> None:
    assert ReferenceChoice().update(np.float32([3, 1, 2])) == [(1, 1.0)]


def test_two_that_are_about_as_near_do_not_take_turns() -> None:
    choice = ReferenceChoice()
    rng = np.random.default_rng(0)
    shown = {choice.update(np.float32([2, 2]) + rng.uniform(-0.2, 0.2, 2).astype(np.float32))[0][0] for _ in range(200)}
    assert len(shown) == 1


def test_a_change_is_a_fade_and_shares_add_up_to_one() -> None:
    choice = ReferenceChoice()
    for _ in range(30):
        choice.update(np.float32([1, 9]))
    shares = [dict(choice.update(np.float32([9, 1]))) for _ in range(12)]
    assert all(abs(sum(each.values()) - 1) < 1e-6 for each in shares)
    told = [each.get(1, 0.0) for each in shares]
    assert told == sorted(told) and 0 < told[0] < 0.5 and told[-1] == 1
    assert max(np.diff([0.0, *told])) < 0.3, "no frame jumps"


def test_it_does_not_change_again_at_once() -> None:
    choice = ReferenceChoice()
    ways = [np.float32([1, 9]), np.float32([9, 1])]
    shown = [choice.update(ways[frame // 3 % 2])[0][0] for frame in range(60)]
    assert np.count_nonzero(np.diff(shown)) <= 60 / 15


def test_a_track_keeps_its_choice_until_somebody_else_plays_it_or_it_is_gone() -> None:
    book, one, other = DriverBook(iris_model()), object(), object()
    choice = book.choice(7, one)
    assert book.choice(7, one) is choice
    assert book.choice(8, one) is not choice
    assert book.choice(7, other) is not choice
