"""The one-shot recipe for real, small: drivers to triplets to a mixing network to a bundle that plays."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from liveframe.frame import Frame
from tests.support.real_faces import astronaut, astronaut_clip, astronaut_face, moved
from understudy.bundle.bundle import Bundle
from understudy.swap.one_shot import lit_by as painted
from understudy.swap.one_shot import soft_coverage
from understudy.swap.relight import Relight
from understudy.swap.swapper import FaceSwapper, SwapSettings
from understudy.vision.align import align

# TensorFlow's variables on NumPy 2, tf2onnx's own deprecations: not ours to mend.
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory):
    """A folder with pictures of a few "people" and a clip: the astronaut, mirrored, tinted, turned."""
    folder = tmp_path_factory.mktemp("drivers")
    for index, (angle, gains) in enumerate([(0, (1, 1, 1)), (8, (0.7, 0.9, 1.2)), (-10, (1.2, 1, 0.7))]):
        image = moved(astronaut(), angle, 1.3) * np.float32(gains)
        image = image[:, ::-1] if index == 1 else image
        cv2.imwrite(str(folder / f"face{index}.png"), np.clip(image, 0, 255).astype(np.uint8))
    cv2.imwrite(str(folder / "nobody.png"), np.full((64, 64, 3), 90, np.uint8))
    (folder / "broken.png").write_bytes(b"no picture")
    astronaut_clip(folder / "clip.mp4", 6)
    return folder


@pytest.fixture(scope="module")
def made(drivers, tmp_path_factory):
    """A folder of triplets, made by the command."""
    out = tmp_path_factory.mktemp("triplets") / "out"
    assert command(drivers, out, 40) == 0
    return out


def command(drivers, out, count):
    from training.data.triplets import main

    given = ["--drivers", str(drivers), "--out", str(out), "--count", str(count)]
    return main([*given, "--keep-spectacles", "--frames-per-clip", "4"])


def parts(rows):
    return rows[..., :3], rows[..., 3:6], rows[..., 6], rows[..., 7:10], rows[..., 10]


# ---- drivers -----------------------------------------------------------------------------------------------------


def test_faces_are_kept_and_what_shows_none_is_left_out(made):
    from training.data.drivers import open_crops

    faces = open_crops(made / "drivers")
    assert faces.crops.shape[1:] == (288, 288, 3) and len(faces.crops) == len(faces.meshes) == 7
    assert sorted(faces.clips.tolist()) == [-1, -1, -1, 0, 0, 0, 0]


def test_a_second_run_looks_for_new_drivers_only(drivers, made, tmp_path):
    from training.data.drivers import DriverFinder, collect, list_drivers, open_crops

    class Never(DriverFinder):
        def canvas(self, image):
            raise AssertionError("what is there already must not be looked for again")

    wanted = [each for each in list_drivers([drivers], 4, 10) if each[0].name != "broken.png"]
    before = open_crops(made / "drivers").digest
    assert collect(wanted, made / "drivers", Never()) == 7
    assert open_crops(made / "drivers").digest == before


def test_half_a_face_that_a_killed_run_left_is_cut_off(drivers, tmp_path):
    from training.data.drivers import DriverFinder, collect, list_drivers, open_crops

    wanted = list_drivers([drivers / "face0.png"], 1, 1)
    collect(wanted, tmp_path, DriverFinder())
    for file in ("crops.u8", "meshes.f32", "drivers.jsonl"):
        with (tmp_path / file).open("ab") as half:
            half.write(b"{half of what")
    more = list_drivers([drivers / "face1.png"], 1, 1)
    assert collect([*wanted, *more], tmp_path, DriverFinder()) == 2
    assert [crop.any() for crop in open_crops(tmp_path).crops] == [True, True]


def test_no_drivers_is_a_sentence(tmp_path, capsys):
    assert command(tmp_path / "missing", tmp_path / "out", 4) == 2
    assert "Check --drivers" in capsys.readouterr().err


# ---- triplets ----------------------------------------------------------------------------------------------------


def test_triplets_are_the_same_whenever_they_are_made(made):
    from training.data.drivers import open_crops
    from training.data.triplets import TripletMaker, Triplets

    rows = Triplets.open(made).rows
    assert len(rows) == 40
    assert np.array_equal(TripletMaker(open_crops(made / "drivers")).make(17), rows[17])


def test_target_is_a_real_picture_and_the_driver_another_persons(made):
    from training.data.triplets import Triplets

    driver, _, coverage, target, _ = parts(Triplets.open(made).rows)
    inside, outside = coverage > 200, coverage == 0
    difference = np.abs(driver.astype(int) - target).mean(3)
    assert difference[inside].mean() > 8
    assert difference[outside].mean() < 5  # the camera's noise alone


def test_what_hides_the_face_hides_it_in_driver_and_target_alike(made):
    from training.data.triplets import Triplets

    driver, _, coverage, target, opacity = parts(Triplets.open(made).rows)
    hidden = (coverage > 240) & (opacity < 10)
    assert np.count_nonzero(hidden) > 200
    difference = np.abs(driver.astype(int) - target).mean(3)
    shown = (coverage > 240) & (opacity > 240)
    assert difference[hidden].mean() < 0.7 * difference[shown].mean()
    assert np.all(opacity <= coverage.astype(int) + 1)


def test_triplets_resume_and_others_are_refused(drivers, made, tmp_path, capsys):
    from training.data.triplets import Triplets

    index = made / "triplets.json"
    kept = Triplets.open(made).rows.copy()
    index.write_text(json.dumps(json.loads(index.read_text()) | {"done": 8}))
    assert len(Triplets.open(made).rows) == 8
    assert command(drivers, made, 40) == 0
    assert np.array_equal(Triplets.open(made).rows, kept)
    assert command(drivers, made, 41) == 2
    assert "another --count" in capsys.readouterr().err


# ---- network -----------------------------------------------------------------------------------------------------


def test_keras_lights_as_the_painter_does(made):
    from training.data.triplets import Triplets
    from training.model.mixing import light, lit_by
    from training.model.mixing import parts as split

    rows = np.ascontiguousarray(Triplets.open(made).rows[:4])
    driver, warped, coverage, *_ = split(rows)
    lights = light(driver, warped, coverage)
    pictures = np.asarray(lit_by(lights, warped)) * 255
    for row, found, picture in zip(rows, np.asarray(lights), pictures, strict=True):
        relight = Relight(row[..., :3], row[..., 3:6])
        wanted = relight.quotient(row[..., 6].astype(np.float32) / 255)
        weight = cv2.resize(row[..., 6], (32, 32), interpolation=cv2.INTER_AREA) > 100
        assert np.abs(found - wanted)[weight].mean() < 0.02
        difference = np.abs(painted(row[..., 3:6], relight.lighting(wanted)) - picture)
        assert difference[row[..., 6] > 200].mean() < 1.5


def test_coverage_in_triplets_is_the_painters(made):
    from training.data.triplets import Triplets

    coverage = Triplets.open(made).rows[0, ..., 6]
    again = soft_coverage((coverage > 0).astype(np.uint8) * np.uint8(255))
    assert again.max() <= 1 and coverage.max() == 255


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory):
    """A training that ran to its end, and its configuration."""
    from training.model.config import load_config
    from training.model.mixing import MixTraining

    out = tmp_path_factory.mktemp("training")
    config = load_config(
        ROOT / "training/configs/oneshot_quick.toml",
        [f"triplets={made}", f"out={out}", "iterations=8", "checkpoint_every=4", "preview_every=4", "tracking="],
    )
    training = MixTraining(config)
    with training.tracker.run():
        training.run(4)
        resumed = MixTraining(config)
        assert resumed.step == 4
        resumed.run()
    return resumed


def test_training_resumes_reports_and_previews(trained):
    curves = trained.curves()
    assert [line["step"] for line in curves] == [4, 8]
    assert {"loss", "validation_loss", "opacity_error", "picture_error"} <= curves[0].keys()
    assert (trained.out / "preview-0000008.jpg").is_file()


def test_exported_network_answers_as_the_trained_one(trained, tmp_path):
    import onnxruntime

    from training.one_shot_bundle import write_mixer

    inputs, network = trained.inputs(8), trained.mean_network()
    wanted = np.asarray(network(inputs, training=False))
    for calibration, most in ((None, 1e-4), (inputs, 0.06)):
        write_mixer(network, tmp_path / "mixer.onnx", calibration)
        session = onnxruntime.InferenceSession(str(tmp_path / "mixer.onnx"))
        (opacity,) = session.run(["opacity"], {"inputs": inputs})
        assert np.abs(opacity - wanted).mean() < most


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The training's bundle, with one persona."""
    from training.one_shot_bundle import export_one_shot

    root = tmp_path_factory.mktemp("exported")
    face = align(astronaut(), astronaut_face(), 256)
    folder = root / "personas/mia"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "reference.png"), cv2.applyColorMap(face.crop, cv2.COLORMAP_OCEAN))
    np.save(folder / "mesh.npy", face.mesh)
    (folder / "consent.json").write_text("{}")
    return export_one_shot(trained, root / "personas", root / "bundle")


