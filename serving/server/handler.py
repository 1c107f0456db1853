"""Google's Handler for bytes: crops as `application/vnd.liveframe.batch`, frames as JPEG, and JSON as ever."""

from typing import Any

from fastapi import Request, Response
from google.cloud.aiplatform.prediction.handler import Handler

from serving.server.exchange import Exchange
from serving.server.serve import answer_request
from serving.server.settings import ServerSettings
from serving.server.trust import open_trust


class BinaryHandler(Handler):
    """Hands requests of the SDK's model server to an Exchange. One per process."""

    def __init__(self, artifacts_uri: str, predictor: Any = None) -> None:
        """Load the bundle, verify it and warm it up: the server listens, and is healthy, only after that.

        Args:
            artifacts_uri: AIP_STORAGE_URI.
            predictor: the predictor's class.

        Raises:
            ValueError: no predictor was named.
        """
        if predictor is None:
            raise ValueError("BinaryHandler must have a predictor, but got none. Set PREDICTOR_MODULE and _CLASS.")
        settings = ServerSettings.from_environment()
        routine = predictor(open_trust(settings.trust))
        routine.threads = settings.model_threads
        routine.load(artifacts_uri or settings.bundle)
        self.exchange = Exchange(routine, settings.policy())

    async def handle(self, request: Request) -> Response:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Answer one request; never raises for what a client sent."""
        return await answer_request(request, self.exchange.answer)
