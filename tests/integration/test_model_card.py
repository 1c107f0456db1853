"""A bundle's card: written anew without measuring, with the comparison of recipes in it."""

from pathlib import Path

import pytest

from benchmarks.harness.tiny_bundle import INPUT_SIZE, OUTPUT_SIZE, build_tiny_bundle
from training.model_card import write_card
from understudy.bundle.bundle import Bundle, BundleError, write_manifest

FIGURES = ("expression_pct", "mouth_pct", "eyes_pct", "pose_deg", "identity_to_persona", "retrieval_rank1")
RECIPES = {
    "minutes": 5.0,
    "paired": {"iterations": 300, "minutes_to_gate": 4.0, **dict.fromkeys(FIGURES, 0.5)},
    "classic": {"iterations": 200, **dict.fromkeys(FIGURES, 0.25), "pose_deg": None},
    "classic_to_paired": {
        "expression_pct": 3.5,
        "mouth_pct": 4.5,
        "eyes_pct": 2,
        "pose_deg": None,
        "identity_error": 7,
    },
}


def measured_bundle(folder: Path) -> Path:
    """A bundle whose figures on one clip are in it."""
    report = {"clip": "c.mp4", "persona": "ada", "coverage": 0.75}
    figures = "retrieval_rank1 nearer_persona_dlib identity_to_persona identity_to_driver pose_deg mouth_pct eyes_pct "
    figures += "jitter_ratio flicker_ratio seam_delta_e outside_psnr_db"
    build_tiny_bundle(folder, personas={"ada": "Ada"})
    shapes = {"input_shape": (INPUT_SIZE, INPUT_SIZE, 3), "output_shape": (OUTPUT_SIZE, OUTPUT_SIZE, 4)}
    training = {"evaluation": [{**dict.fromkeys(figures.split()), **report}]}
    write_manifest(folder, name="t", version="1", personas={"ada": "Ada"}, licence="CC0", training=training, **shapes)
    return folder


def test_recipes_join_a_card_whose_figures_stay(tmp_path: Path) -> None:
    folder = measured_bundle(tmp_path / "bundle")
    card = write_card(folder, [], recipes=RECIPES).read_text()
    assert "| c.mp4 | ada | 0.75 |" in card
    assert "| mouth_pct | 0.5 | 0.25 | 4.5 |" in card
    assert "| identity_to_persona | 0.5 | 0.25 | 7 |" in card
    assert "| pose_deg | 0.5 | - | - |" in card
    assert "after 4 min (paired) and never (classic)" in card
    assert Bundle.load(folder).manifest.training["recipes"] == RECIPES
    assert "Paired against classic" in write_card(folder, []).read_text(), "it stays when the text is written anew"


def test_card_without_figures_wants_clips(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="Name clips"):
        write_card(build_tiny_bundle(tmp_path / "bundle"), [])
