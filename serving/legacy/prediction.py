"""`ModelPrediction`: whole frames in base64 in, merged frames in base64 out.

AI Platform itself is retired. The class stays as a contract: a source package made by
`setup.py sdist` and named by `--prediction-class serving.legacy.prediction.ModelPrediction`.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from liveframe.errors import WireError
from liveframe.remote.picture import Encoding, decode_picture, encode_picture
from liveframe.remote.wire import read_base64
from serving.server.routine import LIMITS, QUALITY, Inputs, Routine, Task


class ModelPrediction:
    """A loaded bundle behind `from_path` and `predict`. Thread-safe."""

    def __init__(self, routine: Routine) -> None:
        """Take a loaded routine; use `from_path`."""
        self._routine = routine

    @classmethod
    def from_path(cls, model_dir: str) -> "ModelPrediction":
        """Load a bundle.

        Args:
            model_dir: a bundle's directory, or one that holds `bundle.zip`.

        Raises:
            BundleError: it is damaged, unsafe or of an unknown kind.
        """
        routine = Routine()
        routine.load(model_dir)
        return cls(routine)

    def predict(self, instances: Sequence[str | Mapping[str, str]], **kwargs: Any) -> list[str]:
        """Merge whole frames.

        Args:
            instances: base64 texts of JPEG, WebP or PNG frames of any size, or `{"b64": text}`.
            **kwargs: `persona`, the name to swap to (the bundle's first where left out); others,
                which the service passed on, are ignored.

        Returns:
            Base64 texts of JPEG frames, in the same order. A frame in which no face was found, or
            one could not be replaced, comes back covered.

        Raises:
            WireError: an instance is no picture, or the persona is unknown.
            ModelError: the model failed.
        """
        variant = self._routine.variant(kwargs.get("persona", ""))
        return [self._merge(_decode(instance, index), variant) for index, instance in enumerate(instances)]

    def _merge(self, frame: Any, variant: str) -> str:
        inputs = Inputs(Task.FRAMES, variant, frame[None], "image/jpeg", Encoding.JPEG)
        merged = self._routine.predict(inputs).images[0]
        return base64.b64encode(encode_picture(merged, Encoding.JPEG, QUALITY)).decode("ascii")


def _decode(instance: object, index: int) -> Any:
    text: Any = instance.get("b64") if isinstance(instance, Mapping) else instance
    if not isinstance(text, str) or len(text) > LIMITS.max_bytes * 7 // 5:
        raise WireError(
            f"Instance {index} must be a base64 text of at most {LIMITS.max_bytes} bytes. Check the request."
        )
    try:
        return decode_picture(read_base64(text), LIMITS.max_side, is_upright=True)
    except ValueError as error:
        raise WireError(f"Instance {index} must be a picture in base64, but is not: {error}") from error
