"""Turn a training of the classic recipe into a bundle: ONNX graphs in int8, looks, consent records, hashes.

uv run python -m training.export --config training/configs/classic.toml --out work/classic/bundle [--set key=value ...]
"""

import argparse
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.model.checkpoint import CheckpointError
from training.model.classic import ClassicTraining, keras_policy
from training.model.config import ConfigError, load_config
from training.network import SwapAutoencoder
from training.persona_folders import replace_folder
from understudy.bundle.bundle import BundleError, write_manifest
from understudy.consent.check import read_record, write_record
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import trust_folder
from understudy.faceset.faceset import FacesetError

_OPSET = 17
_THUMBNAIL_PX = 192
_CALIBRATION_FACES = 96


def export_bundle(training: ClassicTraining, out: Path, *, quantise: bool = True) -> Path:
    """Write a training's running mean of weights as a bundle.

    Args:
        training: as it stands; its weights are left as they were.
        out: the bundle's folder; replaced as a whole, and only once the new one is complete.
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
        write_graph(network.encoder, root / "encoder.onnx", faces if quantise else None)
        for name in training.personas:
            _write_persona(root / name, name, training)
            write_graph(network.decoders[name], root / name / "decoder.onnx", latents if quantise else None)
        _write_manifest(root, training)
        replace_folder(root, out)
    return out


def _calibration_faces(training: ClassicTraining) -> NDArray[np.float32]:
    """Return typical inputs: validation's faces as they are, and half as many in other light."""
    batches, config = training.batches, training.config
    plain = batches.validation_batch(batches.validation[:_CALIBRATION_FACES])[0]
    varied = [batches.batch(step)[0] for step in range(-(-_CALIBRATION_FACES // (2 * config.batch)))]
    return np.concatenate([part for faces in (plain, *varied) for part in faces.values()])


def mean_network(training: ClassicTraining) -> SwapAutoencoder:
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


# ---- personas and manifest -------------------------------------------------------------------------------------


def _write_persona(folder: Path, name: str, training: ClassicTraining) -> None:
    folder.mkdir()
    still = training.facesets.still(name)
    cv2.imwrite(str(folder / "still.png"), still.image)
    np.save(folder / "mesh.npy", still.mesh)
    side = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    thumbnail = cv2.resize(still.image, side, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "thumbnail.jpg"), thumbnail, [cv2.IMWRITE_JPEG_QUALITY, 88])
    write_record(folder / "consent.json", read_record(training.facesets.consent_path(name)))


def _write_manifest(root: Path, training: ClassicTraining) -> None:
    config, size = training.config, training.config.size
    write_manifest(
        root,
        name=config.name,
        version=f"{training.step}",
        personas={name: name.title() for name in training.personas},
        input_shape=(size.input_px, size.input_px, 3),
        output_shape=(size.output_px, size.output_px, 4),
        licence="Apache-2.0; whose faces its personas are, and what they agreed to, their records say",
        training=training_facts(training),
    )


def training_facts(training: ClassicTraining) -> dict[str, Any]:
    """Return what a model card needs to know: recipe, sizes, iterations, seconds, last validation figures."""
    config, curves = training.config, training.curves()
    return {
        "recipe": config.recipe,
        "iterations": training.step,
        "batch": config.batch,
        "drivers": training.facesets.count,
        "faceset": training.facesets.digest(),
        "sources": training.facesets.source_digests(),
        "seconds": round(sum(float(line["seconds"]) for line in curves), 1),
        "validation": curves[-1] if curves else {},
        "network": {name: getattr(config.size, name) for name in config.size.__slots__},
    }


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
        training = ClassicTraining(load_config(args.config, args.set), trust)
        export_bundle(training, args.out, quantise=not args.float32)
    except (BundleError, CheckpointError, ConfigError, ConsentError, FacesetError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.out}: {training.step} iterations, {', '.join(training.personas)}")


if __name__ == "__main__":
    main()
