"""The operator's plane: metrics, state, withdraw and announce.

On a UNIX socket the file's mode is the permission; over TCP a bearer token is. Nothing
here is reachable on the anycast address.
"""

import hmac
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from edge.errors import EdgeError

Answer = Callable[[], Awaitable[object]]
_encode = msgspec.json.Encoder().encode


def application(
    *,
    metrics: Callable[[], Awaitable[bytes]],
    reads: dict[str, Answer],
    acts: dict[str, Answer],
    token: str | None,
) -> web.Application:
    """The admin application. With `token` each request must carry it; None is for the UNIX socket."""

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if token is not None:
            given = request.headers.get("Authorization", "").encode()
            if not hmac.compare_digest(given, f"Bearer {token}".encode()):
                return _json(401, {"error": "this port takes Authorization: Bearer <admin token>"})
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _json(error.status, {"error": error.reason})
        except EdgeError as error:
            return _json(error.status, {"error": error.message, "reason": str(error.reason)})

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(
            body=await metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    def respond(answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def run(_: web.Request) -> web.Response:
            return _json(200, await answer())

        return run

    app = web.Application(middlewares=[guard], client_max_size=65_536)
    app.router.add_get("/metrics", scrape)
    for path, answer in reads.items():
        app.router.add_get(path, respond(answer))
    for path, answer in acts.items():
        app.router.add_post(path, respond(answer))
    return app


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=_encode(body), content_type="application/json")
