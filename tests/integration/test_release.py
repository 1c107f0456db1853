"""One command from clips to a rehearsed deployment; a second one skips all, a changed one does what depends on it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pipelines.chain import STEPS
from pipelines.code_digest import PACKAGES
from tests.support.outside import Outcome, device_ids, need_namespaces, run_recorded, what_is_missing
from training.sample import write_sample
from training.still import write_still
from understudy.consent.check import write_record
from understudy.consent.record import USES, Consent, sign
from understudy.consent.trust_store import TrustStore

# Nothing here is about quality: a few steps of a narrow network.
TINY = "iterations=4 batch=2 preview_every=4 validation=4 mixer_width=4"


@dataclass(frozen=True)
class _Site:
    """A copy of the code, so that nobody's edit counts as a change, with clips, keys and gates beside it."""

    folder: Path

    @property
    def code(self) -> Path:
        return self.folder / "code"

    def release(self, *more: str, runner: str = "inline", is_recorded: bool = False) -> Outcome:
        """Run `pipelines.release run` on the sample, as a user does; in a network of its own if recorded."""
        sample = self.folder / "sample"
        clips = ("--clips", *(str(sample / f"{name}.mp4") for name in ("sways", "mirrored")))
        persona = (
            "--persona",
            "eileen",
            "--photo",
            str(sample / "astronaut.png"),
            "--consent",
            str(sample / "me.json"),
        )
        judged = ("--held-out", str(sample / "held-out.mp4"), "--judge-frames", "4", "--judge-every", "2")
        command = [sys.executable, "-m", "pipelines.release", "run", *clips, *persona, *judged, "--runner", runner]
        command += ["--count", "32", "--frames-per-clip", "8", "--keep-spectacles"]
        command += ["--config", "oneshot_quick.toml", "--set", *TINY.split(), "--work", str(self.folder / "work")]
        gates = () if "--gates" in more else ("--gates", str(self.gates("held", coverage=0.0)))
        # Where MLflow is must be ours: a test before this one may have left another's address.
        others = [f"--unset={name}" for name in os.environ if name.startswith("MLFLOW_")]
        command = ["env", *others, *command, *gates, *more]
        ours = {"UNDERSTUDY_HOME": str(self.folder / "keys"), "HOME": str(self.folder), "PYTHONPATH": ""}
        if is_recorded:
            return run_recorded(command, ours, limit_s=900, cwd=self.code)
        done = subprocess.run(
            command, cwd=self.code, env={**os.environ, **ours}, capture_output=True, text=True, check=False
        )
        return Outcome(done.returncode, done.stdout + done.stderr, [])

    def gates(self, name: str, coverage: float) -> Path:
        path = self.folder / f"{name}.toml"
        path.write_text(f"[coverage]\nat_least = {coverage}\n")
        return path

    def result(self, step: str, name: str) -> Path:
        return self.folder / "work" / "results" / step / name


