"""What each path of the public plane means, and the answer's headers.

The paths are the Open Inference Protocol's, plus `/run/{model}` for a shell and `/pop`.
Nothing of a request is forwarded but its body and a few fields by name (`calls.Infer`).
"""

import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from random import Random
from typing import Any, Final

from edge import clock
from edge.config import Public
from edge.errors import EdgeError, Reason, Source
from edge.http.headers import edge_headers, request_id
from edge.http.request import Request
from edge.http.respond import JSON, Response, error_response
from edge.policy.facts import Ask
from edge.proxy.handler import Handler, Outcome
from edge.proxy.ledger import Ledger, Tally
from edge.proxy.models import Models
from edge.proxy.repository import Repository
from edge.proxy.upstream import RequestBody
from edge.telemetry import Metrics
from edge.wire import calls
from edge.wire.frame import SHARED_BODY_BYTES

_TEXT: Final = "text/plain; charset=utf-8"
_DIGITS: Final = frozenset("0123456789")


#: (request id, model, served by, route, status, ms) of each answered inference request.
RequestLog = Callable[[str, str, str, str, int, float], None]


class Door:
    """Answers requests of the public plane; `answer` is the front door's handler."""

    def __init__(
        self,
        *,
        node: str,
        pop: str,
        region: str,
        public: Public,
        handler: Handler,
        models: Models,
        repository: Repository,
        ledger: Ledger,
        metrics: Metrics,
        random: Random,
        log_request: RequestLog | None,
    ) -> None:
        self._pop = pop
        self._who_am_i = f"pop: {pop}\nnode: {node}\nregion: {region}\n"
        self._public = public
        self._handler = handler
        self._models = models
        self._repository = repository
        self._ledger = ledger
        self._metrics = metrics
        self._random = random
        self._log_request = log_request
        boot = f"{random.getrandbits(40):010x}"
        self._fresh_ids = (f"{node}-{boot}-{count:x}" for count in itertools.count(1))

    def answer(self, request: Request) -> Coroutine[Any, Any, Response]:
        """The answer to one request, refusals included."""
        match request.path:
            case ("v2", "models", model, "infer") | ("run", model):
                return self._post_infer(request, model, "")
            case ("v2", "models", model, "versions", version, "infer"):
                return self._post_infer(request, model, version)
            case _:
                return self._answer_else(request)

    async def _answer_else(self, request: Request) -> Response:
        """Whatever is no inference."""
        try:
            return await self._tell(request)
        except EdgeError as error:
            return error_response(error, self._random.randint(1, 3), edge_headers(pop=self._pop))

    async def _tell(self, request: Request) -> Response:
        """Raises EdgeError for what has no path or method here."""
        match request.path:
            case ("pop",):
                _only(request, "GET")
                lines = f"{self._who_am_i}client: {request.client}\n"
                return Response(200, [("Edge-Pop", self._pop)], lines.encode(), _TEXT)
            case ("v2", *rest):
                status, body = await self._repository.answer(tuple(rest), request.method)
                return Response(status, [("Edge-Pop", self._pop)], body, JSON)
            case _:
                raise EdgeError(
                    Reason.UNKNOWN_PATH,
                    "no such path; try GET /pop, GET /v2, POST /run/{model} or POST /v2/models/{model}/infer",
                    source=Source.DOWNSTREAM,
                )

    async def _post_infer(self, request: Request, model: str, version: str) -> Response:
        """Answer one inference request, and account for it whatever comes of it."""
        own_id = request_id(request.headers.get("x-request-id"), next(self._fresh_ids))
        known, served_by, route, code = "", "", "shed", 499
        tally: Tally | None = None
        outcome: Outcome | None = None
        try:
            _only(request, "POST")
            version, digest = self._models.resolve(model, version)
            known, tally = model, self._ledger.of(model, version)
            now = request.body_now()
            body = await _body_of(request) if now is None else RequestBody(now, None, len(now))
            ask, call = self._ask(request, model, version, digest, own_id, body.size_bytes)
            outcome = await self._handler.route(ask, call, body)
            served_by = outcome.inferred.served_by or outcome.target
            route, code = "queue" if outcome.queued else "serve", 200
            return self._success(outcome, served_by, route, own_id)
        except EdgeError as error:
            code = error.status
            self._metrics.drop(str(error.reason))()
            return error_response(error, self._random.randint(1, 3), self._refusal(error, own_id))
        finally:
            took_ms = clock.now_ms() - request.received_ms
            self._metrics.record(
                served_by=served_by, model=known, route=route, code=code, seconds=took_ms / 1000
            )
            if outcome is not None:
                inferred = outcome.inferred
                queue_ms = outcome.queue_ms + inferred.queue_ms
                self._metrics.stages(outcome.route_ms, queue_ms, inferred.hydrate_ms, inferred.infer_ms)
            if tally is not None:
                tally.add(took_ms, int(clock.wall_s() * 1000), None if outcome is None else outcome.inferred)
            if self._log_request is not None:
                self._log_request(own_id, known, served_by, route, code, took_ms)

    def _ask(
        self, request: Request, model: str, version: str, digest: str, own_id: str, body_bytes: int
    ) -> tuple[Ask, calls.Infer]:
        """The wish, and the call that carries it. The deadline counts from the request's head."""
        get = request.headers.get
        given = get("edge-deadline-ms")
        deadline_ms = self._public.deadline_ms if given is None else self._deadline_ms(given)
        left_ms = deadline_ms - (clock.now_ms() - request.received_ms)
        call = calls.Infer(
            model=model,
            version=version,
            digest=digest,
            protocol="run" if request.path[0] == "run" else "oip",
            content_type=get("content-type") or "",
            content_encoding=get("content-encoding") or "",
            accept_encoding=get("accept-encoding") or "",
            oip_json_bytes=_json_bytes(get("inference-header-content-length")),
            deadline_ms=left_ms,
            request_id=own_id,
        )
        return Ask(model, digest, left_ms, body_bytes), call

    def _deadline_ms(self, given: str) -> float:
        if not given or len(given) > 9 or not _DIGITS.issuperset(given) or int(given) == 0:
            raise EdgeError(
                Reason.BAD_REQUEST,
                "Edge-Deadline-Ms is no whole number of milliseconds above 0",
                source=Source.DOWNSTREAM,
            )
        return min(int(given), self._public.max_deadline_ms)

    def _success(self, outcome: Outcome, served_by: str, route: str, own_id: str) -> Response:
        inferred, reply = outcome.inferred, outcome.reply
        headers = [
            ("Edge-Pop", self._pop),
            ("Edge-Served-By", served_by),
            ("Edge-Route", f"{route};reason={outcome.reason}"),
            ("Edge-Residency", inferred.residency),
            (
                "Server-Timing",
                f"route;dur={outcome.route_ms:.2f}, queue;dur={outcome.queue_ms + inferred.queue_ms:.2f}, "
                f"hydrate;dur={inferred.hydrate_ms:.2f}, infer;dur={inferred.infer_ms:.2f}",
            ),
            ("Edge-Request-Id", own_id),
        ]
        if inferred.oip_json_bytes is not None:
            headers.append(("Inference-Header-Content-Length", str(inferred.oip_json_bytes)))
        if inferred.content_encoding:
            headers.append(("Content-Encoding", inferred.content_encoding))
        body: bytes | AsyncIterator[bytes] = reply.body if reply.rest is None else aiter(reply.rest)
        return Response(200, headers, body, inferred.content_type)

    def _refusal(self, error: EdgeError, own_id: str) -> list[tuple[str, str]]:
        return edge_headers(pop=self._pop, route=f"shed;reason={error.reason}", request_id=own_id)


