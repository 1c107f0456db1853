"""What serving does with a request, free of any server: load, preprocess, predict, postprocess."""

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from liveframe.cover import blur_cover
from liveframe.errors import FrameError, ModelError, WireError
from liveframe.frame import Frame, Image
from liveframe.model import BatchModel, CheckedModel, check_batch, completed
from liveframe.remote.picture import Encoding, decode_picture, encode_picture
from liveframe.remote.wire import (
    MEDIA_TYPE,
    Extras,
    WireLimits,
    batch_from_json,
    batch_to_json,
    decode_batch,
    encode_batch,
)
from serving.server.body import read_json
from understudy.any_bundle import ServableBundle, open_servable
from understudy.consent.published_trust import TrustSource
from understudy.consent.record import ConsentError, ConsentFault
from understudy.consent.trust_store import TrustError, TrustStore, trust_folder

JSON = "application/json"
PICTURES: Mapping[str, Encoding] = {
    "image/jpeg": Encoding.JPEG,
    "image/webp": Encoding.WEBP,
    "image/png": Encoding.PNG,
}
LIMITS = WireLimits(max_bytes=10_000_000, max_count=16, max_side=2160, max_pixels=8 * 1024 * 1024)
QUALITY = 90
_MOST_VALUES = 1000  # pictures and parameters
CONSENT_S = 10.0

_LOG = logging.getLogger(__name__)


class Task(StrEnum):
    """What to do with the pictures: swap aligned crops, or find, swap and merge the faces of whole frames."""

    CROPS = "crops"
    FRAMES = "frames"