def steps_done(answer: Outcome) -> list[str]:
    """Return the steps that the command says it did; all others it must say that it skipped."""
    assert answer.status == 0, answer.output[-4000:]
    told = dict(re.findall(r"^(\w+) +(skipped|done) +\d+\.\d s  ", answer.output, re.MULTILINE))
    assert list(told) == list(STEPS), answer.output
    return [name for name, word in told.items() if word == "done"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> _Site:
    folder = tmp_path_factory.mktemp("release")
    ignored = shutil.ignore_patterns("__pycache__")
    for package in PACKAGES:
        shutil.copytree(repository / package, folder / "code" / package, ignore=ignored)
    shutil.copyfile(repository / "uv.lock", folder / "code" / "uv.lock")
    sample = write_sample(folder / "sample", frames=16)
    _consent(folder, sample.photo)
    return _Site(folder)


def _consent(folder: Path, photo: Path) -> None:
    """Sign what a test may do with a public-domain picture."""
    from datetime import UTC, datetime, timedelta

    from understudy.consent.check import hash_files

    write_still(photo, folder / "still.png")
    now = datetime.now(UTC).replace(microsecond=0)
    evidence = {"method": "file", "name": "none", "sha256": "0" * 64}
    consent = Consent(
        persona="eileen",
        kind="person",
        subject="the face of a NASA portrait in the public domain",
        statement="For tests of this program, on the machine that made this record.",
        uses=USES,
        not_before=now,
        not_after=now + timedelta(days=1),
        reference=hash_files([photo, folder / "still.png"]),
        recipe={},
        evidence=evidence,
    )
    write_record(folder / "sample" / "me.json", sign(consent, TrustStore(folder / "keys").signing_key()))


@pytest.fixture(scope="module")
def first(site: _Site) -> Outcome:
    """The first release, by Kubeflow's local runner; whatever it sends to the outside is recorded where that works."""
    return site.release(runner="kfp", is_recorded=not what_is_missing())


def _tasks(path: Path) -> dict[str, set[str]]:
    """Return each task of a compiled pipeline and those it waits for."""
    (pipeline, *_) = yaml.safe_load_all(path.read_text())
    tasks = pipeline["root"]["dag"]["tasks"]
    assert not any(task["cachingOptions"].get("enableCache") for task in tasks.values())
    return {name: set(task.get("dependentTasks", [])) for name, task in tasks.items()}


@pytest.mark.timeout(600)  # kfp's import alone takes a minute on a busy machine
def test_it_compiles_for_vertex_ai(repository: Path, tmp_path: Path) -> None:
    image = "europe-west4-docker.pkg.dev/p/understudy/training-python:1"
    command = [sys.executable, "-m", "pipelines.release", "compile", "--out", "release.yaml", "--image", image]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert _tasks(tmp_path / "release.yaml") == {
        "extract": set(),
        "triplets": {"extract"},
        "train": {"triplets"},
        "evaluate": {"train"},
        "register": {"train", "evaluate"},
        "promote": {"register"},
        "deploy": {"register", "promote"},
    }
    (pipeline, *_) = yaml.safe_load_all((tmp_path / "release.yaml").read_text())
    executors = pipeline["deploymentSpec"]["executors"].values()
    assert {executor["container"]["image"] for executor in executors} == {image}
    assert not any("pip install" in word for e in executors for word in e["container"]["command"])
    assert pipeline["root"]["inputDefinitions"]["parameters"] == {"release": {"parameterType": "STRUCT"}}


@pytest.mark.timeout(1800)
def test_kubeflows_local_runner_goes_from_clips_to_a_rehearsed_deployment(site: _Site, first: Outcome) -> None:
    assert steps_done(first) == list(STEPS)
    cache = site.folder / "work" / "cache"
    (calls,) = cache.glob("deploy/*/out/calls.jsonl")
    sent = [json.loads(line) for line in calls.read_text().splitlines()]
    assert any(":deployModel" in call["url"] for call in sent), sent
    (decision,) = cache.glob("promote/*/out/decision.json")
    assert json.loads(decision.read_text())["promoted"]


def test_a_release_reaches_nobody_outside_and_keeps_no_devices_id(site: _Site, first: Outcome) -> None:
    need_namespaces()
    assert first.attempts == [] and device_ids(site.folder) == []


@pytest.mark.timeout(900)
def test_a_second_run_skips_everything_whichever_runner(site: _Site, first: Outcome) -> None:
    assert first.status == 0, first.output[-4000:]
    assert steps_done(site.release()) == []
    assert site.result("train", "bundle").is_dir()
    assert json.loads(site.result("register", "version.json").read_text())["version"] == 1


@pytest.mark.timeout(900)
def test_a_change_reruns_only_what_depends_on_it(site: _Site, first: Outcome) -> None:
    assert first.status == 0, first.output[-4000:]
    other_region = site.release("--region", "europe-west1")
    assert steps_done(other_region) == ["deploy"]
    assert "changed: setting region" in other_region.output
    plan = site.code / "serving" / "vertex" / "plan.py"
    plan.write_text(plan.read_text() + "# another line\n")
    other_code = site.release()
    assert steps_done(other_code) == ["deploy"] and "changed: code" in other_code.output
    other_gates = site.release("--gates", str(site.gates("other", coverage=0.001)))
    assert "promote" in steps_done(other_gates) and "train" not in steps_done(other_gates)


@pytest.mark.timeout(900)
def test_a_gate_that_does_not_hold_ends_the_release_before_the_deployment(site: _Site, first: Outcome) -> None:
    assert first.status == 0, first.output[-4000:]
    gates = site.gates("strict", coverage=1.5)
    # Other figures make another version: the one that is champion already is not judged again.
    answer = site.release("--gates", str(gates), "--judge-frames", "3")
    assert answer.status == 1
    assert "was not promoted. coverage of eileen is" in answer.output and "at least 1.5" in answer.output
    assert "release: deploy" not in answer.output


def test_wrong_options_are_refused_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.release import main

    clip = tmp_path / "clips" / "a.mp4"
    clip.parent.mkdir()
    clip.write_bytes(b"a clip")
    copy = tmp_path / "held.mp4"
    copy.write_bytes(b"a clip")
    common = ["run", "--clips", str(clip.parent), "--work", str(tmp_path / "work")]
    cases: list[tuple[Sequence[str], str]] = [
        (["--held-out", "a.mp4", "--persona", "me", "--personas", str(tmp_path)], "not both"),
        (["--held-out", "a.mp4", "--persona", "me"], "its --photo and its --consent record"),
        (["--held-out", str(clip)], "is in both"),
        (["--held-out", str(copy)], "is in both"),
        (["--held-out", "none.mp4"], "none.mp4 must exist"),
    ]
    for options, sentence in cases:
        with pytest.raises(SystemExit) as ended:
            main([*common, *options])
        assert ended.value.code == 2 and sentence in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
