"""A release travels as a JSON object: nothing in it is lost, misspelt or made up on the way."""

import json
from dataclasses import asdict

import pytest

from pipelines.chain import Release, ReleaseError

LEAST = {"clips": ["a.mp4"], "held_out": ["b.mp4"], "config": "c.toml", "trust": "keys", "tracking": ""}


def test_a_release_comes_back_from_json_as_it_was_and_vertex_ais_floats_are_counts() -> None:
    release = Release(**LEAST, overrides=["batch=2"], count=32, is_dry_run=False)
    text = json.dumps(asdict(release))
    assert json.dumps(asdict(Release.from_json(json.loads(text)))) == text
    count = Release.from_json({**LEAST, "count": 32.0}).count
    assert count == 32 and isinstance(count, int)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({**LEAST, "held-out": []}, "A release has no held-out. It has clips, held_out,"),
        ({"clips": ["a.mp4"], "held_out": ["b.mp4"]}, "A release needs config, tracking, trust too."),
        ({**LEAST, "count": 1.5}, "A release's count must be a whole number, but it is 1.5."),
    ],
)
def test_what_is_no_release_is_refused_with_a_sentence(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ReleaseError, match=sentence):
        Release.from_json(wrong)