@dataclass(frozen=True, slots=True)
class Payload:
    """A request's or an answer's content.

    Attributes:
        content_type: media type without parameters.
        body: the bytes.
        variant: which model of the bundle; "" for its default.
    """

    content_type: str
    body: bytes
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Decoded pictures and how to answer.

    Attributes:
        task: what to do with them.
        variant: one of the bundle's.
        images: uint8 [H, W, 3] BGR each; of one size for CROPS.
        reply: media type of the answer.
        encoding: of the answer's pictures.
        extras: tensors that accompany CROPS, float32 [N, ...] by name.
    """

    task: Task
    variant: str
    images: NDArray[np.uint8]
    reply: str
    encoding: Encoding
    extras: Extras = field(default_factory=dict[str, NDArray[np.float32]])


@dataclass(frozen=True, slots=True)
class Outputs:
    """Answers, in the order of the inputs.

    Attributes:
        images: uint8 [N, H2, W2, C2].
        reply: media type of the answer.
        encoding: of the answer's pictures.
        found: subjects seen, for FRAMES.
        done: subjects replaced, for FRAMES. A frame with fewer done than found, or none found, is covered.
    """

    images: NDArray[np.uint8]
    reply: str
    encoding: Encoding
    found: int = 0
    done: int = 0


class Routine:
    """A bundle behind the four steps of a custom prediction routine. Thread-safe once loaded.

    Media types in: `application/vnd.liveframe.batch` (crops in, crops out, the same
    encoding), `image/jpeg|webp|png` (a whole frame in, the merged frame out),
    `application/json` (`{"instances": [{"b64": ...}], "parameters": {"task", "variant"}}`).
    """

    def __init__(self, trust: TrustSource | None = None) -> None:
        """Make it; `load` comes next.

        Args:
            trust: whose consent records count; the operator's folder (`UNDERSTUDY_HOME`) where left out.
        """
        self._trust = trust or TrustStore(trust_folder(os.environ))
        self._consents: dict[str, tuple[float, ConsentError | None]] = {}
        self._bundle: ServableBundle | None = None
        self._scratch: Path | None = None
        self._models: dict[str, BatchModel] = {}
        self._frame_models: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._frame_lock = threading.Lock()  # a warm-up takes seconds: crops must not wait for it
        self._is_warm = False
        self.threads = 1

    # ------------------------------------------------------------------ load

    def load(self, artifacts_uri: str, **_: Any) -> None:
        """Fetch, verify and warm up a bundle. Personas without a valid consent record stay unserved.

        Args:
            artifacts_uri: a directory, a .zip, or `gs://bucket/folder` that holds `bundle.zip` or the files.

        Raises:
            BundleError: it is damaged, unsafe or of an unknown kind.
            ModelError: it does not run here.
            ConsentError: none of its personas may be shown live.
        """
        self._bundle = open_servable(self._fetch(artifacts_uri))
        allowed = self._allowed_variants()
        for variant in allowed:
            model = self.model(variant)
            extras = {port.name: np.zeros((1, *port.shape), np.float32) for port in model.spec.extras}
            model.predict(np.full((1, *model.spec.input_shape), 128, np.uint8), **extras)
        self._is_warm = True

    def _fetch(self, artifacts_uri: str) -> Path:
        """Return the bundle's local directory or .zip."""
        path = Path(artifacts_uri)
        if artifacts_uri.startswith("gs://"):
            from serving.storage import download

            self._scratch = Path(tempfile.mkdtemp(prefix="understudy-bundle-"))
            path = download(artifacts_uri, self._scratch)
        zipped = path / "bundle.zip"
        return zipped if zipped.is_file() else path

    def _allowed_variants(self) -> list[str]:
        """Return the variants that may be shown, and say which may not.

        Raises:
            ConsentError: none may.
        """
        refusals = {variant: self._refusal(variant) for variant in self.bundle.variants}
        allowed = [variant for variant, refusal in refusals.items() if refusal is None]
        for variant, refusal in refusals.items():
            if refusal is not None:
                _LOG.warning("%s is not served: %s", variant, refusal)
                if not allowed:
                    raise refusal
        return allowed

    def close(self) -> None:
        """Remove what was fetched. Safe to call twice."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    @property
    def is_loaded(self) -> bool:
        """Whether a verified bundle has run once."""
        return self._is_warm

    @property
    def bundle(self) -> ServableBundle:
        """The verified bundle.

        Raises:
            ModelError: nothing is loaded.
        """
        if self._bundle is None:
            raise ModelError("The predictor must be loaded before it predicts, but is not. Call load(artifacts_uri).")
        return self._bundle

    def model(self, variant: str = "") -> BatchModel:
        """Return the model of a variant, loaded at its first use.

        Raises:
            WireError: the bundle has no such variant.
        """
        name = self.variant(variant)
        with self._lock:
            if name not in self._models:
                self._models[name] = self.bundle.batch_model(name, self.threads)
            return self._models[name]

    # ------------------------------------------------------------------ preprocess

    def preprocess(self, prediction_input: Any) -> Inputs:
        """Decode and check a request.

        Args:
            prediction_input: a Payload, or the parsed JSON that the SDK's own handler gives.

        Raises:
            WireError: anything about it is wrong; the sentence says what.
            FrameError: crops of another size than the model's.
        """
        if not isinstance(prediction_input, Payload):
            return self._from_json(prediction_input)
        if prediction_input.content_type == MEDIA_TYPE:
            return self._from_wire(prediction_input)
        if prediction_input.content_type in PICTURES:
            return self._from_picture(prediction_input)
        if prediction_input.content_type == JSON:
            return self._from_json(_parse_json(prediction_input.body))
        known = ", ".join((MEDIA_TYPE, *PICTURES, JSON))
        raise WireError(f"The Content-Type must be one of {known}, but is {prediction_input.content_type!r:.80}.")

    def _from_wire(self, payload: Payload) -> Inputs:
        batch = decode_batch(payload.body, LIMITS)
        variant = self.variant(payload.variant)
        extras = self.check_crops(variant, batch.images, batch.extras)
        return Inputs(Task.CROPS, variant, batch.images, MEDIA_TYPE, batch.encoding, extras)

    def _from_picture(self, payload: Payload) -> Inputs:
        if len(payload.body) > LIMITS.max_bytes:
            raise WireError(f"A frame must have at most {LIMITS.max_bytes} bytes, but has {len(payload.body)}.")
        image = decode_picture(payload.body, LIMITS.max_side, is_upright=True)
        variant = self.variant(payload.variant)
        encoding = PICTURES[payload.content_type]
        return Inputs(Task.FRAMES, variant, image[None], payload.content_type, encoding)

    def _from_json(self, document: Any) -> Inputs:
        if not isinstance(document, Mapping):
            raise WireError('The JSON body must be an object with "instances". Check the request.')
        fields = cast(Mapping[str, Any], document)
        parameters: Any = fields.get("parameters") or {}
        if not isinstance(parameters, Mapping):
            raise WireError('"parameters" must be an object such as {"variant": "ada"}. Check the request.')
        given = cast(Mapping[str, Any], parameters)
        variant = self.variant(given.get("variant", ""))
        task = given.get("task", Task.CROPS.value)
        if task not in list(Task):
            raise WireError(f'"task" must be "crops" or "frames", but is {task!r:.40}.')
        images = batch_from_json(fields, limits=LIMITS)
        extras: Extras = {}
        if task == Task.CROPS:
            extras = self.check_crops(variant, images, {})
        elif images.shape[3] != 3:
            raise WireError("Whole frames must have no mask. Leave mask_b64 out.")
        encoding = Encoding.PNG if task == Task.CROPS else Encoding.JPEG
        return Inputs(Task(task), variant, images, JSON, encoding, extras)

    def check_crops(self, variant: str, images: NDArray[np.uint8], extras: Extras) -> Extras:
        """Refuse crops, and tensors beside them, that a variant's model does not take.

        Returns:
            All tensors that the model takes beside them.

        Raises:
            FrameError: says what they must be.
        """
        model = self.model(variant)
        spec = model.spec
        if images.shape[1:] != spec.input_shape or len(images) > spec.max_batch:
            raise FrameError(
                f"Crops must be [1..{spec.max_batch}, {', '.join(map(str, spec.input_shape))}], "
                f"but got {list(images.shape)}. Align them to the bundle's input, or send whole frames as image/jpeg."
            )
        check_batch(images, spec, extras)
        for name, tensor in extras.items():
            if not np.isfinite(tensor).all():
                raise FrameError(f"{name} must hold finite numbers, but does not. Send the face again.")
        whole = completed(spec, len(images), extras)
        if isinstance(model, CheckedModel):  # before it joins others' crops in a batch, which would fail with it
            model.check(**whole)
        return whole

    def variant(self, name: object = "") -> str:
        """Return the name of a variant; the bundle's first for an empty one.

        Raises:
            WireError: the bundle has no such variant.
            ConsentError: its consent record does not allow it, now.
        """
        variants = self.bundle.variants
        chosen = name or variants[0]
        if not isinstance(chosen, str) or chosen not in variants:
            raise WireError(f"The variant must be one of {', '.join(variants)}, but is {name!r:.60}.")
        if refusal := self._refusal(chosen):
            raise refusal
        return chosen

    def _refusal(self, variant: str) -> ConsentError | None:
        """Why a variant may not be shown live, or None; asked anew every ten seconds."""
        now_s = time.monotonic()
        checked_s, refusal = self._consents.get(variant, (-CONSENT_S, None))
        if now_s - checked_s < CONSENT_S:
            return refusal
        try:
            self.bundle.check_use(variant, "live", self._trust.read())
            refusal = None
        except ConsentError as error:
            refusal = error
        except TrustError as error:  # nobody knows what was revoked
            refusal = ConsentError(ConsentFault.UNKNOWN_KEY, str(error))
        self._consents[variant] = (now_s, refusal)
        return refusal

    # ------------------------------------------------------------------ predict

    def predict(self, instances: Inputs) -> Outputs:
        """Run the model on decoded pictures. Any thread.

        Raises:
            ModelError: the model failed.
        """
        if instances.task is Task.CROPS:
            images = self.predict_crops(instances.variant, instances.images, instances.extras)
            return Outputs(images, instances.reply, instances.encoding)
        return self._merge(instances)

    def predict_crops(self, variant: str, batch: NDArray[np.uint8], extras: Extras) -> NDArray[np.uint8]:
        """Run the model on crops that may come from several requests: uint8 [N, H, W, C] -> [N, H2, W2, C2]."""
        return self.model(variant).predict(np.ascontiguousarray(batch), **extras)

    def _merge(self, instances: Inputs) -> Outputs:
        """Find, replace and merge the subjects of each frame; cover a frame that keeps one."""
        model = self._frame_model(instances.variant)
        images: list[Image] = []
        found = done = 0
        for index, image in enumerate(instances.images):
            session = model.open_session()
            try:
                result = session.process(Frame(np.ascontiguousarray(image), index, time.monotonic()))
            finally:
                session.close()
            found += result.subjects_found
            done += result.subjects_done
            images.append(result.image if result.is_complete else blur_cover(image))
        return Outputs(np.stack(images), instances.reply, instances.encoding, found, done)

    def _frame_model(self, variant: str) -> Any:
        with self._frame_lock:
            if variant not in self._frame_models:
                model = self.bundle.frame_model(variant)
                model.warm_up()
                self._frame_models[variant] = model
            return self._frame_models[variant]

    # ------------------------------------------------------------------ postprocess

    def postprocess(self, prediction_results: Outputs) -> Any:
        """Encode answers the way the request was written.

        Returns:
            A Payload, or for JSON the object `{"predictions": [{"b64": ...}]}` to serialise.
        """
        images, encoding = prediction_results.images, prediction_results.encoding
        if prediction_results.reply == MEDIA_TYPE:
            # A mask as PNG is as large as the colours and takes longer than both; only exact answers get one.
            mask_encoding = Encoding.PNG if encoding is Encoding.PNG else Encoding.JPEG
            return Payload(MEDIA_TYPE, encode_batch(images, encoding, mask_encoding, QUALITY))
        if prediction_results.reply == JSON:
            return batch_to_json(images, "predictions", encoding, QUALITY)
        return Payload(prediction_results.reply, encode_picture(images[0], encoding, QUALITY))


def _parse_json(body: bytes) -> Any:
    if len(body) > LIMITS.max_bytes * 4 // 3:
        raise WireError(f"A JSON body must have at most {LIMITS.max_bytes * 4 // 3} bytes, but has {len(body)}.")
    return read_json(body, _MOST_VALUES)
