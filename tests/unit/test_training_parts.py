"""What a training is made of, each part by itself; none of it imports TensorFlow."""

import hashlib
import json
import os

import numpy as np
import pytest

from tests.support.real_faces import astronaut, astronaut_face
from training.data.augment import Augmentation, augment, camera_faults, occlude, plain, resized
from training.data.pairs import CANVAS_PX, CROP_PX, PairedFaceset, PairsError, split_by_file
from training.model.checkpoint import load_checkpoint, save_checkpoint
from understudy.vision.align import align
from understudy.vision.reenact import face_mask


def canvas():
    face = align(astronaut(), astronaut_face(), CANVAS_PX)
    mask = face_mask(face.mesh, CANVAS_PX)
    return face.crop, np.dstack([mask, mask // 2])


# ---- augmentation ----------------------------------------------------------------------------------------------

STILL = Augmentation(turn_deg=0, shrink=1, grow=1, shift=0, flip=0, colour=0, faults=0, occluders=0)


def test_augmentation_that_does_nothing_gives_the_plain_pair():
    crop, maps = canvas()
    rng = np.random.default_rng(0)
    face, (target,) = augment(rng, crop, maps, [crop], STILL, crop)
    plain_face, (plain_target,) = plain(crop, maps, [crop])
    assert face.shape == (CROP_PX, CROP_PX, 3) and target.shape == (CROP_PX, CROP_PX, 5)
    np.testing.assert_array_equal(face, plain_face)
    np.testing.assert_array_equal(target, plain_target)


def test_input_and_targets_are_turned_and_lit_alike():
    crop, maps = canvas()
    how = Augmentation(faults=0, occluders=0, colour=1)
    for seed in range(8):
        face, (target,) = augment(np.random.default_rng(seed), crop, maps, [crop], how, crop)
        np.testing.assert_array_equal(face, target[..., :3])


def test_mask_is_zero_where_something_hides_the_face():
    crop, maps = canvas()
    how = Augmentation(turn_deg=0, shrink=1, grow=1, shift=0, flip=0, colour=0, faults=0, occluders=1)
    plain_face, (plain_target,) = plain(crop, maps, [crop])
    hidden_any = 0
    for seed in range(12):
        face, (target,) = augment(np.random.default_rng(seed), crop, maps, [crop], how, crop[::-1])
        was_face = plain_target[..., 3] > 128
        hidden = was_face & (target[..., 3] < 10)
        hidden_any += hidden.any()
        seen = was_face & (target[..., 3] == plain_target[..., 3])
        assert np.abs(face.astype(int) - plain_face)[seen].mean() < 3
        np.testing.assert_array_equal(target[..., :3], plain_target[..., :3])
    assert hidden_any >= 10


def test_faults_and_occluders_leave_their_arguments_alone():
    crop, maps = canvas()
    before = crop.copy()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        camera_faults(rng, crop)
        occlude(rng, crop, maps[..., 0], crop)
    np.testing.assert_array_equal(crop, before)


def test_same_seed_gives_the_same_pair():
    crop, maps = canvas()
    first = augment(np.random.default_rng((1, 7)), crop, maps, [crop], Augmentation(), crop)
    again = augment(np.random.default_rng((1, 7)), crop, maps, [crop], Augmentation(), crop)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1][0], again[1][0])


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


# ---- pairs -----------------------------------------------------------------------------------------------------


def test_pairs_of_other_drivers_are_not_mixed(tmp_path):
    PairedFaceset.create(tmp_path, [("a.jpg", 0), ("b.mp4", 7)])
    assert PairedFaceset.create(tmp_path, [("a.jpg", 0), ("b.mp4", 7)]).index.count == 2
    with pytest.raises(PairsError, match="other drivers"):
        PairedFaceset.create(tmp_path, [("c.jpg", 0)])


def test_the_files_that_drivers_come_from_are_listed_by_content(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"one")
    (tmp_path / "b.mp4").write_bytes(b"one")
    names = [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), str(tmp_path / "gone.mp4")]
    PairedFaceset.create(tmp_path / "pairs", [(name, frame) for name in names for frame in (0, 5)])
    assert PairedFaceset(tmp_path / "pairs").source_digests() == [hashlib.sha256(b"one").hexdigest()]


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(["a.mp4"] * 240 + ["b.mp4"] * 240, id="two clips"),
        pytest.param([f"{number}.jpg" for number in range(3)], id="three pictures"),
        pytest.param([f"{number // 50}.mp4" for number in range(500)] + ["x.jpg"] * 1, id="clips and a picture"),
    ],
)
def test_no_file_is_in_training_and_in_validation(files):
    validation, training = split_by_file(files, 96, seed=1)
    assert len(validation) and len(training)
    assert sorted([*validation, *training]) == list(range(len(files)))
    assert not {files[row] for row in validation} & {files[row] for row in training}


def test_of_a_single_clip_the_last_frames_are_held_out():
    validation, training = split_by_file(["a.mp4"] * 10, 2, seed=1)
    assert sorted(validation) == [8, 9] and sorted(training) == list(range(8))


def test_persona_counts_only_when_all_its_targets_are_written(tmp_path):
    pairs = PairedFaceset.create(tmp_path, [("a.jpg", 0), ("b.jpg", 0)])
    from understudy.vision.reenact import ReferenceFace

    still = ReferenceFace(np.zeros((8, 8, 3), np.uint8), np.zeros((468, 3), np.float32))
    pairs.add_persona("ada", [still], {"kind": "composite"})
    pairs.mark_done("ada", 1)
    assert pairs.personas == []
    pairs.mark_done("ada", 2)
    assert PairedFaceset(tmp_path).personas == ["ada"]


def test_pairs_aligned_in_another_way_are_refused(tmp_path):
    PairedFaceset.create(tmp_path, [("a.jpg", 0)])
    index = json.loads((tmp_path / "pairs.json").read_text())
    (tmp_path / "pairs.json").write_text(json.dumps({**index, "alignment": 0}))
    with pytest.raises(PairsError, match="aligned in another way"):
        PairedFaceset(tmp_path)


def test_folder_without_pairs_says_how_to_make_them(tmp_path):
    with pytest.raises(PairsError, match=r"training\.reenact"):
        PairedFaceset(tmp_path / "none")


@pytest.mark.parametrize("side", [224, 128, 256])
def test_pictures_of_five_channels_are_averaged_down_to_any_side(side):
    image = np.zeros((256, 256, 5), np.uint8)
    image[..., 4], image[:128, :, 1] = 90, 200
    small = resized(image, side)
    assert small.shape == (side, side, 5)
    assert (small[..., 4] == 90).all() and small[: side // 2 - 1, :, 1].min() == 200 and not small[..., 0].any()
