"""The classic recipe for real, on a tiny network: from facesets to a registered bundle, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from tests.support.mlflow_store import mlflow_store
from tests.support.sheets import bears_label
from tests.support.small_facesets import NAMES, build_facesets, sign_files
from understudy.bundle.bundle import Bundle
from understudy.consent.record import ConsentError

# TensorFlow's variables on NumPy 2, tf2onnx's and MLflow's own deprecations: not ours to mend.
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ROOT = Path(__file__).parents[2]
TINY = {
    "recipe": "classic",
    "iterations": 6,
    "batch": 2,
    "warm_up": 1,
    "ema": 0.5,
    "checkpoint_every": 2,
    "preview_every": 3,
    "validation": 4,
    "bfloat16": False,
}
SIZE = {"input_px": 32, "output_px": 64, "width": 8, "head_channels": 8, "patch_px": 4, "bottleneck": 16}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with facesets, their trust, and a training of them that ran to its end and was registered."""
    folder = tmp_path_factory.mktemp("training")
    build_facesets(folder)
    with mlflow_store(folder) as uri:
        from training.train import train_and_register

        config = tiny_config(folder, tracking=uri)
        told = train_and_register(config, folder / "trust")
        yield folder, config, told, uri


def tiny_config(folder, **changes):
    from training.model.config import TrainingConfig
    from training.network import NetworkSize

    where = {"facesets": facesets(folder), "out": str(folder / "out"), "tracking": ""}
    return TrainingConfig(**{**TINY, **where, **changes}, size=NetworkSize(**SIZE))


def facesets(folder):
    return {name: str(folder / name / "faces") for name in NAMES}


def test_training_ends_in_a_bundle_that_loads_and_swaps(made):
    folder, *_ = made
    bundle = Bundle.load(folder / "out" / "bundle")
    assert [persona.name for persona in bundle.personas] == list(NAMES)
    swapped = bundle.swap_model("eileen").predict(np.full((2, 32, 32, 3), 90, np.uint8))
    assert swapped.shape == (2, 64, 64, 4)
    facts = bundle.manifest.training
    assert (facts["recipe"], facts["iterations"]) == ("classic", TINY["iterations"])
    assert len(facts["sources"]) == 24, "what it must not be judged by"


def test_training_is_told_to_mlflow_and_gets_its_alias(made):
    import mlflow

    _, config, told, uri = made
    client = mlflow.MlflowClient(uri)
    version = client.get_model_version_by_alias(config.name, "challenger")
    assert f"models:/{config.name}/{version.version}" in told
    run = client.get_run(version.run_id)
    assert run.data.params["iterations"] == "6"
    assert {"git_sha", "lock_sha256", "faceset"} <= run.data.tags.keys()
    assert {p.step for p in client.get_metric_history(version.run_id, "loss")} == {3, 6}
    assert [a.path for a in client.list_artifacts(version.run_id, "previews")] == [
        "previews/preview-0000003.jpg",
        "previews/preview-0000006.jpg",
    ]
    assert bears_label(cv2.imread(str(Path(config.out) / "preview-0000006.jpg")))


def test_loss_falls_when_trained_for_longer(made, tmp_path):
    from training.model.classic import ClassicTraining

    folder, *_ = made
    longer = {"iterations": 200, "checkpoint_every": 200, "preview_every": 20, "learning_rate": 4e-3}
    training = ClassicTraining(tiny_config(folder, out=str(tmp_path), **longer), folder / "trust")
    training.run()
    curve = [line["loss"] for line in training.curves()]
    assert curve[-1] < 0.8 * curve[0]


def test_exported_graphs_answer_as_the_network_does(tmp_path):
    from training.export import write_graph
    from training.network import NetworkSize, SwapAutoencoder

    network = SwapAutoencoder.build(NetworkSize(**SIZE), ["a"])
    face = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    latent = np.asarray(network.encoder(face))
    swap = np.asarray(network.decoders["a"](latent))
    write_graph(network.encoder, tmp_path / "encoder.onnx", None)
    write_graph(network.decoders["a"], tmp_path / "decoder.onnx", None)
    found = session(tmp_path / "encoder.onnx").run(["latent"], {"face": face})[0]
    np.testing.assert_allclose(found, latent, atol=1e-4)
    np.testing.assert_allclose(session(tmp_path / "decoder.onnx").run(["swap"], {"latent": found})[0], swap, atol=1e-4)


def test_int8_graphs_stay_near_the_network(made):
    from training.export import mean_network
    from training.model.classic import ClassicTraining

    folder, config, *_ = made
    training = ClassicTraining(config, folder / "trust")
    network = mean_network(training)
    faces = training.batches.validation_batch(training.batches.validation)[0]["eileen"]
    wanted = np.asarray(network.swap(faces, "eileen"))
    bundle = Bundle.load(folder / "out" / "bundle")
    found = bundle.swap_model("eileen").predict(np.rint(faces * 255).astype(np.uint8))
    assert np.abs(found / 255 - wanted).mean() < 3 / 255


