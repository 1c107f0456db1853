"""The routes that our two servers share, beside predict and health: the Open Inference Protocol and `/metrics`."""

from functools import partial
from ipaddress import ip_address

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.server.exchange import Exchange, Reply
from serving.server.open_inference import OpenInference
from serving.server.serve import answer_request


def shared_routes(exchange: Exchange) -> list[Route]:
    """Return `/v2/...` and `/metrics`."""
    protocol = OpenInference(exchange)

    async def v2(request: Request) -> Response:
        return await answer_request(request, partial(protocol.answer, request.method, request.url.path))

    async def metrics(request: Request) -> Response:
        return to_response(exchange.scrape()) if is_near(request) else Response(status_code=404)

    methods = ["GET", "POST"]
    return [
        Route("/v2", v2, methods=methods),
        Route("/v2/{path:path}", v2, methods=methods),
        Route("/metrics", metrics),
    ]


def is_near(request: Request) -> bool:
    """Whether a request comes from a private network, where Prometheus is, and through no proxy."""
    if request.client is None or {"forwarded", "x-forwarded-for"} & set(request.headers):
        return False
    return ip_address(request.client.host).is_private


def to_response(reply: Reply) -> Response:
    """Turn our answer into Starlette's."""
    return Response(reply.body, reply.status, {**reply.headers, "X-Content-Type-Options": "nosniff"})
