"""The operator's plane as HTTP: who may ask, how much, and how answers and errors look.

On a UNIX socket the file's mode is the permission; over TCP a bearer token is. Nothing
here is reachable on the anycast address. What can be asked stands in `edge.proxy.plane`.
"""

import asyncio
import contextlib
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web

from edge.errors import EdgeError, Reason, Source

MAX_BODY_BYTES: Final = 65_536
#: A body is a few fields; who takes longer to send them is gone.
BODY_S: Final = 10.0
_encode = msgspec.json.Encoder().encode


class Asked(NamedTuple):
    """One call: the names in its path, decoded, and its body as it came."""

    names: Mapping[str, str]
    body: bytes


class Route(NamedTuple):
    """`path` is aiohttp's pattern, as in `/edge/models/{model}`; `answer` gives what msgspec can encode."""

    method: str
    path: str
    answer: Callable[[Asked], Awaitable[object]]


Stop = Callable[[], Coroutine[Any, Any, None]]

#: What this plane says by itself; everything else is an EdgeError.
_REASONS: Final = {404: Reason.UNKNOWN_PATH, 405: Reason.BAD_METHOD, 413: Reason.TOO_LARGE}


def application(
    routes: Sequence[Route], *, metrics: Callable[[], Awaitable[bytes]], token: str | None
) -> web.Application:
    """The admin application. With `token` each request must carry it; None is for the UNIX socket."""

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if token is not None:
            given = request.headers.get("Authorization", "").encode()
            if not hmac.compare_digest(given, f"Bearer {token}".encode()):
                text = "this port takes Authorization: Bearer <admin token>"
                return _json(401, {"error": text, "reason": str(Reason.UNAUTHENTICATED)})
        try:
            return await handler(request)
        except web.HTTPException as error:
            reason = _REASONS.get(error.status, Reason.BAD_REQUEST)
            return _json(error.status, {"error": error.reason, "reason": str(reason)})
        except EdgeError as error:
            again_s = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
            return _json(error.status, {"error": error.message, "reason": str(error.reason)}, again_s)

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(
            body=await metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    def respond(route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def run(request: web.Request) -> web.Response:
            try:
                async with asyncio.timeout(BODY_S):
                    body = await request.read()
            except TimeoutError:
                text = f"the body did not arrive within {BODY_S:.0f} s"
                raise EdgeError(Reason.TIMEOUT_REQUEST, text, source=Source.DOWNSTREAM) from None
            return _json(200, await route.answer(Asked(request.match_info, body)))

        return run

    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY_BYTES)
    app.router.add_get("/metrics", scrape)
    for route in routes:
        app.router.add_route(route.method, route.path, respond(route))
    return app


@contextlib.asynccontextmanager
async def serving(
    listeners: Sequence[socket.socket],
    routes: Sequence[Route],
    *,
    metrics: Callable[[], Awaitable[bytes]],
    token: str,
    finish_s: float,
) -> AsyncIterator[Stop]:
    """The plane on each listener, until left. A UNIX socket asks for no token.

    What it gives stops it sooner: no listener accepts from then on, so that whoever shares
    them gets every new call; calls that run have `finish_s`.
    """
    runners: list[web.AppRunner] = []

    async def stop() -> None:
        async with asyncio.TaskGroup() as ending:
            while runners:
                ending.create_task(runners.pop().cleanup())

    try:
        for listener in listeners:
            needed = None if listener.family == socket.AF_UNIX else token
            app = application(routes, metrics=metrics, token=needed)
            runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=finish_s)
            runners.append(runner)
            await runner.setup()
            await web.SockSite(runner, listener).start()
        yield stop
    finally:
        await stop()


def _json(status: int, body: object, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=_encode(body), content_type="application/json", headers=dict(headers or {})
    )
