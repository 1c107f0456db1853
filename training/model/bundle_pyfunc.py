"""The MLflow model of a bundle, as code: MLflow stores this file beside the bundle, and no pickle.

`training.model.log_model` hands MLflow the path of this file ("models from code"). It runs when
somebody loads the version with `mlflow.pyfunc.load_model`; our own code never does that with a
version it did not make: it fetches the bundle and verifies it (`training.model.log_model.fetch_bundle`).
"""

from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray


class BundlePyfunc(PythonModel):
    """Answers batches: a swap's aligned crops, uint8 [N, S, S, 3] BGR -> uint8 [N, R, R, 4] BGR and mask.

    The parameter `persona` picks the variant (the decoder); empty is the bundle's first.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Verify and open the bundle that lies in the version's artifacts."""
        from understudy.any_bundle import open_servable

        self._bundle = open_servable(context.artifacts["bundle"])

    # A plain np.ndarray hint is one of the few that MLflow does not take for a schema of its own.
    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Answer a batch of any length, in the order given."""
        persona = (params or {}).get("persona") or self._bundle.variants[0]
        model = self._bundle.batch_model(persona, 1)
        batch: NDArray[np.uint8] = np.asarray(model_input)
        step = model.spec.max_batch
        return np.concatenate([model.predict(batch[i : i + step]) for i in range(0, len(batch), step)])


set_model(BundlePyfunc())
