"""What is deployed: networks, personas and a manifest with hashes; verified before use."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from liveframe.errors import FrameError, ModelError
from liveframe.model import BatchModel, BatchSpec, check_batch
from understudy.bundle.archive import pack, unpack
from understudy.bundle.graph_check import check_graph
from understudy.bundle.manifest import (
    MANIFEST,
    MAX_BUNDLE_BYTES,
    MAX_FILES,
    BundleError,
    Manifest,
    PersonaEntry,
    parse_manifest,
    write_manifest,
)
from understudy.vision.face import MESH_POINTS
from understudy.vision.onnx_session import open_session
from understudy.vision.reference import ReferenceFace

__all__ = [
    "Bundle",
    "BundleError",
    "PersonaInfo",
    "SwapModel",
    "default_bundle",
    "load_swap_model",
    "pack",
    "write_manifest",
]

MAX_BATCH = 16


class _Port(Protocol):
    name: str
    type: str
    shape: Sequence[int | str | None]


class _Session(Protocol):
    """What we use of onnxruntime.InferenceSession, which comes without types."""

    def run(self, names: list[str], feed: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]: ...
    def get_inputs(self) -> Sequence[_Port]: ...
    def get_outputs(self) -> Sequence[_Port]: ...


def default_bundle() -> Path:
    """Where the bundle that ships with the product lies."""
    return Path(__file__).resolve().parents[2] / "bundles" / "default"


@dataclass(frozen=True, slots=True)
class PersonaInfo:
    """A persona of a loaded bundle, with the paths of its verified files.

    Attributes:
        name: identifier.
        title: what people read.
        thumbnail: JPEG to pick the persona by.
        still: PNG, the look that reenactment warps.
        mesh: .npy, float32 [468, 3], the still's mesh in px.
        consent: JSON, the consent record, or a machine-made persona's recipe.
        more: PNG each, further references in other poses and expressions.
    """

    name: str
    title: str
    thumbnail: Path
    still: Path
    mesh: Path
    consent: Path
    more: tuple[Path, ...] = ()


class SwapModel:
    """One persona's BatchModel: uint8 [N, S, S, 3] BGR crops -> uint8 [N, R, R, 4] BGR and mask.

    Stateless and thread-safe. Sizes are in `spec`; R may differ from S.
    """

    def __init__(self, encoder: _Session, decoder: _Session, spec: BatchSpec) -> None:
        self.spec = spec
        self._encoder = encoder
        self._decoder = decoder

    def predict(self, batch: NDArray[np.uint8], **extras: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Swap a batch of crops.

        Args:
            batch: uint8 [N, S, S, 3], BGR, N from 1 to `spec.max_batch`.
            **extras: none.

        Returns:
            uint8 [N, R, R, 4], BGR and mask (255: the persona), a fresh array.

        Raises:
            FrameError: the batch has another shape or dtype, or too many items.
            ModelError: the runtime failed, or answered with NaN or infinity.
        """
        self._check(batch)
        check_batch(batch, self.spec, extras)
        face = np.multiply(batch, np.float32(1 / 255), dtype=np.float32)
        try:
            latent = self._encoder.run(["latent"], {"face": face})
            swap = self._decoder.run(["swap"], {"latent": latent[0]})[0]
        except Exception as error:  # the runtime's errors share no base class
            raise ModelError(f"The swap network failed: {error}. Pick another persona or reload the bundle.") from error
        return _to_bytes(swap, self.spec.output_shape)

    def _check(self, batch: NDArray[np.uint8]) -> None:
        is_batch = batch.dtype == np.uint8 and batch.ndim == 4 and batch.shape[1:] == self.spec.input_shape
        if not is_batch or not 1 <= len(batch) <= self.spec.max_batch:
            height, width, channels = self.spec.input_shape
            raise FrameError(
                f"A batch must be uint8 [1..{self.spec.max_batch}, {height}, {width}, {channels}], "
                f"but got {batch.dtype} {list(batch.shape)}. Align the faces to the bundle's input size."
            )


