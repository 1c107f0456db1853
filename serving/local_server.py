"""The serving tier at home: `python -m serving.local_server [BUNDLE]`, the same routes without Google's SDK."""

import argparse
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.server.exchange import Exchange
from serving.server.routine import Routine
from serving.server.settings import ServerSettings
from serving.vertex.plan import HEALTH_ROUTE, PREDICT_ROUTE
from understudy.bundle.bundle import default_bundle
from understudy.bundle.manifest import BundleError


def build_app(exchange: Exchange) -> Starlette:
    """Return the ASGI app: POST /predict, GET /health. It closes the exchange when it shuts down."""

    async def predict(request: Request) -> Response:
        reply = await exchange.answer(request.headers, request.stream())
        return Response(reply.body, reply.status, dict(reply.headers))

    async def health(_: Request) -> Response:
        reply = exchange.health()
        return Response(reply.body, reply.status, dict(reply.headers))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        exchange.close()

    routes = [Route(PREDICT_ROUTE, predict, methods=["POST"]), Route(HEALTH_ROUTE, health, methods=["GET"])]
    return Starlette(routes=routes, lifespan=lifespan)


def open_exchange(bundle: str, settings: ServerSettings) -> Exchange:
    """Load a bundle and give its exchange.

    Raises:
        BundleError: it is damaged, unsafe or of an unknown kind.
    """
    routine = Routine()
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
    import uvicorn

    settings = ServerSettings.from_environment()
    try:
        exchange = open_exchange(arguments.bundle or settings.bundle or str(default_bundle()), settings)
    except BundleError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Serving {', '.join(exchange.routine.bundle.variants)} at http://{arguments.host}:{arguments.port}/predict")
    uvicorn.run(build_app(exchange), host=arguments.host, port=arguments.port, access_log=False, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
