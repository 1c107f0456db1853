"""The same training code on JAX, on one device and on two: the same losses."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.support.small_facesets import build_facesets

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "recipe": "classic",
    "iterations": 3,
    "batch": 4,
    "warm_up": 1,
    "checkpoint_every": 3,
    "preview_every": 1,
    "validation": 4,
    "bfloat16": False,
    "tracking": "",
}
SIZE = {"input_px": 32, "output_px": 64, "width": 8, "head_channels": 8, "patch_px": 4, "bottleneck": 16}


def losses(folder: Path, facesets: dict[str, str], devices: int) -> list[float]:
    """Train on so many virtual devices, in a process of its own; give the loss of every step."""
    out = folder / f"on{devices}"
    config = folder / f"on{devices}.toml"
    settings = {**SETTINGS, "out": str(out)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    lines += ["[facesets]", *(f"{key} = {json.dumps(value)}" for key, value in facesets.items())]
    lines += ["[size]", *(f"{key} = {value}" for key, value in SIZE.items())]
    config.write_text("\n".join(lines))
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # of the compiler, which takes most of the time
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "UNDERSTUDY_HOME": str(folder / "trust"),
    }
    command = [sys.executable, "-m", "training.train", "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "KERAS_BACKEND=tensorflow" in done.stdout
    return [json.loads(line)["loss"] for line in (out / "curves.jsonl").read_text().splitlines()]


@pytest.mark.timeout(400)
def test_two_devices_give_the_losses_of_one(tmp_path):
    facesets = build_facesets(tmp_path, faces=8)
    with ThreadPoolExecutor(2) as side_by_side:
        one, two = side_by_side.map(partial(losses, tmp_path, facesets), (1, 2))
    assert len(one) == SETTINGS["iterations"]
    assert two == pytest.approx(one, rel=2e-3)
    assert one[-1] != one[0]