def test_bundle_of_references_plays_and_hands_its_personas_on(trained, exported, tmp_path):
    from training.one_shot_bundle import export_one_shot

    bundle = Bundle.load(exported)
    assert bundle.manifest.is_one_shot and [each.title for each in bundle.personas] == ["Mia"]
    model = FaceSwapper(bundle, SwapSettings("mia"))
    model.warm_up()
    session = model.open_session()
    result = session.process(Frame(astronaut().copy(), 0, 0.0))
    session.close()
    assert result.subjects_found == 1
    assert np.abs(result.image.astype(int) - astronaut()).max() > 30
    # A later training takes the personas over.
    again = Bundle.load(export_one_shot(retargeted(trained, exported), None, tmp_path / "next"))
    assert np.array_equal(again.still("mia").image, bundle.still("mia").image)


def test_card_of_a_one_shot_bundle_keeps_it_one_and_its_licence_is_in_it(exported, tmp_path):
    from training.model_card import write_card
    from understudy.bundle.manifest import ONE_SHOT, write_manifest

    folder = shutil.copytree(exported, tmp_path / "bundle")
    bundle = Bundle.load(folder)
    assert "Copyright (c) David Beniaguev" in bundle.read("NOTICE.md").decode()
    said = bundle.manifest
    write_manifest(
        folder,
        name=said.name,
        version=said.version,
        personas={"mia": "Mia"},
        input_shape=said.input_shape,
        output_shape=said.output_shape,
        licence=said.licence,
        training={**said.training, "evaluation": []},
        factory=ONE_SHOT,
    )
    card = write_card(folder, []).read_text()
    assert "mixing network" in card and "mosaic" in card and "encoder" not in card
    assert Bundle.load(folder).manifest.is_one_shot


