"""The custom prediction routine for Vertex AI: Google's Predictor over `Routine`."""

from google.cloud.aiplatform.prediction.predictor import Predictor

from serving.server.routine import Routine


class UnderstudyPredictor(Routine, Predictor):
    """load -> preprocess -> predict -> postprocess over a bundle of any allowed kind.

    The SDK's own PredictionHandler drives it with JSON; `serving.server.handler.BinaryHandler` also with bytes.
    """
