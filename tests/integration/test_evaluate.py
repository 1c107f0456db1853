"""The evaluation command on a real clip: figures on stdout, something to look at on disk."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import INPUT_SIZE, OUTPUT_SIZE, build_tiny_bundle
from tests.faults.persona import drawn_still
from tests.support.mlflow_store import mlflow_store
from tests.support.real_faces import astronaut, astronaut_clip, astronaut_face, laid, moved
from training.evaluate import Evaluator, evaluate_clip, main
from training.evaluation.subject import OneShot
from training.evaluation.table import means
from training.model.log_model import log_bundle
from understudy.bundle.bundle import Bundle, write_manifest
from understudy.provenance.c2pa import provenance_from
from understudy.vision.face import AlignedFace
from understudy.vision.reference import ReferenceFace

KEYS = (
    "clip persona frames faces coverage identity_to_persona identity_to_driver retrieval_rank1 pose_deg expression_pct "
    "eyes_pct mouth_pct jitter_ratio flicker_ratio seam_delta_e outside_psnr_db ms_p50 ms_p95 recognised_as_persona "
    "recognised_as_driver pose_motion_deg mouth_motion_pct eyes_motion_pct gaze_pct background_jitter "
    "background_jitter_ring mouth_followed eyes_followed self_ssim self_delta_e self_relit_delta_e gallery "
    "has_spectacles"
).split()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return astronaut_clip(tmp_path_factory.mktemp("clips") / "astronaut.mp4", frames=8)


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    return build_consented_bundle(folder / "tiny", {"ada": "Ada", "ben": "Ben"}, folder / "trust")


@pytest.fixture(autouse=True)
def _operator(bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(bundle_dir.parent / "trust"))


def test_one_json_object_a_clip_and_persona_and_files_to_look_at(
    clip: Path, bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--bundle", str(bundle_dir), "--json", "--every", "3", "--frames", "6", "--out", str(tmp_path)]
    assert main([*arguments, str(clip)]) == 0
    lines = capsys.readouterr().out.splitlines()
    reports = [json.loads(line) for line in lines]
    assert [report["persona"] for report in reports] == ["ada", "ben"]
    for report in reports:
        assert set(KEYS) <= set(report)
        assert (report["clip"], report["frames"], report["faces"]) == ("astronaut.mp4", 6, 6)
        assert report["coverage"] == 1
        assert report["outside_psnr_db"] >= 45
        assert 0 < report["ms_p50"] <= report["ms_p95"]
        assert report["bundle"] == Bundle.load(bundle_dir).digest
        stem = f"astronaut-{report['persona']}"
        assert json.loads((tmp_path / f"{stem}.json").read_text()) == report
        film = cv2.VideoCapture(str(tmp_path / f"{stem}.mp4"))
        assert (film.get(cv2.CAP_PROP_FRAME_COUNT), film.get(cv2.CAP_PROP_FRAME_WIDTH)) == (6, 1024)
    assert cv2.imread(str(tmp_path / "astronaut.png")).shape[1] == 1100


def test_side_by_side_clip_is_marked_and_signed_like_every_export(clip: Path, bundle_dir: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(bundle_dir)
    evaluate_clip(bundle, "ben", clip, limit=4, out=tmp_path)
    film = tmp_path / "astronaut-ben.mp4"
    verdict = provenance_from({"UNDERSTUDY_HOME": str(bundle_dir.parent / "trust")}).verify(film)
    assert verdict.is_trusted
    assert verdict.facts["persona"] == "ben"
    assert not list(tmp_path.glob(".*.mp4"))


def test_persona_whose_consent_covers_no_recording_is_measured_but_not_filmed(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Bundle.load(build_tiny_bundle(tmp_path / "unsigned"))
    report = evaluate_clip(bundle, "ben", clip, limit=2, out=tmp_path / "out")
    assert report.frames == 2
    assert not list((tmp_path / "out").rglob("*.mp4"))
    assert "No side-by-side clip of ben is written" in capsys.readouterr().err


def test_a_registered_bundle_is_evaluated_by_its_address(
    clip: Path, bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with mlflow_store(tmp_path):
        log_bundle(bundle_dir, "swap", alias="challenger")
        arguments = ["--bundle", "models:/swap@challenger", "--persona", "ben", "--frames", "2", "--json"]
        assert main([*arguments, str(clip)]) == 0
    assert json.loads(capsys.readouterr().out)["persona"] == "ben"


def test_without_json_a_table_is_printed(clip: Path, bundle_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(bundle_dir), "--persona", "ada", "--frames", "2", str(clip)]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["clip", "persona", "coverage"]
    assert row.split()[:3] == ["astronaut.mp4", "ada", "1.000"]
    assert len(head.split()) == len(row.split())


def test_instant_personas_are_measured_by_the_same_command(clip: Path, tmp_path: Path, capsys) -> None:
    still = drawn_still()
    bundle = build_consented_bundle(tmp_path / "tiny", {"ada": "Ada"}, tmp_path / "trust")
    cv2.imwrite(str(bundle / "ada" / "still.png"), still.image)
    np.save(bundle / "ada" / "mesh.npy", still.mesh)
    shapes = {"input_shape": (INPUT_SIZE, INPUT_SIZE, 3), "output_shape": (OUTPUT_SIZE, OUTPUT_SIZE, 4)}
    write_manifest(bundle, name="tiny", version="2", personas={"ada": "Ada"}, licence="CC0-1.0", **shapes)
    told = []
    for more in ([], ["--instant"]):
        assert main(["--bundle", str(bundle), "--frames", "3", "--json", *more, str(clip)]) == 0
        told.append(json.loads(capsys.readouterr().out))
    flat, instant = told
    assert flat["coverage"] == instant["coverage"] == 1
    assert instant["eyes_pct"] < 3, "the warped still follows the driver's eyes"
    assert flat["pose_deg"] is None or instant["pose_deg"] < flat["pose_deg"]


def test_a_photo_is_measured_as_a_persona_in_a_gallery_of_strangers(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    photo, gallery = tmp_path / "eva.png", tmp_path / "strangers"
    gallery.mkdir()
    cv2.imwrite(str(photo), astronaut())
    drawn, (height, width) = drawn_still(), astronaut().shape[:2]
    painted = laid(drawn, astronaut_face().mesh, width)[:height]
    cv2.imwrite(str(gallery / "drawn.png"), np.where(painted[..., 3:] > 0, painted[..., :3], astronaut()))
    cv2.imwrite(str(gallery / "own.png"), moved(astronaut(), 3, 1.2))
    arguments = ["--photo", str(photo), "--gallery", str(gallery), "--frames", "3", "--every", "1", "--json", str(clip)]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["clip"], report["persona"], report["bundle"]) == ("astronaut.mp4", "eva", "")
    assert report["recognised_as_persona"] == 1, "the astronaut, shown as herself"
    assert report["gallery"] == 3, "the persona, the driver, the drawn face; not the persona's own picture"
    assert report["mouth_motion_pct"] < 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eva.png", "home", "strangers"], "nothing is written"


def test_a_clip_swapped_with_its_own_first_frame_is_compared_with_itself(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--self", "--frames", "5", "--every", "2", "--json", "--spectacles", "astronaut", str(clip)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["persona"], report["has_spectacles"]) == ("self", True)
    assert report["self_ssim"] > 0.8
    assert 0 < report["self_delta_e"] < report["self_relit_delta_e"] < 15
    assert report["gallery"] == 1, "the driver is the persona and no rival"


class _Given:
    """A renderer that gives the crop back: the right answer of a self-swap."""

    input_size = 256

    def __init__(self, reference: ReferenceFace) -> None:
        self.reference = reference

    def __call__(self, face: AlignedFace) -> np.ndarray:
        return np.dstack([face.crop, np.full(face.crop.shape[:2], 255, np.uint8)])


def test_a_renderer_that_gives_the_driver_back_is_a_perfect_self_swap(clip: Path) -> None:
    sizes: list[int] = []

    def make(reference: ReferenceFace) -> _Given:
        sizes.append(reference.image.shape[0])
        return _Given(reference)

    evaluator = Evaluator([clip], every=2, limit=5, is_quiet=True)
    (report,) = evaluator.run_self(OneShot(make))
    assert sizes == [256, 256], "a small face is not enlarged further"
    assert report.self_ssim > 0.97
    assert report.self_delta_e == pytest.approx(report.self_relit_delta_e) and report.self_delta_e < 1
    assert means([report])["self_ssim"] == report.self_ssim


def test_means_leave_out_what_was_not_measured_and_drivers_with_spectacles_are_told_apart(
    clip: Path, bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    arguments = ["--bundle", str(bundle_dir), "--persona", "ada", "--frames", "2", "--spectacles", "other.mp4"]
    assert main([*arguments, str(clip), str(other)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in rows[1:]] == [
        "astronaut.mp4",
        "other.mp4",
        "mean",
        "with spectacles",
        "without",
    ]
    assert rows[3].split()[1:4] == ["2", "pairs", "1.000"]
    assert "nan" not in rows[3]


@pytest.mark.parametrize("more", [["--self"], ["--photo", "x.png"]])
def test_of_photos_and_self_swaps_nothing_can_be_written(
    more: list[str], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*more, "--out", str(tmp_path / "out"), str(clip)]) == 2
    assert "Leave out --out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_notebooks_get_a_report_with_values_per_frame(clip: Path, bundle_dir: Path) -> None:
    report = evaluate_clip(Bundle.load(bundle_dir), "ada", clip, limit=3)
    assert report.frames == len(report.series["ms"]) == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--persona", "nobody", "CLIP"], "must be one of ada, ben"),
        (["missing.mp4"], "missing.mp4"),
        (["--bundle", "no-such-bundle", "CLIP"], "no-such-bundle"),
        (["--bundle", "models:/x", "CLIP"], "models:/NAME@ALIAS"),
        (["--photo", "no-such.png", "CLIP"], "no-such.png must be a picture"),
        (["--gallery", "no-such-folder", "CLIP"], "no-such-folder"),
    ],
)
def test_what_cannot_be_evaluated_is_named(
    arguments: list[str], complaint: str, clip: Path, bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [str(clip) if argument == "CLIP" else argument for argument in arguments]
    with_bundle = named if "--bundle" in named else ["--bundle", str(bundle_dir), *named]
    assert main(with_bundle) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.out == ""


def test_help_answers_without_tensorflow_or_mlflow() -> None:
    script = (
        "import sys, training.evaluate\n"
        "assert not {'tensorflow', 'mlflow', 'matplotlib', 'dlib'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
