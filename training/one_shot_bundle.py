"""A trained mixing network and persona references to a bundle.

    uv run python -m training.one_shot_bundle --config CONFIG.toml --personas FOLDER --out bundles/default

FOLDER holds a folder for each persona (`training.persona_folders`), in the order of their names or of `order.txt`.
Without --personas those of `personas_from` in the configuration are taken over.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.triplets import TripletError
from training.export import quantise
from training.model.checkpoint import CheckpointError
from training.model.config import ConfigError, load_config
from training.model.mixing import MixTraining
from training.persona_folders import write_one_shot
from understudy.bundle.bundle import Bundle, BundleError, default_bundle

_OPSET = 17
_CALIBRATION = 96


def write_mixer(network: Any, path: Path, calibration: NDArray[np.float32] | None) -> None:
    """Write a mixing network as ONNX: inputs -> opacity; in int8 where there are inputs to calibrate with.

    Args:
        network: `training.model.mixing.build_mixer`'s.
        path: the file to write.
        calibration: float32 [N, 128, 128, 7], typical inputs, or None for a float32 graph.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    signature = [tf.TensorSpec((None, *network.inputs[0].shape[1:]), tf.float32, name="inputs")]
    function = tf.function(lambda x: {"opacity": network(x, training=False)}, input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=_OPSET)
    if calibration is None:
        onnx.save(proto, str(path))
    else:
        # What ends in the answer stays float32: an opacity in bytes would band.
        quantise(proto, path, "inputs", calibration, excluded=_last_convolutions(proto))


def _last_convolutions(proto: Any) -> list[str]:
    """Return the names of the convolutions that no other one follows, as the calibrator will see them."""
    consumers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def leads_on(node: Any) -> bool:
        return any(each.op_type == "Conv" or leads_on(each) for out in node.output for each in consumers.get(out, []))

    return [node.name for node in proto.graph.node if node.op_type == "Conv" and not leads_on(node)]


def export_one_shot(training: MixTraining, personas: Path | None, out: Path, *, is_quantised: bool = True) -> Path:
    """Write a bundle.

    Args:
        training: as it stands.
        personas: folder of persona folders; None: those of the bundle that the configuration names, or that ships.
        out: the bundle's folder; replaced as a whole, and only once the new one is complete.
        is_quantised: int8 inside; else float32 throughout.

    Returns:
        out.

    Raises:
        BundleError: a persona lacks a file, or what would be written could not be loaded again.
    """
    calibration = training.inputs(_CALIBRATION) if is_quantised else None
    return write_one_shot(
        out,
        personas or Bundle.load(training.config.personas_from or default_bundle()),
        lambda path: write_mixer(training.mean_network(), path, calibration),
        name=training.config.name,
        version=str(training.step),
        training=_facts(training),
    )


def _facts(training: MixTraining) -> dict[str, Any]:
    """Return what a model card needs to know."""
    config, curves = training.config, training.curves()
    return {
        "recipe": config.recipe,
        "iterations": training.step,
        "batch": config.batch,
        "triplets": len(training.triplets.rows),
        "faceset": training.triplets.digest,
        "sources": list(training.triplets.sources),
        "seconds": round(sum(float(line["seconds"]) for line in curves), 1),
        "validation": curves[-1] if curves else {},
        "network": {"mixer_width": config.mixer_width, "parameters": int(training.network.count_params())},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2 where nothing can be written."""
    parser = argparse.ArgumentParser(
        prog="training.one_shot_bundle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--personas", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--float32", action="store_true", help="do not quantise")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="override settings")
    options = parser.parse_args(arguments)
    try:
        training = MixTraining(load_config(options.config, options.set))
        export_one_shot(training, options.personas, options.out, is_quantised=not options.float32)
    except (BundleError, CheckpointError, ConfigError, TripletError) as error:
        print(f"training.one_shot_bundle: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"out": str(options.out), "steps": training.step}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
