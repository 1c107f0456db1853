"""Bundles of any kind: a manifest names its factory, and only those listed here are run.

Swaps are one kind; a face-less model is registered, promoted and served through the same doors.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from liveframe.model import BatchModel, FrameModel
from understudy.bundle.archive import unpack
from understudy.bundle.bundle import Bundle
from understudy.bundle.manifest import FACTORY as SWAP
from understudy.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES, ONE_SHOT, BundleError
from understudy.bundle.pixelate import FACTORY as PIXELATE
from understudy.bundle.pixelate import load_pixelate
from understudy.consent.persona import Persona
from understudy.consent.trust_store import Trust


@dataclass(frozen=True)
class ServableBundle:
    """A verified bundle of any kind, ready to run. Not slotted: an unpacked .zip goes with it.

    Attributes:
        name: the bundle's name.
        version: the bundle's version.
        digest: SHA-256 of its manifest, hex: its identity.
        factory: what kind it is.
        variants: what one can ask for (the personas); the first is the default.
        batch_model: variant, threads -> its model on crops.
        frame_model: variant -> its model on whole frames.
        path: the directory that holds its files.
        consents: variant -> SHA-256 of its consent record; empty where a kind needs none.
        check_use: variant, use ("live", ...), trust -> raises ConsentError where its record does not cover that.
    """

    name: str
    version: str
    digest: str
    factory: str
    variants: tuple[str, ...]
    batch_model: Callable[[str, int], BatchModel]
    frame_model: Callable[[str], FrameModel]
    path: Path
    consents: Mapping[str, str] = field(default_factory=dict[str, str])
    check_use: Callable[[str, str, Trust], object] = lambda variant, use, trust: None


def open_servable(source: Path | str) -> ServableBundle:
    """Verify a bundle of any allowed kind and open it.

    Args:
        source: its directory, or a .zip of it.

    Raises:
        BundleError: damaged, unsafe, or of a kind that is not on the list. Nothing of it has run.
    """
    path = Path(source)
    if not path.is_file():
        return _open_directory(path)
    directory = Path(tempfile.mkdtemp(prefix="any-bundle-"))
    try:
        unpack(path, directory)
        served = _open_directory(directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    weakref.finalize(served, shutil.rmtree, directory, True)
    return served


def _open_directory(directory: Path) -> ServableBundle:
    manifest = directory / MANIFEST
    if not manifest.is_file() or manifest.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"A bundle must hold a {MANIFEST} of plausible size, but {directory} does not. Check the path."
        )
    text = manifest.read_bytes()
    try:
        fields: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{manifest} must be JSON, but cannot be read: {error}. Export the bundle again.") from error
    factory: Any = fields.get("factory") if isinstance(fields, dict) else None
    if not isinstance(factory, str) or factory not in FACTORIES:
        raise BundleError(
            f"The bundle's factory must be one of {', '.join(FACTORIES)}, but is {factory!r:.80}. "
            "Only those are run; nothing of the bundle was run."
        )
    return FACTORIES[factory](directory, hashlib.sha256(text).hexdigest())


def _open_swap(directory: Path, digest: str) -> ServableBundle:
    bundle = Bundle.load(directory)
    names = tuple(persona.name for persona in bundle.personas)
    return ServableBundle(
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        digest=digest,
        factory=bundle.manifest.factory,
        variants=names,
        batch_model=lambda name, threads: _crop_model(bundle, name, threads),
        frame_model=lambda name: _face_swapper(bundle, name),
        path=directory,
        check_use=lambda name, use, trust: _persona(bundle, name).check(use, trust),
        consents={entry.name: bundle.manifest.files[entry.consent].sha256 for entry in bundle.manifest.personas},
    )


def _persona(bundle: Bundle, name: str) -> Persona:
    info = bundle.persona(name)
    return Persona.of(info)


def _crop_model(bundle: Bundle, name: str, threads: int) -> BatchModel:
    from understudy.swap.served import crop_model  # brings the mesh's runtime

    return crop_model(bundle, name, threads)


def _face_swapper(bundle: Bundle, persona: str) -> FrameModel:
    from understudy.swap.swapper import FaceSwapper, SwapSettings  # brings the detector's and the mesh's runtimes

    return FaceSwapper(bundle, settings=SwapSettings(persona=persona))


def _open_pixelate(directory: Path, digest: str) -> ServableBundle:
    model, name, version = load_pixelate(directory)
    return ServableBundle(
        name=name,
        version=version,
        digest=digest,
        factory=PIXELATE,
        variants=(name,),
        batch_model=lambda _variant, _threads: model,
        frame_model=lambda _variant: model,
        path=directory,
    )


FACTORIES: Mapping[str, Callable[[Path, str], ServableBundle]] = {
    SWAP: _open_swap,
    ONE_SHOT: _open_swap,
    PIXELATE: _open_pixelate,
}
