"""Turn a training into a bundle: ONNX graphs in int8, persona looks, consent records, hashes.

uv run python -m training.export --config training/configs/default.toml --out bundles/default [--set key=value ...]
"""

import argparse
import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.classic import Facesets
from training.data.pairs import COMMON, PairedFaceset, PairsError
from training.model.checkpoint import CheckpointError
from training.model.config import ConfigError, TrainingConfig, load_config
from training.network import SwapAutoencoder, weight_names
from training.still import refitted
from training.train import Training, keras_policy
from understudy.bundle.bundle import Bundle, BundleError, write_manifest
from understudy.consent.check import read_record, synthetic_record
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import TrustStore, trust_folder

_OPSET = 17
_THUMBNAIL_PX = 192
_CALIBRATION_FACES = 96


def export_bundle(training: Training, out: Path, trust: TrustStore, *, quantise: bool = True) -> Path:
    """Write a training's running mean of weights as a bundle.

    Args:
        training: as it stands; its weights are left as they were.
        out: the bundle's folder; replaced as a whole, and only once the new one is complete.
        trust: where the key lies that signs the personas' records.
        quantise: int8 inside (static, QDQ), float32 at the ends; else float32 throughout.

    Returns:
        out.

    Raises:
        BundleError: what would be written could not be loaded again.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    network = mean_network(training)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        root = Path(folder) / "bundle"
        root.mkdir()
        faces = _calibration_faces(training)
        latents = np.asarray(network.encoder.predict(faces, batch_size=16, verbose=0))
        earlier = _copy_base(training.config, root)
        if not earlier:
            write_graph(network.encoder, root / "encoder.onnx", faces if quantise else None)
            write_start(network.encoder, root / "encoder.npz")
        for name in training.personas:
            if name != COMMON:
                _write_persona(root / name, name, training, trust)
                write_graph(network.decoders[name], root / name / "decoder.onnx", latents if quantise else None)
                write_start(network.decoders[name], root / name / "decoder.npz")
        _write_manifest(root, training, earlier)
        replace_folder(root, out)
    return out


def _calibration_faces(training: Training) -> NDArray[np.float32]:
    """Return typical inputs: validation's faces as they are, and half as many in other light."""
    batches, config = training.batches, training.config
    plain = batches.validation_batch(batches.validation[:_CALIBRATION_FACES])[0]
    varied = [batches.batch(step)[0] for step in range(-(-_CALIBRATION_FACES // (2 * config.batch)))]
    parts = [part for faces in (plain, *varied) for part in (faces.values() if isinstance(faces, dict) else [faces])]
    return np.concatenate(parts)


def mean_network(training: Training) -> SwapAutoencoder:
    """Return a float32 copy of the network with the running mean of its weights."""
    trainer = training.trainer
    kept = trainer.get_weights()
    trainer.optimizer.finalize_variable_values(trainer.trainable_variables)
    means = [part.get_weights() for part in (training.network.encoder, *training.network.decoders.values())]
    trainer.set_weights(kept)
    with keras_policy("float32"):
        network = SwapAutoencoder.build(training.config.size, training.personas)
    for part, weights in zip((network.encoder, *network.decoders.values()), means, strict=True):
        part.set_weights(weights)
    return network


# ---- graphs ----------------------------------------------------------------------------------------------------


def write_graph(model: Any, path: Path, calibration: NDArray[np.float32] | None) -> None:
    """Write a Keras model as ONNX, one input and one output, in int8 when there are inputs to calibrate with.

    Args:
        model: a functional Keras model; its input's and output layer's names name the graph's ends.
        path: the file to write.
        calibration: float32 [N, ...] typical inputs, or None for a float32 graph.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    name_in, name_out = model.inputs[0].name, model.layers[-1].name
    signature = [tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, name=name_in)]
    function = tf.function(lambda x: {name_out: model(x, training=False)}, input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=_OPSET)
    _rename(proto.graph, proto.graph.input[0].name, name_in)
    _rename(proto.graph, proto.graph.output[0].name, name_out)
    if calibration is None:
        onnx.save(proto, str(path))
    else:
        quantise(proto, path, name_in, calibration)


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*graph.input, *graph.output):
        if value.name == old:
            value.name = new


def quantise(
    proto: Any, path: Path, name_in: str, calibration: NDArray[np.float32], excluded: Sequence[str] | None = None
) -> None:
    """Static int8: per-channel weights, QDQ pairs; the last convolution stays float32, lest smooth skin band.

    Weights keep to 7 bits: without VNNI (AVX2 alone) two products of u8 and s8 are added in 16 bits, which would
    saturate, worst on bright faces. Ranges leave out the rarest hundred-thousandth: one outlier coarsens all others.
    ReLU and the moves of pixels are quantised too: a convolution's range is then what its ReLU lets through, at once.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            size = min(8, len(calibration))  # the calibrator wants batches of one size
            whole = calibration[: len(calibration) // size * size]
            self._rows: Iterator[NDArray[np.float32]] = iter(whole.reshape(-1, size, *whole.shape[1:]))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            rows = next(self._rows, None)
            return None if rows is None else {name_in: rows}

    # The calibrator tells stdout, which is the caller's, what it does.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        raw, prepared = Path(folder) / "raw.onnx", Path(folder) / "prepared.onnx"
        onnx.save(proto, str(raw))
        quant_pre_process(str(raw), str(prepared), skip_symbolic_shape=True)
        last = [node.name for node in onnx.load(str(prepared)).graph.node if node.op_type == "Conv"][-1:]
        quantize_static(
            str(prepared),
            str(path),
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            calibrate_method=CalibrationMethod.Percentile,
            nodes_to_exclude=list(excluded) if excluded is not None else last if name_in == "latent" else [],
            op_types_to_quantize=["Conv", "MatMul", "Gemm", "Add", "Relu", "Reshape", "Transpose"],
        )


def write_start(part: Any, path: Path) -> None:
    """Write what later trainings start from: float16 weights of the encoder or of a decoder."""
    weights = [np.asarray(weight).astype(np.float16) for weight in part.get_weights()]
    np.savez(path, **dict(zip(weight_names(part), weights, strict=True)))


# ---- personas and manifest -------------------------------------------------------------------------------------


def _copy_base(config: TrainingConfig, root: Path) -> dict[str, str]:
    """With a frozen encoder, start from the bundle it came from; returns its personas' titles by name."""
    if not (config.frozen_encoder and config.start_from):
        return {}
    base = Bundle.load(config.start_from)
    for name in base.manifest.files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base.path / name, root / name)
    return {persona.name: persona.title for persona in base.personas}


def _write_persona(folder: Path, name: str, training: Training, trust: TrustStore) -> None:
    folder.mkdir(exist_ok=True)
    still = refitted(training.pairs.still(name))
    cv2.imwrite(str(folder / "still.png"), still.image)
    np.save(folder / "mesh.npy", still.mesh)
    side = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    thumbnail = cv2.resize(still.image, side, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "thumbnail.jpg"), thumbnail, [cv2.IMWRITE_JPEG_QUALITY, 88])
    record = consent_record(training.pairs, name, folder / "still.png", trust)
    (folder / "consent.json").write_text(json.dumps(record, indent=1))


def consent_record(pairs: PairedFaceset | Facesets, name: str, still: Path, trust: TrustStore) -> dict[str, Any]:
    """Return a persona's consent record: made here for composites, brought along for people.

    Raises:
        PairsError: the persona shows a person, and the paired faceset holds no record of their consent.
    """
    recipe, given = pairs.recipe(name), pairs.consent_path(name)
    if given.is_file():
        return read_record(given).to_json()
    if recipe.get("kind") != "composite":
        raise PairsError(f"{name} shows a person and must have a consent record. Make one: understudy.consent make.")
    return synthetic_record(name, recipe, [still], trust.signing_key())


def _write_manifest(root: Path, training: Training, earlier: dict[str, str]) -> None:
    config, size = training.config, training.config.size
    personas = earlier | {
        name: str(training.pairs.recipe(name).get("title", name.title()))
        for name in training.personas
        if name != COMMON
    }
    write_manifest(
        root,
        name=config.name,
        version=f"{training.step}",
        personas=personas,
        input_shape=(size.input_px, size.input_px, 3),
        output_shape=(size.output_px, size.output_px, 4),
        licence="Apache-2.0; personas are composites of machine-made faces unless their record says otherwise",
        training=_facts_with_base(training),
    )


def _facts_with_base(training: Training) -> dict[str, Any]:
    facts = training_facts(training)
    if not (training.config.frozen_encoder and training.config.start_from):
        return facts
    base = dict(Bundle.load(training.config.start_from).manifest.training)
    return {**base, "added": {**base.get("added", {}), **dict.fromkeys(training.personas, facts)}}


def training_facts(training: Training) -> dict[str, Any]:
    """Return what a model card needs to know: recipe, sizes, iterations, seconds, last validation figures.

    Of a bundle that got more personas on its frozen encoder: its own facts, and theirs under `added`.
    """
    config: TrainingConfig = training.config
    curves = training.curves()
    return {
        "recipe": config.recipe,
        "iterations": training.step,
        "batch": config.batch,
        "drivers": training.pairs.count,
        "faceset": training.pairs.digest(),
        "sources": training.pairs.source_digests(),
        "seconds": round(sum(float(line["seconds"]) for line in curves), 1),
        "validation": curves[-1] if curves else {},
        "network": {name: getattr(config.size, name) for name in config.size.__slots__},
    }


def replace_folder(new: Path, out: Path) -> None:
    """Put a finished folder in the place of an old one."""
    if out.exists():
        old = new.parent / "old"
        out.rename(old)
        new.rename(out)
        shutil.rmtree(old)
    else:
        new.rename(out)


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trust", type=Path, default=None, help="trust store folder (default: the user's)")
    parser.add_argument("--float32", action="store_true", help="do not quantise")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="override settings")
    args = parser.parse_args()
    try:
        trust = args.trust or trust_folder(os.environ)
        training = Training(load_config(args.config, args.set), trust)
        export_bundle(training, args.out, TrustStore(trust), quantise=not args.float32)
    except (CheckpointError, ConfigError, ConsentError, PairsError, BundleError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.out}: {training.step} iterations, {', '.join(training.personas)}")


if __name__ == "__main__":
    main()
