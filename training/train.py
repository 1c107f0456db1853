"""Train a swap autoencoder: one shared encoder, one decoder per persona.

    uv run python -m training.train --config training/configs/quick.toml [--set key=value ...]

A killed training goes on from its last checkpoint when the same command is run again.
KERAS_BACKEND=tensorflow (default), jax or torch; no line here depends on which.
"""

import argparse
import os
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from keras import ops

from training.data.augment import augment, plain, resized
from training.data.classic import ClassicBatches, Facesets
from training.data.pairs import COMMON, PairedFaceset, PairsError, split_by_file
from training.data.triplets import TripletError
from training.model.checkpoint import CheckpointError, assign
from training.model.config import ConfigError, TrainingConfig, load_config
from training.model.losses import LossWeights, dssim, swap_loss
from training.model.run import TrainingRun
from training.model.tracking import Tracker
from training.network import FAST, SwapAutoencoder, weight_names
from understudy.bundle.bundle import Bundle, BundleError
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import TrustStore, trust_folder
from understudy.draw.contact_sheet import labelled

# What --size sets: decoders of another output size cannot go on from those of a bundle.
SIZES = {"config": [], "fast": [*(f"size.{key}={value}" for key, value in asdict(FAST).items()), 'start_from=""']}
Faces = NDArray[np.float32] | dict[str, NDArray[np.float32]]
Batch = tuple[Faces, dict[str, NDArray[np.uint8]]]
Made = tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]


# ---- data ------------------------------------------------------------------------------------------------------


