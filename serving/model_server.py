"""The container's entry point: `python -m serving.model_server`, the SDK's model server with an honest health route.

The SDK's own `python -m google.cloud.aiplatform.prediction.model_server` serves the same
routes; this one also turns unhealthy when the exchange stops, closes what it opened, and
keeps connections open longer than the load balancer in front does.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from google.cloud.aiplatform.prediction.model_server import CprModelServer

from serving.server.routes import shared_routes, to_response
from serving.server.serve import serve

KEEP_ALIVE_S = 620  # above the 600 s of Google's load balancer: it must never meet a closed connection


class ModelServer(CprModelServer):
    """CprModelServer over a BinaryHandler."""

    def __init__(self) -> None:
        super().__init__()
        self.app.router.lifespan_context = self._lifespan
        # No pages about the API: FastAPI's load their scripts from elsewhere, and strangers need none.
        mine = (self.health_route, self.predict_route)
        kept = [route for route in self.app.router.routes if getattr(route, "path", "") in mine]
        self.app.router.routes[:] = [*kept, *shared_routes(self.handler.exchange)]

    def health(self) -> Any:
        """Answer 200 with what is served, or 503."""
        return to_response(self.handler.exchange.health())

    @asynccontextmanager
    async def _lifespan(self, _: Any) -> AsyncGenerator[None]:
        yield
        self.handler.exchange.close()


def main() -> None:
    """Serve on AIP_HTTP_PORT until a signal. One process: workers would each batch for themselves."""
    os.environ.setdefault("HANDLER_MODULE", "serving.server.handler")
    os.environ.setdefault("HANDLER_CLASS", "BinaryHandler")
    os.environ.setdefault("PREDICTOR_MODULE", "serving.server.predictor")
    os.environ.setdefault("PREDICTOR_CLASS", "UnderstudyPredictor")
    server = ModelServer()
    host = os.environ.get("UNDERSTUDY_HOST", "0.0.0.0")
    serve(server, server.handler.exchange, host, server.http_port, KEEP_ALIVE_S)


if __name__ == "__main__":
    main()
