"""A model without faces, served and called: `uv run python -m examples.serve_pictures`.

A BatchModel is stateless, so any server may answer any request. Here one server process pixelates pictures on
loopback, and a pipeline relays whole frames through it.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from liveframe import FramePipeline, GatePolicy, PipelinePolicy, ShownState
from liveframe.models.whole_frame import BatchFrameModel
from serving.vertex.client import RemoteSettings, open_remote
from understudy.any_bundle import open_servable
from understudy.bundle.pixelate import write_pixelate_bundle

PATIENT = PipelinePolicy(gate=GatePolicy(hold_s=2.0), deadline_s=1.0, hang_s=10.0)


def main(port: int = 8085, frames: int = 20, limit_s: float = 60.0) -> int:
    """Serve, relay until so many frames came back pixelated or the time is over; returns how many did."""
    swapped, end_s = 0, time.monotonic() + limit_s
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_pixelate_bundle(Path(folder) / "bundle", 128, 16)
        spec = open_servable(bundle).batch_model("pixelate", 1).spec
        command = [sys.executable, "-m", "serving.local_server", str(bundle), "--port", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            settings = RemoteSettings(f"http://127.0.0.1:{port}/predict")
            with open_remote(settings, spec) as client, FramePipeline(BatchFrameModel(client), PATIENT) as pipeline:
                picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
                while swapped < frames and time.monotonic() < end_s:  # the server takes some seconds to start
                    swapped += pipeline.process(picture).state is ShownState.SWAPPED
                    time.sleep(0.05)
        finally:
            server.terminate()
            server.wait(10)
    return swapped


if __name__ == "__main__":
    print(f"{main()} frames came back pixelated")
