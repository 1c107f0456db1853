"""The examples do what their docstrings say."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.harness.ports import free_port
from examples import own_model, serve_pictures, swap_photo
from liveframe import ShownState


def test_own_model_is_relayed_and_nothing_is_shown_raw() -> None:
    counts = own_model.main(frames=60)
    assert sum(counts.values()) == 60 and counts[ShownState.SWAPPED] > 0
    assert ShownState.OFF not in counts


def test_one_photo_is_swapped(astronaut: NDArray[np.uint8], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), astronaut)
    assert swap_photo.swap(tmp_path / "in.png", tmp_path / "out.png") == 1
    changed = cv2.absdiff(np.asarray(cv2.imread(str(tmp_path / "out.png")), np.uint8), astronaut).max(2) > 8
    assert 0.02 < changed.mean() < 0.5


@pytest.mark.timeout(180)
def test_a_face_less_model_is_served_and_relayed() -> None:
    assert serve_pictures.main(free_port(), frames=5, limit_s=150.0) == 5
