"""What the comparison of recipes makes of its figures."""

import json
from pathlib import Path

import pytest

from benchmarks import recipes

PAIRED = {"expression_pct": 2.0, "mouth_pct": 2.0, "eyes_pct": 1.0, "pose_deg": 2.0, "identity_to_persona": 0.8}
CLASSIC = {"expression_pct": 5.0, "mouth_pct": 6.0, "eyes_pct": 2.0, "pose_deg": 3.0, "identity_to_persona": 0.6}


def test_ratios_say_how_much_larger_the_classic_recipes_errors_are() -> None:
    ratios = recipes._ratios({"paired": PAIRED, "classic": CLASSIC})
    assert ratios == {
        "expression_pct": pytest.approx(2.5),
        "mouth_pct": pytest.approx(3.0),
        "eyes_pct": pytest.approx(2.0),
        "pose_deg": pytest.approx(1.5),
        "identity_error": pytest.approx(2.0),
    }


def test_figure_that_a_clip_lacks_is_none_and_has_no_ratio() -> None:
    assert recipes._mean([{"pose_deg": 1.0}, {"pose_deg": None}], "pose_deg") is None
    ratios = recipes._ratios({"paired": PAIRED, "classic": {**CLASSIC, "pose_deg": None}})
    assert ratios["pose_deg"] is None
    assert ratios["mouth_pct"] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("change", "holds"),
    [({}, True), ({"pose_deg": 2.1}, False), ({"retrieval_rank1": 0.9}, False), ({"pose_deg": None}, False)],
)
def test_gate_holds_only_when_every_figure_does(change: dict[str, float | None], holds: bool) -> None:
    assert recipes.holds_gate({**PAIRED, "retrieval_rank1": 1.0, **change}) is holds


def test_looks_of_a_run_before_are_kept_and_tell_when_the_gate_held_first(tmp_path: Path) -> None:
    held, missed = {**PAIRED, "retrieval_rank1": 1.0}, {**CLASSIC, "retrieval_rank1": 0.5}
    for recipe, played in (("paired", [missed, held, held]), ("classic", [missed] * 3)):
        (tmp_path / recipe).mkdir()
        (tmp_path / recipe / "iterations.json").write_text("30")
        looks = {step: {"network": p, "played": p} for step, p in zip((10, 20, 30), played, strict=True)}
        (tmp_path / recipe / "looks.json").write_text(json.dumps(looks))
    found = recipes.compare(tmp_path / "none", "ada", [], 12.0, tmp_path)
    assert (found["paired"]["minutes_to_gate"], found["classic"]["minutes_to_gate"]) == (8.0, None)
    assert found["paired"]["looks"] == [missed, held, held]
    assert found["paired"]["pose_deg"] == held["pose_deg"]


def test_only_the_paired_recipe_starts_from_a_bundle(tmp_path: Path) -> None:
    start = Path("bundles/default")
    paired, classic = (recipes._config(r, tmp_path, "ada", tmp_path, False, start) for r in recipes.RECIPES)
    assert (paired.start_from, paired.frozen_encoder, paired.size.bottleneck) == (str(start), True, 0)
    assert (classic.start_from, classic.frozen_encoder, classic.size.bottleneck > 0) == ("", False, True)
    assert classic.augmentation == paired.augmentation


def test_both_recipes_train_one_network_from_chance(tmp_path: Path) -> None:
    paired, classic = (recipes._config(r, tmp_path, "ada", tmp_path, True, None) for r in recipes.RECIPES)
    assert paired.size == classic.size
    assert paired.size.bottleneck > 0
    assert not paired.frozen_encoder
