"""A bundle's card: written anew without measuring, its figures kept."""

from pathlib import Path

import pytest

from benchmarks.harness.tiny_bundle import INPUT_SIZE, OUTPUT_SIZE, build_tiny_bundle
from training.model_card import write_card
from understudy.bundle.bundle import Bundle, BundleError, write_manifest


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


def test_card_written_anew_keeps_its_figures(tmp_path: Path) -> None:
    folder = measured_bundle(tmp_path / "bundle")
    card = write_card(folder, []).read_text()
    assert "| c.mp4 | ada | 0.75 |" in card
    assert write_card(folder, []).read_text() == card
    assert Bundle.load(folder).read("model_card.md").decode() == card


def test_card_without_figures_wants_clips(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="Name clips"):
        write_card(build_tiny_bundle(tmp_path / "bundle"), [])