class MixingNetwork:
    """The network that mixes photo and driver: what `understudy.swap.one_shot.Mixer` says. Thread-safe.

    Args:
        session: runs the graph.
        member: how errors name it.

    Raises:
        BundleError: the graph has other ports.
    """

    def __init__(self, session: _Session, member: str) -> None:
        inputs = [(port.name, list(port.shape)[1:]) for port in session.get_inputs()]
        outputs = {port.name: list(port.shape)[1:] for port in session.get_outputs()}
        side = inputs[0][1][0] if len(inputs) == 1 and len(inputs[0][1]) == 3 else 0
        if inputs != [("inputs", [side, side, 7])] or outputs.get("opacity") != [side, side, 1]:
            raise BundleError(
                f"{member} must map 'inputs' [N, S, S, 7] to 'opacity' [N, S, S, 1], but maps {inputs} to {outputs}. "
                "Export it again."
            )
        self._session = session

    def mix(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return opacity, float32 [N, 128, 128], 0 to 1.

        Args:
            inputs: float32 [N, 128, 128, 7], 0 to 1: driver BGR, lit reference BGR, soft coverage.

        Raises:
            ModelError: the runtime failed, or answered with NaN or infinity.
        """
        try:
            (opacity,) = self._session.run(["opacity"], {"inputs": inputs})
        except Exception as error:  # the runtime's errors share no base class
            raise ModelError(f"The mixing network failed: {error}. Reload the bundle.") from error
        if not np.isfinite(opacity.sum()):
            raise ModelError("The mixing network must answer with finite numbers, but gave NaN. Reload the bundle.")
        return opacity[..., 0]


class Bundle:
    """A verified bundle. Thread-safe; viewers share it, and with it the networks' sessions.

    Attributes:
        manifest: what the bundle says about itself.
        personas: in the order to show them.
        digest: SHA-256 of the manifest, and so of everything: the bundle's identity.
        path: the directory that holds its files.
    """

    def __init__(self, path: Path, manifest: Manifest, digest: str) -> None:
        """Use `Bundle.load`: this does not verify."""
        self.path = path
        self.manifest = manifest
        self.digest = digest
        self.personas = tuple(_persona_info(path, entry) for entry in manifest.personas)
        self._lock = threading.Lock()
        self._sessions: dict[tuple[str, int], _Session] = {}

    @classmethod
    def load(cls, source: Path | str) -> Bundle:
        """Verify a bundle and open it; no network is built yet.

        Args:
            source: a bundle's directory, or a .zip of one (unpacked to a temporary directory that goes with
                the Bundle).

        Raises:
            BundleError: anything about it is damaged, unknown or unsafe. Nothing of it has run.
        """
        path = Path(source)
        if path.is_dir():
            return cls._open(path)
        if not path.is_file():
            raise BundleError(f"A bundle must be a directory or a .zip, but {path} does not exist. Check the path.")
        directory = Path(tempfile.mkdtemp(prefix="understudy-bundle-"))
        try:
            unpack(path, directory)
            bundle = cls._open(directory)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        weakref.finalize(bundle, shutil.rmtree, directory, True)
        return bundle

    @classmethod
    def _open(cls, directory: Path) -> Bundle:
        path = directory / MANIFEST
        if not path.is_file() or path.is_symlink():
            raise BundleError(f"A bundle must hold {MANIFEST}, but {directory} has none. Check the path.")
        text = path.read_bytes()
        manifest = parse_manifest(text)
        _check_inventory(directory, manifest)
        bundle = cls(directory, manifest, hashlib.sha256(text).hexdigest())
        graphs = {manifest.network, *(entry.decoder for entry in manifest.personas)}
        for name in manifest.files:
            content = bundle.read(name)
            if name in graphs or name.endswith(".onnx"):
                check_graph(content, name)
        return bundle

    def read(self, name: str) -> bytes:
        """A member's content, checked against its hash at every reading.

        Raises:
            BundleError: the manifest does not list it, or the file is gone or not what was hashed.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{self.path} must list {name!r} to read it, but does not. Check the name.")
        try:
            content = (self.path / name).read_bytes()
        except OSError as error:
            raise BundleError(
                f"{self.path / name} must be readable, but is not ({error.strerror}). Fetch the bundle again."
            ) from error
        if len(content) != entry.size_bytes or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise BundleError(
                f"{self.path / name} must hold the {entry.size_bytes} bytes that were hashed, but differs. "
                "Fetch the bundle again."
            )
        return content

    def persona(self, name: str) -> PersonaInfo:
        """The persona of that name.

        Raises:
            BundleError: there is none.
        """
        return self.personas[self._index(name)]

    def still(self, name: str) -> ReferenceFace:
        """The reference of a persona, checked against its hash.

        Raises:
            BundleError: there is no such persona, or its reference is not a picture and a mesh.
        """
        entry = self.manifest.personas[self._index(name)]
        return self._reference(entry.still, entry.mesh)

    def references(self, name: str) -> tuple[ReferenceFace, ...]:
        """All references of a persona, the first one first; raises as `still` does."""
        entry = self.manifest.personas[self._index(name)]
        return tuple(self._reference(*pair) for pair in ((entry.still, entry.mesh), *entry.more))

    def _reference(self, picture: str, points: str) -> ReferenceFace:
        image = cv2.imdecode(np.frombuffer(self.read(picture), np.uint8), cv2.IMREAD_COLOR)
        try:
            mesh = np.load(io.BytesIO(self.read(points)), allow_pickle=False)
        except (OSError, ValueError) as error:
            raise BundleError(f"{points} must be an array, but {error}. Export the bundle again.") from None
        if image is None or mesh.ndim != 2 or len(mesh) != MESH_POINTS or mesh.shape[1] != 3:
            raise BundleError(
                f"{picture} must be a picture and {points} a mesh of {MESH_POINTS} points. Export the bundle again."
            )
        return ReferenceFace(np.asarray(image, np.uint8), mesh.astype(np.float32))

    def mixer(self, threads: int = 1) -> MixingNetwork:
        """The mixing network of a one-shot bundle, loaded at its first use and kept.

        Args:
            threads: cores that one call uses.

        Raises:
            BundleError: this is no one-shot bundle, or its graph is not what the manifest says.
        """
        if not self.manifest.is_one_shot:
            raise BundleError(f"{self.path} holds an autoencoder and no mixing network. Play it by swap_model.")
        with self._lock:
            session = self._session(self.manifest.network, threads)
        return MixingNetwork(session, self.manifest.network)

    def swap_model(self, name: str, threads: int = 1) -> BatchModel:
        """A persona's network, loaded at its first use and kept; call it outside the frame loop (10 to 300 ms).

        Args:
            name: the persona.
            threads: cores that one call of `predict` uses; the encoder is shared between personas.

        Raises:
            BundleError: no such persona, or its graphs are not what the manifest says.
        """
        entry = self.manifest.personas[self._index(name)]
        if self.manifest.is_one_shot:
            raise BundleError(f"{name} is painted from its picture and has no network of its own. Play it by mixer.")
        spec = BatchSpec(self.manifest.input_shape, self.manifest.output_shape, MAX_BATCH)
        with self._lock:
            encoder = self._session(self.manifest.network, threads)
            decoder = self._session(entry.decoder, threads)
        _check_ports(encoder, "face", self.manifest.input_shape, "latent", None, self.manifest.network)
        _check_ports(decoder, "latent", None, "swap", self.manifest.output_shape, entry.decoder)
        return SwapModel(encoder, decoder, spec)

    def _index(self, name: str) -> int:
        names = [info.name for info in self.personas]
        if name not in names:
            raise BundleError(f"The persona must be one of {', '.join(names)}, but got {name!r}. Pick one of them.")
        return names.index(name)

    def _session(self, member: str, threads: int) -> _Session:
        key = (member, threads)
        if key not in self._sessions:
            content = self.read(member)
            check_graph(content, member)
            self._sessions[key] = _new_session(content, member, threads)
        return self._sessions[key]


