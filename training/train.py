"""Train a network: the mixing network of the one-shot swap, or an autoencoder by the classic recipe.

    uv run python -m training.train --config training/configs/oneshot.toml [--set key=value ...]
    uv run python -m training.train --config training/configs/classic.toml

A killed training goes on from its last checkpoint when the same command is run again.
KERAS_BACKEND=tensorflow (default), jax or torch; no line here depends on which.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

from training.data.triplets import TripletError
from training.model.checkpoint import CheckpointError
from training.model.classic import ClassicTraining
from training.model.config import ConfigError, TrainingConfig, load_config
from training.model.mixing import MixTraining
from understudy.bundle.bundle import BundleError
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import trust_folder
from understudy.faceset.faceset import FacesetError


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--trust", type=Path, help="folder of keys (default: UNDERSTUDY_HOME or ~/.understudy)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="override settings")
    args = parser.parse_args()
    try:
        config = load_config(args.config, args.set)
        Path(config.out).mkdir(parents=True, exist_ok=True)
        print(train_and_register(config, args.trust or trust_folder(os.environ)))
    except (BundleError, CheckpointError, ConfigError, ConsentError, FacesetError, TripletError) as error:
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
    training = MixTraining(config) if config.recipe == "oneshot" else ClassicTraining(config, trust)
    with training.tracker.run() as tracker:
        training.run()
        if keras.backend.backend() != "tensorflow":
            return _WITHOUT_TENSORFLOW.format(config.out)
        bundle = Path(config.out) / "bundle"
        if isinstance(training, MixTraining):
            from training.one_shot_bundle import export_one_shot

            export_one_shot(training, None, bundle)
        else:
            from training.export import export_bundle

            export_bundle(training, bundle)
        uri = tracker.bundle(bundle)
    return f"{bundle} is made" + (f", registered as {uri} ({config.alias})" if uri else "")


_WITHOUT_TENSORFLOW = (
    "{} is trained. Graphs are written by TensorFlow: where it is installed, run the same command with "
    "KERAS_BACKEND=tensorflow, which exports and registers."
)


if __name__ == "__main__":
    main()
