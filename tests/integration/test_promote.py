"""A candidate becomes champion only when bundle, consent and every figure hold; else it is told why."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import build_tiny_bundle
from pipelines.gates import Gate
from pipelines.held_out import learned_from
from pipelines.promote import Trial, main, promote
from pipelines.registry import Registry
from tests.support.mlflow_store import mlflow_store
from tests.support.real_faces import astronaut_clip
from training.data.read_sources import file_digest
from understudy.bundle.bundle import BundleError
from understudy.consent.trust_store import Trust, TrustStore

# What random weights can hold: they do repaint faces, and only faces.
LENIENT = (Gate("coverage", 0.9, 0.05), Gate("outside_psnr_db", 45.0, None), Gate("ms_p50", 10_000.0, None))


@dataclass(frozen=True)
class _Site:
    folder: Path
    clip: Path
    good: Path
    other: Path

    @property
    def trust(self) -> Trust:
        return TrustStore(self.folder / "trust").read()

    @property
    def trial(self) -> Trial:
        return Trial((self.clip,), every=3, limit=4, is_quiet=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Site]:
    folder = tmp_path_factory.mktemp("site")
    with mlflow_store(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))  # the cache of fetched bundles
        yield _Site(
            folder,
            astronaut_clip(folder / "astronaut.mp4", frames=6),
            build_consented_bundle(folder / "good", {"ada": "Ada"}, folder / "trust"),
            build_consented_bundle(folder / "other", {"ben": "Ben"}, folder / "trust"),
        )


def test_a_first_candidate_that_holds_its_gates_becomes_champion(site: _Site) -> None:
    registry = Registry("first")
    registry.register(site.good, alias="challenger")
    decision = promote(registry, "models:/first@challenger", site.trial, LENIENT, site.trust)
    assert decision.is_promoted, decision.failed
    assert (decision.candidate, decision.champion) == (1, None)
    assert [verdict.gate for verdict in decision.verdicts] == [
        *("bundle", "consent", "held_out", "coverage", "outside_psnr_db", "ms_p50")
    ]
    assert registry.version_of("champion") == 1
    assert registry.versions()[0].tags["gates"] == "passed"


def test_a_candidate_is_compared_with_the_champion_on_the_same_clips_in_one_run(site: _Site) -> None:
    import mlflow

    registry = Registry("compared")
    registry.register(site.good)
    registry.move_alias("champion", 1)
    registry.register(site.other)
    decision = promote(registry, "models:/compared/2", site.trial, LENIENT, site.trust)
    assert decision.is_promoted, decision.failed
    mine, theirs = decision.candidate_reports, decision.champion_reports
    assert [(r.clip, r.persona, r.frames) for r in mine] == [("astronaut.mp4", "ben", 4)]
    assert [(r.clip, r.persona, r.frames) for r in theirs] == [("astronaut.mp4", "ada", 4)]
    assert registry.history() == [1]
    (run,) = [r for r in mlflow.search_runs(output_format="list") if r.info.run_name == "promote compared 2"]
    assert run.data.metrics["promoted"] == 1
    assert run.data.metrics["candidate/astronaut/ben/coverage"] == mine[0].coverage
    assert run.data.metrics["champion/astronaut/ada/coverage"] == theirs[0].coverage


def test_what_was_rolled_back_is_not_promoted_again_unless_asked_for(site: _Site) -> None:
    registry = Registry("returned")
    for bundle, version in ((site.good, 1), (site.other, 2)):
        registry.register(bundle, alias="challenger")
        registry.move_alias("champion", version)
    assert registry.rollback() == (2, 1)
    decision = promote(registry, "models:/returned@challenger", site.trial, LENIENT, site.trust)
    assert not decision.is_promoted and [verdict.gate for verdict in decision.failed] == ["rollback"]
    assert "--again" in decision.failed[0].sentence and registry.version_of("champion") == 1
    uri = "models:/returned@challenger"
    assert promote(registry, uri, site.trial, LENIENT, site.trust, is_again=True).is_promoted
    assert registry.version_of("champion") == 2


def test_a_failed_gate_leaves_the_alias_and_says_by_how_much(site: _Site) -> None:
    registry = Registry("strict")
    registry.register(site.good)
    registry.move_alias("champion", 1)
    registry.register(site.other)
    gates = (*LENIENT, Gate("ms_p95", 0.001, None))
    decision = promote(registry, "models:/strict/2", site.trial, gates, site.trust)
    assert not decision.is_promoted
    (failed,) = decision.failed
    assert failed.gate == "ms_p95"
    assert "must be at most 0.001 (the limit): by " in failed.sentence
    assert registry.version_of("champion") == 1
    newest = registry.versions()[0]
    assert (newest.tags["gates"], newest.tags["gates_failed"]) == ("failed", failed.sentence)
    assert json.loads(decision.to_json())["promoted"] is False


def test_a_persona_without_a_valid_record_is_refused_before_it_runs(site: _Site, tmp_path: Path) -> None:
    registry = Registry("unconsented")
    registry.register(build_tiny_bundle(tmp_path / "bundle"))
    decision = promote(registry, "models:/unconsented/1", site.trial, LENIENT, site.trust)
    assert [verdict.gate for verdict in decision.failed] == ["consent"]
    assert "ada: " in decision.failed[0].sentence and "ben: " in decision.failed[0].sentence
    assert decision.candidate_reports == ()
    assert registry.version_of("champion") is None


def test_a_clip_that_was_trained_on_is_refused_whatever_it_is_called(site: _Site, tmp_path: Path) -> None:
    renamed = tmp_path / "new.mp4"
    renamed.write_bytes(site.clip.read_bytes())
    bundle = build_consented_bundle(
        tmp_path / "bundle", {"eve": "Eve"}, site.folder / "trust", [file_digest(site.clip)]
    )
    registry = Registry("flattered")
    registry.register(bundle)
    trial = replace(site.trial, clips=(renamed,))
    decision = promote(registry, "models:/flattered/1", trial, LENIENT, site.trust)
    assert [verdict.gate for verdict in decision.failed] == ["held_out"]
    assert "learned from new.mp4" in decision.failed[0].sentence
    assert decision.candidate_reports == ()
    assert registry.version_of("champion") is None


def test_what_personas_added_later_learned_from_counts_too() -> None:
    later = {"sources": ["b"], "added": {"mine": {"sources": ["c"]}}}
    assert learned_from({"sources": ["a"], "added": {"yours": later}}) == {"a", "b", "c"}


def test_a_revoked_record_stops_a_promotion(site: _Site, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from understudy.consent.check import read_record

    store = TrustStore(tmp_path / "trust")
    bundle = build_consented_bundle(tmp_path / "bundle", {"cy": "Cy"}, tmp_path / "trust")
    registry = Registry("revoked")
    registry.register(bundle)
    store.revoke(read_record(bundle / "cy" / "consent.json").digest, datetime.now(UTC), "asked to")
    decision = promote(registry, "models:/revoked/1", site.trial, LENIENT, store.read())
    assert [verdict.gate for verdict in decision.failed] == ["consent"]
    assert "revoked" in decision.failed[0].sentence


@pytest.mark.faults
def test_a_bundle_that_is_not_what_was_registered_fails_its_gate(site: _Site, tmp_path: Path) -> None:
    registry = Registry("damaged")
    registry.register(build_consented_bundle(tmp_path / "bundle", {"dee": "Dee"}, site.folder / "trust"))
    for stored in (site.folder / "artifacts").rglob("bundle/dee/decoder.onnx"):
        stored.write_bytes(stored.read_bytes() + b"x")
    decision = promote(registry, "models:/damaged/1", site.trial, LENIENT, site.trust)
    assert [(verdict.gate, verdict.is_passed) for verdict in decision.verdicts] == [("bundle", False)]
    assert registry.version_of("champion") is None


def test_the_champion_needs_no_promotion(site: _Site) -> None:
    registry = Registry("again")
    registry.register(site.good)
    registry.move_alias("champion", 1)
    decision = promote(registry, "models:/again/1", site.trial, LENIENT, site.trust)
    assert decision.is_promoted
    assert decision.verdicts[0].sentence == "Version 1 is the champion already."
    assert registry.history() == []


def test_an_unknown_candidate_is_named(site: _Site) -> None:
    with pytest.raises(BundleError, match="nobody@challenger must be registered"):
        promote(Registry("nobody"), "models:/nobody@challenger", site.trial, LENIENT, site.trust)


def test_the_command_promotes_refuses_and_rolls_back(
    site: _Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(site.folder / "trust"))
    gates = tmp_path / "gates.toml"
    gates.write_text("[coverage]\nat_least = 0.9\n")
    registry = Registry("cli")
    registry.register(site.good, alias="challenger")
    command = ["--name", "cli", "--frames", "3", str(site.clip)]
    assert main([*command, "--gates", str(gates)]) == 0
    assert "Version 1 of cli is models:/cli@champion now." in capsys.readouterr().out
    registry.register(site.other, alias="challenger")
    assert main(command) == 1  # the shipped gates: random weights are nobody's face
    output = capsys.readouterr().out
    assert "FAILED  " in output and "Version 2 of cli was not promoted." in output
    assert main([*command, "--gates", str(gates), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["promoted"] is True
    assert main(["--name", "cli", "--rollback"]) == 0
    assert "models:/cli@champion is version 1 again; it was 2." in capsys.readouterr().out
    assert main(["--name", "cli", "--rollback"]) == 2
    assert "moved at least once" in capsys.readouterr().err
