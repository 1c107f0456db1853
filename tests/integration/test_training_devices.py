"""The same training code on JAX, on one device and on two: the same losses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_pairs import build_tiny_pairs

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "iterations": 6,
    "batch": 4,
    "warm_up": 1,
    "checkpoint_every": 6,
    "preview_every": 1,
    "validation": 4,
    "bfloat16": False,
    "tracking": "",
}


def losses(folder: Path, devices: int) -> list[float]:
    """Train on so many virtual devices, in a process of its own; give the loss of every step."""
    out = folder / f"on{devices}"
    config = folder / f"on{devices}.toml"
    settings = {**SETTINGS, "pairs": str(folder / "pairs"), "out": str(out)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    config.write_text(
        "\n".join(
            [*lines, "[size]", "input_px = 32", "output_px = 64", "width = 8", "head_channels = 8", "patch_px = 4"]
        )
    )
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
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
    build_tiny_pairs(tmp_path)
    one, two = losses(tmp_path, 1), losses(tmp_path, 2)
    assert len(one) == SETTINGS["iterations"]
    assert two == pytest.approx(one, rel=2e-3)
    assert one[-1] != one[0]