def load_swap_model(encoder: bytes, decoder: bytes, spec: BatchSpec, threads: int, name: str) -> SwapModel:
    """Load two graphs from outside any bundle, checked as a bundle's are.

    Args:
        encoder: ONNX, face -> latent.
        decoder: ONNX, latent -> swap.
        spec: the shapes that they must have.
        threads: cores that one call of `predict` uses.
        name: how errors name them.

    Raises:
        BundleError: a graph is unsafe, does not run, or has other ports.
    """
    for content in (encoder, decoder):
        check_graph(content, name)
    first, second = (_new_session(content, name, threads) for content in (encoder, decoder))
    _check_ports(first, "face", spec.input_shape, "latent", None, name)
    _check_ports(second, "latent", None, "swap", spec.output_shape, name)
    return SwapModel(first, second, spec)


def _persona_info(root: Path, entry: PersonaEntry) -> PersonaInfo:
    return PersonaInfo(
        name=entry.name,
        title=entry.title,
        thumbnail=root / entry.thumbnail,
        still=root / entry.still,
        mesh=root / entry.mesh,
        consent=root / entry.consent,
        more=tuple(root / picture for picture, _ in entry.more),
    )


def _check_inventory(directory: Path, manifest: Manifest) -> None:
    """Refuse links, and files that are missing, extra, or of another size than listed."""
    found: dict[str, int] = {}
    for count, path in enumerate(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()) or count > 4 * MAX_FILES:
            raise BundleError(f"A bundle must hold plain files only, but {path} is none (or one too many). Remove it.")
        if path.is_file():
            found[path.relative_to(directory).as_posix()] = path.stat().st_size
    found.pop(MANIFEST, None)
    missing, extra = sorted(manifest.files.keys() - found.keys()), sorted(found.keys() - manifest.files.keys())
    if missing or extra:
        raise BundleError(
            f"{directory} must hold exactly the files that its manifest lists, "
            f"but lacks {missing[:5]} and adds {extra[:5]}. Fetch the bundle again."
        )
    differing = sorted(name for name, entry in manifest.files.items() if found[name] != entry.size_bytes)
    if differing or sum(found.values()) > MAX_BUNDLE_BYTES:
        raise BundleError(
            f"{directory}: the sizes of {differing[:5]} must be those listed, but differ. Fetch it again."
        )