class PairedBatches:
    """Batches of drivers and their targets, by step: the same step gives the same batch, so runs resume exactly."""

    def __init__(self, config: TrainingConfig, pairs: PairedFaceset, personas: list[str]) -> None:
        self.config, self.personas = config, personas
        self._drivers, self._maps = pairs.drivers.crops, pairs.array("maps", 2)
        self._targets = [self._drivers if n == COMMON else pairs.array(f"targets/{n}", 3) for n in personas]
        files = [file for file, _ in pairs.index.sources]
        self.validation, self.training = split_by_file(files, min(config.validation, len(files) // 5), config.seed)

    def batch(self, step: int) -> Batch:
        """Return a training batch: faces float32 [B, I, I, 3] 0..1, and targets uint8 [B, O, O, 5] by persona.

        Where the batch is split, faces by persona, float32 [B / P, I, I, 3], and targets of these alone.
        """
        rng = np.random.default_rng((self.config.seed, step))
        rows = rng.choice(self.training, self.config.batch)
        others = rng.choice(self.training, self.config.batch)
        if not self.config.split:
            return self._stack(self._made(rng, rows, others, range(len(self.personas))), self.personas)
        share = self.config.batch // len(self.personas)
        faces, targets = {}, {}
        for i, name in enumerate(self.personas):
            part = slice(i * share, (i + 1) * share)
            faces[name], target = self._stack(self._made(rng, rows[part], others[part], [i]), [name])
            targets |= target
        return faces, targets

    def _made(self, rng: np.random.Generator, rows: Any, others: Any, which: Iterable[int]) -> list[Made]:
        """Vary drivers and their targets for the personas of these places."""
        targets = [self._targets[i] for i in which]
        how = self.config.augmentation
        return [
            augment(rng, self._drivers[r], self._maps[r], [target[r] for target in targets], how, self._drivers[o])
            for r, o in zip(rows, others, strict=True)
        ]

    def validation_batch(self, rows: NDArray[np.int64]) -> Batch:
        """Return rows without variation, as `batch`."""
        made = [plain(self._drivers[r], self._maps[r], [target[r] for target in self._targets]) for r in rows]
        return self._stack(made, self.personas)

    def _stack(self, made: list[Made], personas: list[str]) -> tuple[NDArray[np.float32], dict[str, NDArray[np.uint8]]]:
        size = self.config.size
        faces = np.stack([resized(face, size.input_px) for face, _ in made]).astype(np.float32) / 255
        targets = {
            name: np.stack([resized(wanted[i], size.output_px) for _, wanted in made])
            for i, name in enumerate(personas)
        }
        return faces, targets


def fed(batches: PairedBatches, first: int, last: int) -> Iterator[Batch]:
    """Yield the batches of steps first..last-1, made ahead in a thread; an error there is raised here."""
    ahead: queue.Queue[Batch | BaseException] = queue.Queue(6)
    stop = threading.Event()

    def feed() -> None:
        try:
            for step in range(first, last):
                item = batches.batch(step)
                while not stop.is_set():
                    try:
                        ahead.put(item, timeout=0.5)
                        break
                    except queue.Full:
                        continue
                if stop.is_set():
                    return
        except BaseException as error:
            ahead.put(error)

    thread = threading.Thread(target=feed, name="batches", daemon=True)
    thread.start()
    try:
        for _ in range(first, last):
            item = ahead.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()


# ---- the model as it trains ------------------------------------------------------------------------------------


class SwapTrainer(keras.Model):
    """The autoencoder with its loss, for Keras' own train_on_batch on any backend."""

    def __init__(self, network: SwapAutoencoder, weights: LossWeights, frozen_encoder: bool) -> None:
        super().__init__()
        self.encoder, self.parts = network.encoder, list(network.decoders.values())
        self.names, self.loss_weights = list(network.decoders), weights
        self.encoder.trainable = not frozen_encoder

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return each persona's swap: float32 [N, I, I, 3] -> float32 [N, O, O, 4] by name."""
        if isinstance(inputs, dict):  # every persona has faces of its own, as many as the others
            faces = ops.concatenate([inputs[name] for name in self.names])
            latents = ops.split(self.encoder(faces, training=training), len(self.names))
        else:
            latents = [self.encoder(inputs, training=training)] * len(self.parts)
        return {
            name: part(latent, training=training)
            for name, part, latent in zip(self.names, self.parts, latents, strict=True)
        }

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the sum of the personas' losses: what Keras minimises."""
        return sum(swap_loss(y_pred[name], y[name], self.loss_weights) for name in self.names)


def has_bfloat16() -> bool:
    """Whether this CPU computes bfloat16 itself (AVX512-BF16 or AMX)."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def share_over_devices(batch: int) -> None:
    """Share every batch over all devices (JAX: keras.distribution has data parallelism there), where there are several.

    Raises:
        ConfigError: the batch cannot be shared evenly.
    """
    if keras.backend.backend() != "jax":
        return
    devices = keras.distribution.list_devices()
    if len(devices) < 2:
        return
    if batch % len(devices):
        raise ConfigError(f"batch must be a multiple of the {len(devices)} devices, but got {batch}.")
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))


@contextmanager
def keras_policy(name: str) -> Iterator[None]:
    """Build layers under a policy of precision; the process's own comes back afterwards."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def build_trainer(config: TrainingConfig, personas: list[str]) -> tuple[SwapAutoencoder, SwapTrainer]:
    """Build the network and compile it: Adam with a cosine, a running mean of weights, no XLA."""
    keras.utils.set_random_seed(config.seed)
    share_over_devices(config.batch)
    policy = "mixed_bfloat16" if config.bfloat16 and has_bfloat16() else "float32"
    with keras_policy(policy):  # of these layers alone: the process may train or export something else next
        network = SwapAutoencoder.build(config.size, personas)
        trainer = SwapTrainer(network, config.loss, config.frozen_encoder)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, config.iterations - config.warm_up),
        0.05,
        warmup_target=config.learning_rate,
        warmup_steps=config.warm_up,
    )
    optimizer = keras.optimizers.Adam(schedule, use_ema=True, ema_momentum=config.ema)
    trainer.compile(optimizer=optimizer, jit_compile=False)
    nobody = np.zeros((1, config.size.input_px, config.size.input_px, 3), np.float32)
    trainer(dict.fromkeys(personas, nobody) if config.recipe == "classic" else nobody)
    optimizer.build(trainer.trainable_variables)
    return network, trainer


