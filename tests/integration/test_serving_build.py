"""What ships: the staged image runs on its own requirements alone, and the legacy package on its own files."""

import base64
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from liveframe.remote.picture import Encoding, decode_picture, encode_picture
from serving.build import IMAGES, MODEL, ROOT, build_legacy, digest_of, stage
from serving.vertex.requirements import LockError, pins_for
from tests.support.serving_bundle import served_bundle

# Runs in the staged directory and refuses every package that requirements.txt does not name, as the image would.
IMAGE = """
import sys
from importlib import metadata
from pathlib import Path

pinned = {line.split("==")[0] for line in Path("requirements.txt").read_text().splitlines() if "==" in line}
owners = metadata.packages_distributions()

class OnlyPinned:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        held = {owner.lower().replace("_", "-").replace(".", "-") for owner in owners.get(top, [])}
        if held and not held & pinned:
            raise ModuleNotFoundError(f"{top} is not in the image", name=top)
        return None

sys.meta_path.insert(0, OnlyPinned())
"""
SERVE_ONE_FRAME = """
import asyncio
import serving.model_server, serving.server.predictor
from serving.server.exchange import Exchange
assert serving.__file__.startswith(str(Path.cwd())), serving.__file__
routine = serving.server.predictor.UnderstudyPredictor()
routine.load(sys.argv[1])
exchange = Exchange(routine)

async def frame():
    yield Path(sys.argv[2]).read_bytes()

reply = asyncio.run(exchange.answer({"content-type": "image/png; deadline-ms=10000"}, frame()))
exchange.close()
print(reply.status, reply.headers)
assert reply.status == 200, reply.body
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with served_bundle(tmp_path_factory.mktemp("served")) as path:
        yield path


def run_python(code: str, directory: Path, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {"PYTHONPATH": str(directory), "PATH": "/usr/bin:/bin", "HOME": str(directory)}
    environment["UNDERSTUDY_HOME"] = os.environ["UNDERSTUDY_HOME"]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.timeout(300)
def test_staged_image_answers_a_frame_with_nothing_but_its_pinned_requirements(
    bundle: Path, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    staged = stage(tmp_path / "image")
    (tmp_path / "frame.png").write_bytes(encode_picture(astronaut, Encoding.PNG))
    packages = {"liveframe", "understudy", "serving"}
    assert {path.name for path in staged.iterdir()} == {*packages, "requirements.txt", "Dockerfile"}
    out = run_python(IMAGE + SERVE_ONE_FRAME, staged, bundle, tmp_path / "frame.png")
    assert out.startswith("200") and "found=1 done=1" in out


def test_requirements_are_complete_pinned_hashed_and_light(tmp_path: Path) -> None:
    lines = (stage(tmp_path / "image") / "requirements.txt").read_text()
    pins = pins_for(ROOT / "uv.lock", IMAGES["serving"].requirements)
    assert lines.count("==") == len(pins) and all(pin.hashes for pin in pins)
    names = {pin.name for pin in pins}
    assert {"fastapi", "uvicorn", "onnxruntime", "starlette", "grpcio"} <= names
    assert not names & {"tensorflow", "keras", "streamlit", "mlflow", "kfp", "torch"}


def test_gpu_image_has_the_other_runtime_and_nothing_of_the_first(tmp_path: Path) -> None:
    names = {
        line.split("==")[0]
        for line in (stage(tmp_path / "gpu", "serving-gpu") / "requirements.txt").read_text().splitlines()
    }
    assert {"onnxruntime-gpu", "nvidia-cudnn-cu13"} <= names and "onnxruntime" not in names


def test_app_image_is_the_whole_app(tmp_path: Path) -> None:
    staged = stage(tmp_path / "app", "app")
    names = {line.split("==")[0] for line in (staged / "requirements.txt").read_text().splitlines()}
    assert {"streamlit", "authlib", "google-auth"} <= names and not names & {"tensorflow", "mlflow", "pytest"}
    assert (staged / ".streamlit" / "config.toml").is_file() and (staged / "bundles" / "default").is_dir()
    for script in (ROOT / "ui").rglob("*.js"):
        assert (staged / script.relative_to(ROOT)).is_file()
    dockerfile = (staged / "Dockerfile").read_text()
    assert "@sha256:" in dockerfile and "--require-hashes" in dockerfile


def test_training_image_runs_every_step(tmp_path: Path) -> None:
    staged = stage(tmp_path / "training", "training")
    names = {line.split("==")[0] for line in (staged / "requirements.txt").read_text().splitlines()}
    assert {"tensorflow", "mlflow", "kfp", "google-cloud-aiplatform"} <= names and "pytest" not in names
    assert (staged / "training" / "configs" / "oneshot.toml").is_file() and (staged / "uv.lock").is_file()


def test_lock_without_a_package_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text('[[package]]\nname = "numpy"\nversion = "2.0"\n')
    with pytest.raises(LockError, match="exactly one onnx "):
        pins_for(tmp_path / "uv.lock", ["onnx"])


def test_forked_lock_gives_the_fork_of_the_image(tmp_path: Path) -> None:
    forks = [
        f'[[package]]\nname = "numpy"\nversion = "{version}"\nresolution-markers = ["python_full_version {bound}"]\n'
        f'sdist = {{ url = "u", hash = "sha256:{version}" }}\n'
        for version, bound in (("2.4", "< '3.12'"), ("2.5", ">= '3.12'"))
    ]
    (tmp_path / "uv.lock").write_text("".join(forks))
    (pin,) = pins_for(tmp_path / "uv.lock", ["numpy"])
    assert pin.to_line() == "numpy==2.4 \\\n    --hash=sha256:2.4"


def test_stage_is_repeatable_and_refuses_a_full_directory(tmp_path: Path) -> None:
    first, second = stage(tmp_path / "a"), stage(tmp_path / "b")
    assert digest_of(first) == digest_of(second)
    with pytest.raises(FileExistsError, match="must be empty"):
        stage(first)


def test_legacy_source_package_predicts_whole_frames(
    bundle: Path, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    archive = build_legacy(tmp_path / "dist")
    pins = {pin.name: pin.version for pin in pins_for(ROOT / "uv.lock", MODEL)}
    with tarfile.open(archive) as package:
        package.extractall(tmp_path / "unpacked", filter="data")
    (root,) = (tmp_path / "unpacked").iterdir()
    asked = (root / "understudy_prediction.egg-info" / "requires.txt").read_text().split()
    assert dict(line.split("==") for line in asked) == pins, "whoever installs it gets all that it needs"
    empty = np.full((120, 160, 3), 90, np.uint8)
    for name, image in (("face", astronaut), ("empty", empty)):
        text = base64.b64encode(encode_picture(np.ascontiguousarray(image), Encoding.PNG))
        (tmp_path / name).write_bytes(text)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from serving.legacy.prediction import ModelPrediction\n"
        "texts = [Path(path).read_text() for path in sys.argv[2:]]\n"
        "model = ModelPrediction.from_path(sys.argv[1])\n"
        "for text in model.predict([texts[0], {'b64': texts[1]}], persona='ben', stats={}):\n    print(text)\n"
    )
    merged, covered = run_python(code, root, bundle, tmp_path / "face", tmp_path / "empty").split()
    face = decode_picture(base64.b64decode(merged), 4096)
    difference = cv2.absdiff(face, np.ascontiguousarray(astronaut)).mean(axis=2)
    assert difference[70:150, 190:260].mean() > 20 and difference[300:].mean() < 4
    assert decode_picture(base64.b64decode(covered), 4096).shape == empty.shape


def test_legacy_contract_refuses_what_is_no_picture(bundle: Path) -> None:
    from liveframe.errors import WireError
    from serving.legacy.prediction import ModelPrediction

    model = ModelPrediction.from_path(str(bundle))
    for instance, sentence in (("?", "Instance 0 must be a picture"), (3, "base64 text"), ({"b64": "AAAA"}, "JPEG")):
        with pytest.raises(WireError, match=sentence):
            model.predict([instance])  # type: ignore[list-item]
    with pytest.raises(WireError, match="one of ada, ben"):
        model.predict([], persona="eve")
