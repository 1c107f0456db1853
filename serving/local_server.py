"""The serving tier at home: `python -m serving.local_server [BUNDLE]`, the same routes without Google's SDK."""

import argparse
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from liveframe.errors import LiveframeError
from serving.server.exchange import Exchange
from serving.server.routes import shared_routes, to_response
from serving.server.routine import Routine
from serving.server.serve import answer_request, serve
from serving.server.settings import ServerSettings
from serving.server.trust import open_trust
from serving.vertex.plan import HEALTH_ROUTE, PREDICT_ROUTE
from understudy.bundle.bundle import default_bundle


def build_app(exchange: Exchange) -> Starlette:
    """Return the ASGI app: /predict, /health, /v2/... and /metrics. It closes the exchange when it shuts down."""

    async def predict(request: Request) -> Response:
        return await answer_request(request, exchange.answer)

    async def health(_: Request) -> Response:
        return to_response(exchange.health())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        exchange.close()

    routes = [Route(PREDICT_ROUTE, predict, methods=["POST"]), Route(HEALTH_ROUTE, health, methods=["GET"])]
    return Starlette(routes=[*routes, *shared_routes(exchange)], lifespan=lifespan)


def open_exchange(bundle: str, settings: ServerSettings) -> Exchange:
    """Load a bundle and give its exchange.

    Raises:
        BundleError: it is damaged, unsafe or of an unknown kind.
        ConsentError: none of its personas may be shown live.
        TrustError: the published keys cannot be read.
    """
    routine = Routine(open_trust(settings.trust))
    routine.threads = settings.model_threads
    routine.load(bundle)
    return Exchange(routine, settings.policy())


def main(argv: Sequence[str] | None = None) -> int:
    """Serve on localhost until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m serving.local_server", description="Serve a bundle on localhost.")
    parser.add_argument("bundle", nargs="?", help="directory or .zip; the shipped one if left out")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args(argv)
    try:
        settings = ServerSettings.from_environment()
        exchange = open_exchange(arguments.bundle or settings.bundle or str(default_bundle()), settings)
    except (LiveframeError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Serving {', '.join(exchange.routine.bundle.variants)} at http://{arguments.host}:{arguments.port}/predict")
    serve(build_app(exchange), exchange, arguments.host, arguments.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