def _new_session(content: bytes, member: str, threads: int) -> _Session:
    try:
        return cast(_Session, open_session(content, threads))
    except ModelError:
        raise
    except Exception as error:  # the runtime's errors share no base class
        raise BundleError(f"{member} must run in ONNX Runtime, but does not: {error}. Export it again.") from error


def _check_ports(
    session: _Session,
    in_name: str,
    in_shape: tuple[int, int, int] | None,
    out_name: str,
    out_shape: tuple[int, int, int] | None,
    member: str,
) -> None:
    """Refuse a graph whose single input or output has another name, type or shape, or a fixed batch."""
    for ports, name, shape in ((session.get_inputs(), in_name, in_shape), (session.get_outputs(), out_name, out_shape)):
        got = [(port.name, port.type, list(port.shape)) for port in ports]
        is_named = len(got) == 1 and got[0][:2] == (name, "tensor(float)")
        dims = got[0][2] if is_named else []
        is_shaped = len(dims) == 4 and not isinstance(dims[0], int) and (shape is None or dims[1:] == list(shape))
        if not is_shaped:
            wanted = list(shape) if shape else ["H", "W", "C"]
            raise BundleError(
                f"{member} must have one port {name!r}, float32 {['N', *wanted]}, but has {got}. Export it again."
            )


def _to_bytes(swap: NDArray[np.float32], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """0..1 float32 -> rounded bytes; NaN and infinity are errors, not pixels."""
    if swap.shape[1:] != shape or not np.isfinite(swap.sum()):  # one value that is not finite makes the sum so
        raise ModelError(
            f"The swap network must answer with finite [N, {shape[0]}, {shape[1]}, {shape[2]}], "
            f"but gave {list(swap.shape)} or NaN. Pick another persona or reload the bundle."
        )
    rows = np.ascontiguousarray(swap).reshape(-1, shape[1] * shape[2])
    # Eight times faster than multiply with saturation; a negative value would turn positive, but 0..1 has none.
    return np.asarray(cv2.convertScaleAbs(rows, alpha=255.0), np.uint8).reshape(swap.shape)
