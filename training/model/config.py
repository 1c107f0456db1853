"""The training's settings: a TOML file, checked, with overrides from the command line."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from training.model.losses import LossWeights, MixLoss
from training.network import NetworkSize

DEFAULT = "default"


class ConfigError(ValueError):
    """A configuration has an unknown key or a value of the wrong kind."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """All that a training depends on.

    Attributes:
        name: of the model in the registry.
        triplets: for the one-shot recipe, the folder of triplets (training.data.triplets).
        mixer_width: for the one-shot recipe, the mixing network's channels at half resolution.
        personas_from: for the one-shot recipe, the bundle whose personas the exported one takes over; empty: the one
            that ships.
        mix: for the one-shot recipe, how much each part of the loss counts.
        recipe: "oneshot" (the mixing network, for all personas at once) or "classic" (an autoencoder: random warp, two
            facesets or more).
        facesets: for the classic recipe, a faceset's folder by persona name.
        out: where checkpoints and previews go.
        iterations: how many steps in all.
        batch: faces per step, by the classic recipe for each persona.
        learning_rate: of Adam at the start; falls to a twentieth on a cosine.
        warm_up: steps in which the learning rate rises.
        ema: momentum of the running mean of weights, which is what is exported.
        checkpoint_every, preview_every: in steps.
        validation: how many faces or triplets are kept for validation.
        seed: of everything random.
        alias: the registry alias that the new version gets.
        tracking: MLflow's address; "default" for the environment's, else the work folder's; "" tracks nothing.
        bfloat16: compute in mixed_bfloat16 where the CPU has it.
    """

    name: str = "understudy"
    triplets: str = "work/triplets"
    mixer_width: int = 24
    personas_from: str = ""
    recipe: str = "oneshot"
    facesets: dict[str, str] = field(default_factory=dict[str, str])
    out: str = "work/training"
    iterations: int = 20_000
    batch: int = 8
    learning_rate: float = 5e-4
    warm_up: int = 200
    ema: float = 0.99
    checkpoint_every: int = 250
    preview_every: int = 500
    validation: int = 64
    seed: int = 1
    alias: str = "challenger"
    tracking: str = DEFAULT
    bfloat16: bool = True
    size: NetworkSize = field(default_factory=NetworkSize)
    loss: LossWeights = field(default_factory=LossWeights)
    mix: MixLoss = field(default_factory=MixLoss)

    def __post_init__(self) -> None:
        if self.recipe not in ("oneshot", "classic"):
            raise ConfigError(f"recipe must be oneshot or classic, but got {self.recipe!r}.")
        if self.facesets and self.recipe != "classic":
            raise ConfigError("[facesets] must be given to the classic recipe only; the one-shot one has triplets.")
        if self.recipe == "classic" and len(self.facesets) < 2:
            raise ConfigError("the classic recipe must have two [facesets] or more.")


def load_config(path: Path, overrides: list[str]) -> TrainingConfig:
    """Read a configuration.

    Args:
        path: a TOML file; tables [size], [loss] and [mix] hold those parts.
        overrides: "key=value" or "part.key=value", values as in TOML; text may go without quotes.

    Raises:
        ConfigError: a key is unknown, a value is of the wrong kind, or the file is not TOML.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} must be a readable TOML file, but {error}.") from None
    for override in overrides:
        key, found, text = override.partition("=")
        if not found:
            raise ConfigError(f"--set must be key=value, but got {override!r}.")
        *parts, last = key.split(".")
        table = values
        for part in parts:
            table = table.setdefault(part, {})
        table[last] = _parse(text)
    return _build(TrainingConfig, values, str(path))


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _build(kind: type[Any], values: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    built: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{where}: {key!r} is not a setting. It must be one of {', '.join(known)}.")
        wanted = hints[key]
        if dataclasses.is_dataclass(wanted):
            value = _build(wanted, value, f"{where} [{key}]")  # type: ignore[arg-type]
        elif wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif not isinstance(value, getattr(wanted, "__origin__", wanted)):
            raise ConfigError(f"{where}: {key} must be {wanted}, but got {value!r}.")
        built[key] = value
    return kind(**built)