def load_start(network: SwapAutoencoder, bundle: Path) -> None:
    """Put a bundle's encoder into a network, and its decoders into those of the same name.

    Decoders of other names start as the bundle's first persona: better than chance. Where the network takes in
    patches of another size, its stem starts randomly initialised.

    Raises:
        BundleError: the bundle is damaged, or holds nothing to train on.
        CheckpointError: its network has another size.
    """
    folders = {persona.name: persona.still.parent for persona in Bundle.load(bundle).personas}
    first = next(iter(folders.values()))
    parts = [(bundle / "encoder.npz", network.encoder)]
    for name, part in network.decoders.items():
        own = folders.get(name, first) / "decoder.npz"
        # Bundles of earlier versions hold one decoder for all.
        parts.append((own if own.is_file() else bundle / own.name, part))
    for path, part in parts:
        if not path.is_file():
            raise BundleError(f"{bundle} must hold {path.name} to train on, but does not. Export it with this version.")
        arrays = read_start(path, part)
        if part is network.encoder and part.trainable and arrays[0].shape != part.weights[0].shape:
            arrays[0] = ops.convert_to_numpy(part.weights[0])
        assign(part.weights, arrays, str(bundle))


def read_start(path: Path, part: keras.Model) -> list[NDArray[np.float32]]:
    """Return a model's weights as `training.export.write_start` wrote them, in the order of its own.

    Raises:
        CheckpointError: they are another network's.
    """
    with np.load(path, allow_pickle=False) as data:
        names = weight_names(part)
        if "arr_0" in data.files:  # a bundle of an earlier version keeps them by place
            names = [f"arr_{i}" for i in range(len(data.files))]
        elif odd := sorted({*names} ^ {*data.files}):
            raise CheckpointError(
                f"{path} must hold the weights of this network, but differs in {', '.join(odd[:4])}. "
                "Train with the size that the bundle was made with."
            )
        return [data[name].astype(np.float32) for name in names]


# ---- the run ---------------------------------------------------------------------------------------------------


class Training(TrainingRun):
    """One training, from its last checkpoint to its last step."""

    def __init__(self, config: TrainingConfig, trust: Path) -> None:
        super().__init__(config)
        is_classic = config.recipe == "classic"
        self.pairs = Facesets(config.facesets) if config.facesets else PairedFaceset(Path(config.pairs))
        chosen = config.personas or self.pairs.personas
        missing = [name for name in chosen if name not in self.pairs.personas]
        if missing:
            raise PairsError(
                f"{config.pairs} must hold {missing}, but has {self.pairs.personas}. Run training.reenact."
            )
        for name in chosen:
            self.pairs.check_consent(name, trust)
        self.personas = [*chosen, *([COMMON] if config.common else [])]
        if config.split and config.batch % len(self.personas):
            raise ConfigError(f"a split batch must be a multiple of {len(self.personas)}, but got {config.batch}.")
        make: Any = ClassicBatches if is_classic else PairedBatches
        self.batches = make(config, self.pairs, self.personas)
        self.network, self.trainer = build_trainer(config, self.personas)
        self.tracker = Tracker(config, self.pairs.digest())
        if not self._resume() and config.start_from:
            load_start(self.network, Path(config.start_from))

    def _batches(self, end: int) -> Iterator[Batch]:
        return fed(self.batches, self.step, end)

    def _judged(self) -> tuple[dict[str, float], NDArray[np.uint8]]:
        faces, targets = self.batches.validation_batch(self.batches.validation[:24])
        predicted = {n: np.asarray(p) for n, p in self.trainer.predict_on_batch(faces).items()}
        ssims = {f"ssim_{name}": round(_masked_ssim(predicted[name], targets[name]), 4) for name in self.personas}
        shown = faces if isinstance(faces, dict) else dict.fromkeys(self.personas, faces)
        return ssims, preview_sheet(shown, predicted, targets)


