"""What a training is made of, each part by itself; none of it imports TensorFlow."""

import os

import numpy as np
import pytest

from training.data.classic import resized
from training.model.checkpoint import load_checkpoint, save_checkpoint

# ---- checkpoints -----------------------------------------------------------------------------------------------


def test_newest_checkpoint_comes_back_as_it_was(tmp_path):
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, step, [np.full((3, 2), step, np.float32), np.arange(4)])
    step, (weights, rest) = load_checkpoint(tmp_path)
    assert step == 30 and (weights == 30).all() and rest.tolist() == [0, 1, 2, 3]
    assert len(list(tmp_path.glob("checkpoint-*.npz"))) == 2


def test_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    save_checkpoint(tmp_path, 10, [np.ones(5)])
    newest = save_checkpoint(tmp_path, 20, [np.ones(5) * 2])
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    step, (weights,) = load_checkpoint(tmp_path)
    assert step == 10 and (weights == 1).all()


def test_no_checkpoint_is_none(tmp_path):
    assert load_checkpoint(tmp_path) is None


def test_full_disk_leaves_the_older_checkpoint_whole(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 10, [np.ones(5)])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 20, [np.ones(5) * 2])
    monkeypatch.undo()
    assert load_checkpoint(tmp_path)[0] == 10
    assert not list(tmp_path.glob("*.tmp"))


# ---- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [224, 128, 256])
def test_pictures_of_five_channels_are_averaged_down_to_any_side(side):
    image = np.zeros((256, 256, 5), np.uint8)
    image[..., 4], image[:128, :, 1] = 90, 200
    small = resized(image, side)
    assert small.shape == (side, side, 5)
    assert (small[..., 4] == 90).all() and small[: side // 2 - 1, :, 1].min() == 200 and not small[..., 0].any()
