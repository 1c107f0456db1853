"""Checkpoints that survive kill -9 and full disks: written aside, synced, renamed, and known by their digest."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.jobs.atomic_file import write_json

_KEPT = 2


class CheckpointError(RuntimeError):
    """A checkpoint does not fit the network that should take it."""


def save_checkpoint(folder: Path, step: int, arrays: list[NDArray[Any]]) -> Path:
    """Write a checkpoint; the pointer `checkpoint.json` moves to it only when it is whole on disk.

    Args:
        folder: where checkpoints live; the two newest are kept.
        step: iterations done.
        arrays: what to keep, in an order that the caller knows again.

    Raises:
        OSError: the disk is full or not writable; the older checkpoint stays valid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, temporary = folder / f"checkpoint-{step:07d}.npz", folder / "checkpoint.npz.tmp"
    try:
        with temporary.open("wb") as file:
            np.savez(file, *arrays)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    digest = _sha256(temporary)
    os.replace(temporary, path)
    earlier = [entry for entry in _entries(folder) if entry["file"] != path.name]
    kept = [{"file": path.name, "step": step, "sha256": digest}, *earlier][:_KEPT]
    write_json(folder / "checkpoint.json", kept)
    for old in folder.glob("checkpoint-*.npz"):
        if old.name not in {entry["file"] for entry in kept}:
            old.unlink()
    return path


def load_checkpoint(folder: Path) -> tuple[int, list[NDArray[Any]]] | None:
    """Return the newest whole checkpoint as (step, arrays), or None where there is none."""
    for entry in _entries(folder):
        path = folder / str(entry["file"])
        if path.is_file() and _sha256(path) == entry["sha256"]:
            with np.load(path, allow_pickle=False) as data:
                return int(entry["step"]), [data[f"arr_{i}"] for i in range(len(data.files))]
    return None


def assign(variables: list[Any], arrays: list[NDArray[Any]], what: str) -> None:
    """Put arrays into Keras variables.

    Raises:
        CheckpointError: their number or shapes differ.
    """
    shapes, found = [tuple(v.shape) for v in variables], [a.shape for a in arrays]
    if shapes != found:
        raise CheckpointError(f"{what} was made for another network or other personas. Choose another `out` folder.")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _entries(folder: Path) -> list[dict[str, Any]]:
    pointer = folder / "checkpoint.json"
    return json.loads(pointer.read_text()) if pointer.is_file() else []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
