"""A trained mixing network and persona references to a bundle.

    uv run python -m training.one_shot_bundle --config CONFIG.toml --personas FOLDER --out bundles/default

FOLDER holds a folder for each persona, in the order of their names or of `order.txt`: `reference.png` (an aligned
picture), `mesh.npy` (float32 [468, 3], px of it), `consent.json`, and, where there are more references, `more/NAME.png`
and `more/NAME.npy`. Without --personas those of `personas_from` in the configuration are taken over.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.triplets import TripletError
from training.export import quantise, replace_folder
from training.model.checkpoint import CheckpointError
from training.model.config import ConfigError, load_config
from training.model.mixing import MixTraining
from understudy.bundle.bundle import Bundle, BundleError, write_manifest
from understudy.bundle.manifest import MIXER, ONE_SHOT
from understudy.swap.served import ServedOneShot

_OPSET = 17
_CALIBRATION = 96
_THUMBNAIL_PX = 192
_NOTICE = Path(__file__).with_name("data") / "NOTICE.md"
_LICENCE = (
    "Apache-2.0; personas are mosaics of machine-made faces of the SFHQ data sets, MIT (c) David Beniaguev, "
    "unless their record says otherwise"
)


def write_mixer(network: Any, path: Path, calibration: NDArray[np.float32] | None) -> None:
    """Write a mixing network as ONNX: inputs -> opacity, gain; in int8 where there are inputs to calibrate with.

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
    function = tf.function(lambda x: network(x, training=False), input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=_OPSET)
    if calibration is None:
        onnx.save(proto, str(path))
    else:
        # What ends in the two answers stays float32: an opacity in bytes would band.
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
        personas: folder of persona folders; None: those of the bundle that the configuration names.
        out: the bundle's folder; replaced as a whole, and only once the new one is complete.
        is_quantised: int8 inside; else float32 throughout.

    Returns:
        out.

    Raises:
        BundleError: a persona lacks a file, or what would be written could not be loaded again.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        root = Path(folder) / "bundle"
        root.mkdir()
        titles = _copy_personas(personas, root) if personas else _take_over(Path(training.config.personas_from), root)
        calibration = training.inputs(_CALIBRATION) if is_quantised else None
        write_mixer(training.mean_network(), root / MIXER, calibration)
        write_manifest(
            root,
            name=training.config.name,
            version=str(training.step),
            personas=titles,
            input_shape=ServedOneShot.spec.input_shape,
            output_shape=ServedOneShot.spec.output_shape,
            licence=_LICENCE,
            training=_facts(training),
            factory=ONE_SHOT,
        )
        Bundle.load(root).mixer()
        replace_folder(root, out)
    return out


def _copy_personas(source: Path, root: Path) -> dict[str, str]:
    """Copy persona folders and write their thumbnails; return titles by name, in order."""
    shutil.copyfile(_NOTICE, root / _NOTICE.name)
    order = source / "order.txt"
    found = sorted(path.parent.name for path in source.glob("*/reference.png"))
    names = [name for name in order.read_text().split() if name in found] if order.is_file() else found
    if not names:
        raise BundleError(f"{source} must hold folders with a reference.png, but has none. Run training.data.mosaic.")
    for name in names:
        (root / name).mkdir()
        for file in ("reference.png", "mesh.npy", "consent.json"):
            if not (source / name / file).is_file():
                raise BundleError(f"{source / name} must hold {file}, but does not. Make the persona again.")
            shutil.copyfile(source / name / file, root / name / file)
        if (source / name / "more").is_dir():
            shutil.copytree(source / name / "more", root / name / "more")
        write_thumbnail(root / name)
    return {name: name.title() for name in names}


def write_thumbnail(folder: Path) -> None:
    """Write `thumbnail.jpg` of a persona folder's `reference.png`."""
    image = cv2.imread(str(folder / "reference.png"))
    small = cv2.resize(np.asarray(image), (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "thumbnail.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 88])


def _take_over(path: Path, root: Path) -> Mapping[str, str]:
    bundle = Bundle.load(path)
    if not bundle.manifest.is_one_shot:
        raise BundleError(f"{path} holds an autoencoder and no references. Name --personas, or a one-shot bundle.")
    for name in bundle.manifest.files:
        if name != MIXER:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(bundle.read(name))
    return {persona.name: persona.title for persona in bundle.personas}


def _facts(training: MixTraining) -> dict[str, Any]:
    """Return what a model card needs to know."""
    config, curves = training.config, training.curves()
    return {
        "recipe": config.recipe,
        "iterations": training.step,
        "batch": config.batch,
        "triplets": len(training.triplets.rows),
        "faceset": training.triplets.digest,
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