def test_each_persona_learns_from_its_own_faces(made, tmp_path):
    from training.model.classic import ClassicTraining

    folder, *_ = made
    training = ClassicTraining(tiny_config(folder, out=str(tmp_path), iterations=2), folder / "trust")
    faces, targets = training.batches.batch(0)
    assert faces.keys() == targets.keys() == set(NAMES)
    assert not np.array_equal(targets["eileen"][..., :3], targets["nobody"][..., :3])
    before = {name: part.get_weights()[0].copy() for name, part in training.network.decoders.items()}
    training.run()
    for name, part in training.network.decoders.items():
        assert np.abs(part.get_weights()[0] - before[name]).max() > 0, name


def test_persona_without_consent_to_train_is_refused_before_any_face_is_read(made, tmp_path):
    from training.model.classic import ClassicTraining

    folder, *_ = made
    kept = folder / "eileen" / "faces" / "consent.json"
    before = kept.read_bytes()
    photos = sorted((folder / "eileen" / "photos").iterdir())
    sign_files(kept, "eileen", photos, folder / "trust", uses=("live",))
    try:
        with pytest.raises(ConsentError, match="must grant 'train'"):
            ClassicTraining(tiny_config(folder, out=str(tmp_path)), folder / "trust")
    finally:
        kept.write_bytes(before)


def test_one_faceset_is_too_few_and_few_faces_too():
    from training.model.config import ConfigError, TrainingConfig

    with pytest.raises(ConfigError, match="two \\[facesets\\] or more"):
        TrainingConfig(recipe="classic", facesets={"a": "work/a"})
    with pytest.raises(ConfigError, match="oneshot or classic, but got 'paired'"):
        TrainingConfig(recipe="paired")


def test_unknown_setting_is_an_error_that_lists_the_known_ones(tmp_path):
    from training.model.config import ConfigError, load_config

    path = tmp_path / "x.toml"
    path.write_text("iterations = 5\n[loss]\nl2 = 1.0\n")
    with pytest.raises(ConfigError, match=r"'l2' is not a setting.*dssim"):
        load_config(path, [])
    path.write_text("iterations = 5\n")
    assert load_config(path, ["loss.l1=2", "out=here"]).loss.l1 == 2.0
    with pytest.raises(ConfigError, match="iterations must be"):
        load_config(path, ["iterations=many"])


def test_a_training_in_bfloat16_leaves_the_process_as_it_was(monkeypatch):
    import keras

    from training.model import classic
    from training.model.config import TrainingConfig
    from training.network import NetworkSize

    monkeypatch.setattr(classic, "has_bfloat16", lambda: True)
    config = TrainingConfig(size=NetworkSize(**SIZE), bfloat16=True)
    network, _ = classic.build_trainer(config, ["ada"])
    assert {layer.dtype_policy.name for layer in network.encoder.layers} >= {"mixed_bfloat16"}
    assert keras.mixed_precision.global_policy().name == "float32"


def test_every_shipped_config_is_valid():
    from training.model.config import load_config

    for path in (ROOT / "training" / "configs").glob("*.toml"):
        if path.name != "personas.toml":  # what mosaics are made of
            assert load_config(path, []).iterations > 0


def kill_and_resume(folder: Path, out: Path, times: int) -> None:
    """Kill a training at random moments, each time after a checkpoint; then let it end."""
    chance = np.random.default_rng(times)
    command = [sys.executable, "-m", "training.train", "--config", str(folder / "tiny.toml")]
    environment = {**os.environ, "UNDERSTUDY_HOME": str(folder / "trust")}
    for kill in range(times):
        least = 2 * (kill + 1)
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 100
        while (done := checkpointed(out)) < least and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        time.sleep(chance.uniform(0.0, 0.2))  # in a step, or while the next checkpoint is written
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert checkpointed(out) >= done >= least
    reached = checkpointed(out)
    last = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr[-2000:]
    assert f"goes on from step {reached}" in last.stderr


def checkpointed(out: Path) -> int:
    pointer = out / "checkpoint.json"
    return json.loads(pointer.read_text())[0]["step"] if pointer.is_file() else 0


def write_killable_config(folder: Path, out: Path, iterations: int) -> None:
    settings = {**TINY, "iterations": iterations, "out": str(out), "tracking": ""}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    lines += ["[facesets]", *(f"{key} = {json.dumps(value)}" for key, value in facesets(folder).items())]
    lines += ["[size]", *(f"{key} = {value}" for key, value in SIZE.items())]
    (folder / "tiny.toml").write_text("\n".join(lines))


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_killed_training_loses_no_more_than_one_checkpoint_interval(made, tmp_path):
    folder, *_ = made
    write_killable_config(folder, tmp_path / "out", iterations=40)
    kill_and_resume(folder, tmp_path / "out", times=2)
    assert checkpointed(tmp_path / "out") == 40
    Bundle.load(tmp_path / "out" / "bundle")


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(1500)
def test_training_killed_twenty_times_still_ends(made, tmp_path):
    folder, *_ = made
    write_killable_config(folder, tmp_path / "out", iterations=200)
    kill_and_resume(folder, tmp_path / "out", times=20)
    assert checkpointed(tmp_path / "out") == 200


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
