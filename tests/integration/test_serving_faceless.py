"""A model without faces goes all the way: registered in MLflow, promoted, served, streamed."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.harness.ports import free_port
from benchmarks.harness.serving_process import running
from benchmarks.harness.waiting import PATIENT, wait_until
from liveframe.frame import Frame
from liveframe.gate import ShownState
from liveframe.models.pixelate import pixelate
from liveframe.models.whole_frame import BatchFrameModel
from liveframe.pipeline import FramePipeline
from liveframe.remote.client import RemotePolicy
from liveframe.remote.picture import Encoding
from liveframe.stats import Phase
from pipelines.registry import Registry
from serving.vertex.client import RemoteSettings, open_remote
from tests.support.mlflow_store import mlflow_store
from understudy.any_bundle import open_servable
from understudy.bundle.bundle import BundleError
from understudy.bundle.pixelate import write_pixelate_bundle


@pytest.mark.timeout(300)
def test_pixelation_is_registered_promoted_served_and_streamed(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    with mlflow_store(tmp_path):
        registry = Registry("privacy", cache=tmp_path / "cache")
        coarse = registry.register(write_pixelate_bundle(tmp_path / "coarse", 128, 8), alias="champion")
        fine = registry.register(write_pixelate_bundle(tmp_path / "fine", 128, 16, version="2"))
        registry.move_alias("champion", fine.version)
        promoted = registry.resolve("champion")
    bundle = open_servable(promoted)
    assert (bundle.version, bundle.digest) == ("2", fine.digest) and fine.digest != coarse.digest
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "serving.local_server", str(promoted), "--port", str(port)]
    policy = RemotePolicy(deadline_s=5.0, encoding=Encoding.PNG)
    spec = bundle.batch_model("pixelate", 1).spec
    with (
        running(command, url, os.environ),
        open_remote(RemoteSettings(f"{url}/predict"), spec, "", policy) as client,
        FramePipeline(BatchFrameModel(client), PATIENT) as pipeline,
    ):
        wait_until(lambda: pipeline.stats().phase is Phase.READY, timeout_s=60)
        shown = [pipeline.process(np.ascontiguousarray(np.roll(astronaut, 8 * k, 1))) for k in range(12)]
    swapped = [picture for picture in shown if picture.state is ShownState.SWAPPED]
    assert len(swapped) >= 6
    assert [picture.index for picture in shown] == sorted(picture.index for picture in shown)
    tiles = np.unique(swapped[-1].image[::32, ::32].reshape(-1, 3), axis=0)
    assert len(tiles) > 100, "sixteen columns, so many tiles: the promoted version, not the first"


def test_whole_frames_through_a_batch_model_are_the_models_own_pixels(astronaut: NDArray[np.uint8]) -> None:
    from liveframe.models.pixelate import Pixelate

    model = BatchFrameModel(Pixelate(columns=16, size=512))
    model.warm_up()
    session = model.open_session()
    result = session.process(Frame(astronaut, 3, 0.0))
    session.close()
    assert np.array_equal(result.image, pixelate(np.asarray(astronaut), 16))
    assert result.index == 3 and result.is_complete and not np.may_share_memory(result.image, astronaut)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"size": 7}, "8 to 1024"), ({"columns": 97}, "8 to 96"), ({"columns": True}, "8 to 96"), ({"extra": 1}, "keys")],
)
def test_pixelation_with_bad_settings_is_refused(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    import json

    manifest = json.loads((write_pixelate_bundle(tmp_path) / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(BundleError, match=sentence):
        open_servable(tmp_path)


def test_pixelation_with_a_file_beside_its_manifest_is_refused(tmp_path: Path) -> None:
    (write_pixelate_bundle(tmp_path) / "code.py").write_text("print('no')")
    with pytest.raises(BundleError, match=r"code\.py"):
        open_servable(tmp_path)
