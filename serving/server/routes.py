"""The routes that our two servers share, beside predict and health: the Open Inference Protocol and `/metrics`."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.server.exchange import Exchange, Reply
from serving.server.open_inference import OpenInference


def shared_routes(exchange: Exchange) -> list[Route]:
    """Return `/v2/...` and `/metrics`."""
    protocol = OpenInference(exchange)

    async def v2(request: Request) -> Response:
        return to_response(await protocol.answer(request.method, request.url.path, request.headers, request.stream()))

    async def metrics(_: Request) -> Response:
        return to_response(exchange.scrape())

    methods = ["GET", "POST"]
    return [
        Route("/v2", v2, methods=methods),
        Route("/v2/{path:path}", v2, methods=methods),
        Route("/metrics", metrics),
    ]


def to_response(reply: Reply) -> Response:
    """Turn our answer into Starlette's."""
    return Response(reply.body, reply.status, dict(reply.headers))
