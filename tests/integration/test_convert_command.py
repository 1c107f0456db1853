"""The command on a real face with a tiny bundle: swapped, marked, told, stopped, refused."""

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import PERSONAS, persona_colour
from benchmarks.harness.waiting import wait_until
from tests.support.clips import read_clip, read_sound
from tests.support.real_faces import astronaut, astronaut_clip, write_clip
from understudy.bundle.bundle import Bundle
from understudy.consent.check import read_record
from understudy.consent.trust_store import TrustStore
from understudy.convert import STOPPED, main
from understudy.provenance.c2pa import provenance_from
from understudy.provenance.watermark import payload_of
from understudy.provenance.watermark_detector import detect_file
from understudy.swap.raw_face import RawFaceInspector


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with a bundle, the operator's keys and a clip."""
    folder = tmp_path_factory.mktemp("site")
    build_consented_bundle(folder / "bundle", PERSONAS, folder / "trust")
    astronaut_clip(folder / "in.mp4", 40)
    return folder


@pytest.fixture(autouse=True)
def _operator(site, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_HOME", str(site / "trust"))


def test_faces_become_the_persona_and_the_result_is_marked(site, tmp_path, capsys):
    target, told = tmp_path / "out.mp4", tmp_path / "progress.json"
    arguments = [site / "in.mp4", target, "--persona", "ben", "--bundle", site / "bundle", "--progress", told]
    assert main([str(argument) for argument in arguments]) == 0
    before, times_s = read_clip(site / "in.mp4")
    after, kept_s = read_clip(target)
    assert kept_s == times_s
    row, column = 300, 250  # the astronaut's suit
    assert np.abs(before[5][row:, column:].astype(int) - after[5][row:, column:]).mean() < 6
    finding = detect_file(target)
    assert finding.is_found
    assert finding.payload == payload_of(Bundle.load(site / "bundle").digest)
    verdict = provenance_from({"UNDERSTUDY_HOME": str(site / "trust")}).verify(target)
    assert verdict.is_trusted
    assert verdict.facts["persona"] == "ben"
    progress = json.loads(told.read_text())
    assert (progress["phase"], progress["done"], progress["total"]) == ("done", 40, 40)
    assert progress["tally"]["swapped"] >= 36
    assert "40 frames" in capsys.readouterr().out


def test_the_chosen_persona_is_painted_where_the_face_is(site, tmp_path):
    pictures = []
    for name in PERSONAS:
        target = tmp_path / f"{name}.mp4"
        arguments = [site / "in.mp4", target, "--persona", name, "--bundle", site / "bundle", "--colour-match", 0]
        assert main([str(argument) for argument in arguments]) == 0
        pictures.append(read_clip(target)[0][20].astype(float))
    towards = np.subtract(persona_colour(0), persona_colour(1)).astype(float)
    moved = pictures[0] - pictures[1]
    changed = np.abs(moved).max(axis=2) > 25
    assert 0.005 < changed.mean() < 0.2
    assert (moved[changed].mean(axis=0) @ towards) > 0


def test_frames_without_a_face_are_kept_on_request_and_faces_at_any_roll_and_size_are_not(site, tmp_path):
    empty = np.asarray(cv2.resize(np.random.default_rng(0).integers(90, 140, (9, 12, 3), np.uint8), (640, 480)))
    frames = [empty] * 6
    for angle_deg, zoom in ((90, 1.5), (135, 1.5), (180, 1.5), (270, 1.5), (0, 0.3)):
        matrix = cv2.getRotationMatrix2D((220.0, 120.0), angle_deg, zoom)
        matrix[:, 2] += (100, 120)
        turned = cv2.warpAffine(astronaut(), matrix, (640, 480), dst=empty.copy(), borderMode=cv2.BORDER_TRANSPARENT)
        frames += [np.asarray(turned, np.uint8)] * 4
    write_clip(tmp_path / "in.mp4", frames)
    target = tmp_path / "out.mp4"
    arguments = [tmp_path / "in.mp4", target, "--bundle", site / "bundle", "--no-face", "keep"]
    assert main([str(argument) for argument in arguments]) == 0
    look = RawFaceInspector()
    before, after = read_clip(tmp_path / "in.mp4")[0], read_clip(target)[0]
    assert all(np.abs(a[240:].astype(int) - b[240:]).mean() < 3 for a, b in zip(before[:6], after[:6], strict=True))
    assert [n for n, pair in enumerate(zip(before, after, strict=True)) if look(*pair, None)] == []
    assert look(before[-1], before[-1], None), "the control: the smallest of them counts"


def test_a_revoked_persona_is_refused_before_any_work(site, tmp_path, capsys):
    store = TrustStore(site / "trust")
    revoked = build_consented_bundle(tmp_path / "bundle", {"cleo": "Cleo"}, site / "trust")
    store.revoke(read_record(revoked / "cleo" / "consent.json").digest, datetime.now(UTC))
    assert main([str(site / "in.mp4"), str(tmp_path / "out.mp4"), "--bundle", str(revoked)]) == 1
    assert "revoked" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"IN": "missing.mp4"}, "missing.mp4"),
        ({"--persona": "nobody"}, "must be one of ada, ben"),
        ({"--bundle": "nowhere"}, "nowhere"),
        ({"--strength": "7"}, "strength"),
    ],
)
def test_mistakes_get_one_sentence_and_status_1(site, tmp_path, capsys, change, sentence):
    options = {"IN": str(site / "in.mp4"), "--bundle": str(site / "bundle")} | change
    source = options.pop("IN")
    assert main([source, str(tmp_path / "out.mp4"), *(part for pair in options.items() for part in pair)]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_stop_request_keeps_the_work_and_says_how_to_go_on(site, repository, tmp_path):
    long_clip, target, told = tmp_path / "long.mp4", tmp_path / "out.mp4", tmp_path / "progress.json"
    astronaut_clip(long_clip, 100)
    command = [sys.executable, "-m", "understudy.convert", long_clip, target, "--bundle", site / "bundle"]
    command += ["--progress", told]
    process = subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: told.exists() and json.loads(told.read_text())["done"] > 0, timeout_s=60)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == STOPPED
    assert "Run the same command again" in error
    assert not target.exists()
    assert main([str(part) for part in command[3:]]) == 0
    progress = json.loads(told.read_text())
    assert progress["done"] == 100
    assert len(read_clip(target)[0]) == 100


def test_a_real_clip_keeps_its_sound_and_times(site, shared_clip, tmp_path):
    clip, target = shared_clip("single_face.mp4"), tmp_path / "out.mp4"
    assert main([str(clip), str(target), "--bundle", str(site / "bundle")]) == 0
    assert np.array_equal(read_sound(target), read_sound(clip))
    assert read_clip(target)[1] == pytest.approx(read_clip(clip)[1], abs=1e-5)


def test_a_real_clip_without_a_face_gives_no_file(site, shared_clip, tmp_path, capsys):
    clip, target = shared_clip("no_face.mp4"), tmp_path / "out.mp4"
    assert main([str(clip), str(target), "--bundle", str(site / "bundle")]) == 1
    assert "none was found in its 95 frames" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