def retargeted(training, bundle):
    from dataclasses import replace

    training.config = replace(training.config, personas_from=str(bundle))
    return training


def test_one_command_trains_and_exports(made, exported, tmp_path):
    """As a user runs it, from the quick configuration: in a process of its own."""
    sets = [f"triplets={made}", f"out={tmp_path / 'out'}", "iterations=3", "preview_every=3", "tracking="]
    sets.append(f"personas_from={exported}")
    done = subprocess.run(
        [sys.executable, "-m", "training.train", "--config", "training/configs/oneshot_quick.toml", "--set", *sets],
        cwd=ROOT,
        env=os.environ | {"UNDERSTUDY_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert Bundle.load(tmp_path / "out/bundle").manifest.is_one_shot


def test_shape_model_is_learned_from_drivers_by_its_command(made, tmp_path, capsys):
    from training.data.shape_model import main

    assert main(["--drivers", str(tmp_path / "none"), "--out", str(tmp_path / "shape.npz")]) == 2
    assert "training.data.triplets" in capsys.readouterr().err
    assert main(["--drivers", str(made / "drivers"), "--out", str(tmp_path / "shape.npz")]) == 2
    assert "Add drivers" in capsys.readouterr().err, "a handful of faces is no crowd"


def test_persona_looks_the_same_whichever_bundle_plays_it(exported):
    """A persona brings its own reference and network: pixels do not depend on where it is played."""
    from understudy.swap.renderer import open_renderer

    bundle, pictures = Bundle.load(exported), []
    for model in (
        FaceSwapper(bundle, SwapSettings("mia")),
        FaceSwapper(settings=SwapSettings("mine"), renderers={"mine": open_renderer(bundle, "mia")}),
    ):
        model.warm_up()
        session = model.open_session()
        pictures.append(session.process(Frame(astronaut().copy(), 0, 0.0)).image)
        session.close()
    assert np.array_equal(*pictures)
