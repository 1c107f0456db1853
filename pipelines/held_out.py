"""Clips that a model is judged by must be none that it learned from: compared by content, not by name."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.gates import Verdict
from training.data.read_sources import file_digest
from understudy.bundle.bundle import Bundle


def learned_from(training: Mapping[str, Any]) -> frozenset[str]:
    """Return the SHA-256 of every file that a bundle's networks learned from, as its manifest lists them.

    Args:
        training: `Manifest.training`; personas that were added later have facts of their own under `added`.
    """
    return frozenset(str(digest) for digest in _sources(training))


def judge_held_out(bundle: Bundle, clips: Iterable[Path]) -> Verdict:
    """Judge whether clips are held out from a bundle's training.

    Returns:
        The verdict "held_out": failed where the manifest lists a clip's content among the sources.
    """
    listed = learned_from(bundle.manifest.training)
    seen = [clip.name for clip in clips if file_digest(clip) in listed]
    if seen:
        names = ", ".join(seen)
        return Verdict("held_out", False, f"The model learned from {names}. Judge it by clips that it has not seen.")
    return Verdict("held_out", True, f"None of the clips is among the {len(listed)} files that it learned from.")


def shared_content(one: Iterable[Path], other: Iterable[Path]) -> list[str]:
    """Return the paths of one list whose content is in the other list too, whatever the files are called."""
    digests = {file_digest(path) for path in other}
    return [str(path) for path in one if file_digest(path) in digests]


def _sources(training: Mapping[str, Any]) -> Iterator[object]:
    yield from training.get("sources", ())
    for facts in training.get("added", {}).values():
        yield from _sources(facts)