def _only(request: Request, method: str) -> None:
    if request.method != method:
        raise EdgeError(Reason.BAD_METHOD, f"this path takes {method}", source=Source.DOWNSTREAM)


def _json_bytes(given: str | None) -> int | None:
    if given is None:
        return None
    if not given or len(given) > 10 or not _DIGITS.issuperset(given):
        raise EdgeError(
            Reason.BAD_INPUT, "Inference-Header-Content-Length is no whole number", source=Source.DOWNSTREAM
        )
    return int(given)


async def _body_of(request: Request) -> RequestBody:
    """A small body whole, so that it can be sent again; a large one as it comes."""
    length = request.content_length
    if length is not None and length <= SHARED_BODY_BYTES:
        held = await request.body(SHARED_BODY_BYTES)
        return RequestBody(held, None, len(held))
    if length is not None:
        return RequestBody(None, request.chunks(), length)
    return await _unknown_length(request.chunks())


async def _unknown_length(chunks: AsyncIterator[bytes]) -> RequestBody:
    """A chunked body: held when it turns out to be small."""
    start: list[bytes] = []
    size = 0
    async for chunk in chunks:
        start.append(chunk)
        size += len(chunk)
        if size > SHARED_BODY_BYTES:
            return RequestBody(None, _rejoined(b"".join(start), chunks), size)
    held = b"".join(start)
    return RequestBody(held, None, len(held))


async def _rejoined(start: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for chunk in rest:
        yield chunk