def _masked_ssim(predicted: NDArray[np.float32], target: NDArray[np.uint8]) -> float:
    wanted = target.astype(np.float32) / 255
    mask = wanted[..., 3:4]
    return 1 - 2 * float(ops.convert_to_numpy(dssim(predicted[..., :3] * mask, wanted[..., :3] * mask)))


def preview_sheet(
    faces: dict[str, NDArray[np.float32]],
    predicted: dict[str, NDArray[np.float32]],
    targets: dict[str, NDArray[np.uint8]],
    rows: int = 12,
) -> NDArray[np.uint8]:
    """Return a sheet, labelled: per persona driver, target, prediction and swap; uint8 [H, W, 3], BGR."""
    lines: list[NDArray[np.float32]] = []
    for i in range(min(rows, *(len(batch) for batch in faces.values()))):
        cells: list[Any] = []
        for name, output in predicted.items():
            side = output.shape[1]
            driver = cv2.resize(faces[name][i], (side, side), interpolation=cv2.INTER_LINEAR)
            colour, mask = output[i, ..., :3], output[i, ..., 3:4]
            wanted = targets[name][i, ..., :3] / np.float32(255)
            cells += [driver, wanted, colour, driver * (1 - mask) + colour * mask]
        lines.append(np.hstack(cells))
    half = (len(lines) + 1) // 2
    lines += [np.zeros_like(lines[0])] * (2 * half - len(lines))
    sheet = np.hstack([np.vstack(lines[:half]), np.vstack(lines[half:])])
    small = cv2.resize(sheet, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return labelled(np.clip(small * 255, 0, 255).astype(np.uint8))


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--trust", type=Path, help="folder of keys (default: UNDERSTUDY_HOME or ~/.understudy)")
    parser.add_argument(
        "--size", choices=SIZES, default="config", help="fast: 128 px out, randomly initialised (%(default)s)"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="override settings")
    args = parser.parse_args()
    try:
        config = load_config(args.config, [*SIZES[args.size], *args.set])
        Path(config.out).mkdir(parents=True, exist_ok=True)
        print(train_and_register(config, args.trust or trust_folder(os.environ)))
    except (CheckpointError, ConfigError, ConsentError, PairsError, BundleError, TripletError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error}. What was checkpointed is safe; free some disk space and run the same command again.")


def train_and_register(config: TrainingConfig, trust: Path) -> str:
    """Train to the last step, export the bundle into config.out/bundle, register it.

    Args:
        config: what to train.
        trust: the folder of keys (understudy.consent.trust_store).

    Returns:
        What was made, in a sentence.
    """
    if config.recipe == "oneshot":
        return _train_mixer(config)
    from training.export import export_bundle

    training = Training(config, trust)
    with training.tracker.run() as tracker:
        training.run()
        if keras.backend.backend() != "tensorflow":
            return _WITHOUT_TENSORFLOW.format(config.out)
        bundle = export_bundle(training, Path(config.out) / "bundle", TrustStore(trust))
        uri = tracker.bundle(bundle)
    return f"{bundle} holds {', '.join(training.personas)}" + (f", registered as {uri} ({config.alias})" if uri else "")


_WITHOUT_TENSORFLOW = (
    "{} is trained. Graphs are written by TensorFlow: where it is installed, run the same command with "
    "KERAS_BACKEND=tensorflow, which exports and registers."
)


def _train_mixer(config: TrainingConfig) -> str:
    """Train the mixing network, write its bundle with the personas of `personas_from`, and register it."""
    from training.model.mixing import MixTraining
    from training.one_shot_bundle import export_one_shot

    training = MixTraining(config)
    with training.tracker.run() as tracker:
        training.run()
        if keras.backend.backend() != "tensorflow":
            return _WITHOUT_TENSORFLOW.format(config.out)
        bundle = export_one_shot(training, None, Path(config.out) / "bundle")
        uri = tracker.bundle(bundle)
    return f"{bundle} holds one mixing network" + (f", registered as {uri} ({config.alias})" if uri else "")


if __name__ == "__main__":
    main()
