"""What the comparison of recipes makes of its figures."""

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
