"""Mosaics: parts of several faces joined to one that is nobody's."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.real_faces import SHARED, astronaut, astronaut_face
from training.data import mosaic
from training.data.join_parts import PARTS, Source, blend, common_shape, join, part_weights, trimmed
from training.data.mosaic import MAX_SIMILARITY, MosaicError, MosaicMaker, check_likeness, read_recipes
from understudy.consent.check import check, hash_files, read_record
from understudy.consent.trust_store import TrustStore
from understudy.vision.align import align, mean_mesh
from understudy.vision.mesh import FACE_OVAL, INNER_MOUTH, NOSE, OUTER_MOUTH, RIGHT_EYE

FACES = SHARED / "machine_faces_large"
SIZE = 128


def test_blend_of_one_picture_with_itself_is_that_picture() -> None:
    picture = np.random.default_rng(1).uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32)
    weight = np.zeros((SIZE, SIZE), np.float32)
    weight[:, 40:] = 1
    assert np.abs(blend([picture, picture], [weight, 1 - weight]) - picture).max() < 0.01


def test_blend_joins_coarse_bands_over_a_wide_seam_and_fine_ones_over_a_narrow() -> None:
    dark, light = np.zeros((2, 256, 256, 3), np.float32)
    light += 200
    stripes = np.where(np.arange(256) % 4 < 2, 50.0, -50.0).astype(np.float32)
    weight = np.zeros((256, 256), np.float32)
    weight[:, 128:] = 1
    step = blend([light, dark], [weight, 1 - weight])[128, :, 0]
    assert np.abs(np.diff(step)).max() < 20  # of 200: no edge is left
    fine = blend([dark + stripes[:, None], dark], [weight, 1 - weight])[128, :, 0]
    assert np.abs(fine[:116]).max() < 5 and np.abs(fine[140:]).min() > 25  # gone within 12 px


def test_part_weights_are_one_together_and_hold_their_own_features() -> None:
    mesh = mean_mesh() * np.float32(SIZE)
    weights = part_weights(mesh, SIZE)
    assert set(weights) == set(PARTS)
    assert np.abs(sum(weights.values()) - 1).max() < 1e-6  # type: ignore[operator]
    for part, points in (("eyes", RIGHT_EYE), ("nose", NOSE[:3]), ("mouth", INNER_MOUTH)):
        x, y = mesh[list(points), :2].mean(0).round().astype(int)
        assert weights[part][y, x] == 1
    assert weights["skin"][2, 2] == 1


def test_common_shape_of_one_face_is_its_own_aligned_shape() -> None:
    mesh = astronaut_face().mesh
    assert mesh is not None
    shape = common_shape(dict.fromkeys(PARTS, mesh), SIZE)
    assert np.abs(shape[:, :2] - align(astronaut(), astronaut_face(), SIZE).mesh[:, :2]).max() < 0.01


def test_common_shape_takes_a_wider_mouth_from_its_face_alone() -> None:
    mesh = astronaut_face().mesh
    assert mesh is not None
    wide = mesh.copy()
    mouth = [*OUTER_MOUTH, *INNER_MOUTH]
    wide[mouth, 0] = (wide[mouth, 0] - wide[mouth, 0].mean()) * 1.3 + wide[mouth, 0].mean()
    plain = common_shape(dict.fromkeys(PARTS, mesh), SIZE)
    shape = common_shape({**dict.fromkeys(PARTS, mesh), "mouth": wide}, SIZE)

    def width(of: np.ndarray) -> float:
        return float(of[291, 0] - of[61, 0])

    assert width(shape) > 1.02 * width(plain)
    assert np.abs(shape - plain)[list(RIGHT_EYE)].max() < 0.3
    assert np.abs(shape - plain)[list(FACE_OVAL)].max() < 1.0


def test_parts_of_one_face_join_to_that_face() -> None:
    face = astronaut_face()
    assert face.mesh is not None
    source = Source(astronaut(), face.mesh, np.zeros(128, np.float32))
    joined = join(dict.fromkeys(PARTS, source), SIZE).astype(int)
    aligned = align(astronaut(), face, SIZE).crop.astype(int)
    inner = slice(SIZE // 8, -SIZE // 8)
    assert np.abs(joined - aligned)[inner, inner].mean() < 4  # cubic against averaged sampling


def test_even_light_makes_the_halves_alike_and_leaves_an_even_face() -> None:
    mesh = mean_mesh() * np.float32(SIZE)

    def cheeks(slope: float, even: float) -> tuple[float, float]:
        light = 120 * np.exp(np.linspace(-slope, slope, SIZE))[None, :, None]
        image = np.broadcast_to(light, (SIZE, SIZE, 3)).round().astype(np.uint8)
        joined = join(dict.fromkeys(PARTS, Source(image, mesh, np.zeros(128, np.float32))), SIZE, even)
        return float(joined[60:80, 40:50].mean()), float(joined[60:80, 78:88].mean())

    assert cheeks(0.0, 1.0) == pytest.approx((120, 120), abs=1)
    left, right = cheeks(0.5, 0.0)
    assert right - left > 30
    left, right = cheeks(0.5, 1.0)
    assert abs(right - left) < 6


def test_trimming_draws_the_mesh_in_to_the_skin_and_leaves_a_face_of_skin_alone() -> None:
    mesh = mean_mesh() * np.float32(256)
    image = np.full((256, 256, 3), (110, 130, 180), np.uint8)
    assert np.array_equal(trimmed(mesh, image), mesh)

    oval = mesh[list(FACE_OVAL)]
    jaw = oval[oval[:, 1] > 145, 0].min() + 10
    image[140:, : int(jaw)] = (200, 60, 40)  # a blue curtain beside and before the jaw
    drawn_in = trimmed(mesh, image)
    low = [point for point in FACE_OVAL if mesh[point, 1] > 145 and mesh[point, 0] < jaw - 3]
    assert low and (drawn_in[low, 0] >= jaw - 2).all()
    assert np.abs(drawn_in - mesh)[list(NOSE)].max() < 0.5
    right = [point for point in FACE_OVAL if mesh[point, 0] > 128]
    assert np.abs(drawn_in - mesh)[right].max() < 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[[persona]]\nname = "a"\nskin = "1"\neyes = "2"\nnose = "3"\n', "must name a face for each"),
        ('[[persona]]\nname = "a"\nskin = "1"\neyes = "2"\nnose = "3"\nmouth = "4"\near = "5"\n', "names .*ear"),
        ('[[persona]]\nname = "a"\nskin = "1"\neyes = "2"\nnose = "3"\nmouth = "1"\n', "at least 4 faces"),
    ],
)
def test_recipe_of_too_few_or_unknown_parts_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "personas.toml").write_text(text)
    with pytest.raises(MosaicError, match=sentence):
        read_recipes(tmp_path / "personas.toml")


def test_brows_come_with_the_eyes_and_the_forehead_with_the_skin(tmp_path: Path) -> None:
    text = '[[persona]]\nname = "ada"\nskin = "1"\neyes = "2"\nnose = "3"\nmouth = "4"\n'
    (tmp_path / "personas.toml").write_text(text)
    (recipe,) = read_recipes(tmp_path / "personas.toml")
    assert recipe.title == "Ada" and recipe.parts["brows"] == "2" and recipe.parts["forehead"] == "1"


def test_shipped_recipes_are_eight_or_more_of_four_faces_or_more_each() -> None:
    recipes = read_recipes(mosaic.RECIPES)
    assert len({recipe.name for recipe in recipes}) == len(recipes) >= 8
    assert all(len(set(recipe.parts.values())) >= 4 for recipe in recipes)


def test_mosaic_as_like_as_its_source_is_refused() -> None:
    check_likeness("ada", {"1": MAX_SIMILARITY - 0.01, "2": 0.1})
    with pytest.raises(MosaicError, match=r"0\.60 like 2"):
        check_likeness("ada", {"1": 0.1, "2": MAX_SIMILARITY})


@pytest.mark.skipif(not FACES.is_dir(), reason="needs ../shared/data/machine_faces_large")
def test_four_parts_of_one_face_are_refused_and_a_shipped_recipe_is_signed_and_unlike_its_sources(
    tmp_path: Path,
) -> None:
    maker, recipe = MosaicMaker(FACES, 256), read_recipes(mosaic.RECIPES)[0]
    with pytest.raises(MosaicError, match=r"less than 0\.6 like each of its sources"):
        maker.make(mosaic.Recipe("ada", "Ada", dict.fromkeys(PARTS, recipe.parts["skin"])))

    made = maker.make(recipe)
    assert max(made.likeness.values()) < MAX_SIMILARITY and set(made.likeness) == set(recipe.parts.values())
    assert made.image.shape == (256, 256, 3)
    rigid = [33, 133, 362, 263, 168, 6, 2, 61, 291, 164]
    assert np.abs(made.mesh[rigid, :2] - mean_mesh()[rigid, :2] * 256).mean() < 8  # aligned

    trust = TrustStore(tmp_path / "home")
    mosaic.write_persona(made, recipe, FACES, tmp_path / recipe.name, trust)
    folder = tmp_path / recipe.name
    record = read_record(folder / "consent.json")
    check(record, "live", trust.read(), persona=recipe.name, faces=hash_files([folder / "reference.png"]))
    assert record.consent.kind == "synthetic"
    assert record.consent.recipe == json.loads((folder / "sources.json").read_text())
    assert np.load(folder / "mesh.npy").shape == (468, 3)


def test_command_says_which_file_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mosaic.main(["--faces", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "cannot be read" in capsys.readouterr().err
