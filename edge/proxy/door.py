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
from edge.fleet.snapshot import Fleet
from edge.http.headers import edge_headers, request_id
from edge.http.request import Request
from edge.http.respond import JSON, Response, error_response
from edge.policy.facts import Ask
from edge.policy.keys import Key, Role
from edge.proxy.explain import Kept, Ring
from edge.proxy.handler import Handler, Outcome, Story
from edge.proxy.keys import Keys
from edge.proxy.ledger import Ledger, Tally
from edge.proxy.models import Models, Resolved
from edge.proxy.operators import Operators, only
from edge.proxy.repository import Repository
from edge.proxy.upstream import RequestBody
from edge.proxy.wishes import Wishes, read
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
        fleet: Fleet,
        keys: Keys,
        ring: Ring,
        ledger: Ledger,
        metrics: Metrics,
        random: Random,
        log_request: RequestLog | None,
        last_one: Callable[[], bool],
    ) -> None:
        """`last_one`: this node is drained, and clients come only because no other node announces."""
        self._pop = pop
        self._who_am_i = f"pop: {pop}\nnode: {node}\nregion: {region}\n"
        self._public = public
        self._handler = handler
        self._models = models
        self._repository = repository
        self._operators = Operators(
            pop=pop,
            public=public,
            models=models,
            repository=repository,
            fleet=fleet,
            keys=keys,
            random=random,
            ask=self.ask,
        )
        self._fleet = fleet
        self._keys = keys
        self._ring = ring
        self._ledger = ledger
        self._metrics = metrics
        self._random = random
        self._log_request = log_request
        self._last_one = last_one
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
                only(request, "GET")
                lines = f"{self._who_am_i}client: {request.client}\n"
                return Response(200, [("Edge-Pop", self._pop)], lines.encode(), _TEXT)
            case ("v2", "models", model, "explain"):
                return await self._operators.explain(request, model, "")
            case ("v2", "models", model, "versions", version, "explain"):
                return await self._operators.explain(request, model, version)
            case ("v2", "repository", "models", model, "load" | "unload" as act):
                return await self._operators.load(request, model, unload=act == "unload")
            case ("v2", *rest):
                self._operators.may_see(rest, request)
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
        story = Story()
        key: Key | None = None
        try:
            only(request, "POST")
            self._refuse_loops(request)
            if self._last_one():
                raise EdgeError(
                    Reason.LAST_ONE, "this node is drained, and no other one announces the address: try later"
                )
            key = self._keys.admit(request.headers.get("authorization"), Role.INFER)
            found = self._models.resolve(model, version)
            version = found.version
            known, tally = model, self._ledger.of(model, version)
            self._fleet.learned.demanded(found.digest, request.received_ms)
            wishes = read(
                request.headers,
                deadline_ms=self._public.deadline_ms,
                max_deadline_ms=self._public.max_deadline_ms,
            )
            now = request.body_now()
            body = await _body_of(request) if now is None else RequestBody(now, None, len(now))
            left_ms = wishes.deadline_ms - (clock.now_ms() - request.received_ms)
            ask = self.ask(model, found, wishes, left_ms, body.size_bytes)
            outcome = await self._handler.infer(
                ask, _call(request, model, found, own_id, left_ms), body, story
            )
            served_by = outcome.inferred.served_by or outcome.chosen.target
            route, code = outcome.route, 200
            return self._success(outcome, served_by, own_id, body)
        except EdgeError as error:
            code = error.status
            self._metrics.drop(str(error.reason))()
            return error_response(error, self._random.randint(1, 3), self._refusal(error, own_id))
        except Exception:
            code = 500
            raise
        finally:
            self._keys.leave(key)
            took_ms = clock.now_ms() - request.received_ms
            self._metrics.record(
                served_by=served_by, model=known, route=route, code=code, seconds=took_ms / 1000
            )
            if outcome is not None:
                inferred = outcome.inferred
                queue_ms = outcome.queue_ms + inferred.queue_ms
                self._metrics.stages(outcome.route_ms, queue_ms, inferred.hydrate_ms, inferred.infer_ms)
            wall_ms = int(clock.wall_s() * 1000)
            if tally is not None:
                tally.add(took_ms, wall_ms, None if outcome is None else outcome.inferred)
            if story.steps:
                kept = Kept(known, version, route, served_by, code, took_ms, wall_ms, story)
                self._ring.put(own_id, kept)
            if self._log_request is not None:
                self._log_request(own_id, known, served_by, route, code, took_ms)

    def ask(self, model: str, found: Resolved, wishes: Wishes, left_ms: float, body_bytes: int) -> Ask:
        """The wish as the policy reads it, with what this node has learned of the model."""
        learned = self._fleet.learned
        digest = found.digest
        return Ask(
            model=model,
            digest=digest,
            deadline_ms=left_ms,
            body_bytes=body_bytes,
            weights_bytes=found.weights_bytes,
            service_ms=learned.service_ms(digest),
            reply_bytes=learned.reply_bytes(digest),
            exec_factor=learned.factor(digest, body_bytes),
            confine=found.confine,
            force=wishes.force,
            prefer=wishes.prefer,
            reject_if_busy=wishes.reject_if_busy,
            cold=wishes.cold,
            session=wishes.session,
            away=learned.is_away(digest),
        )

    def _refuse_loops(self, request: Request) -> None:
        """RFC 8586: what went through this fleet once does not come in again."""
        for value in request.headers.getall("cdn-loop"):
            if any(token.partition(";")[0].strip() == CDN_NAME for token in value.split(",")):
                raise EdgeError(
                    Reason.LOOP, "CDN-Loop says that this fleet has forwarded it", source=Source.DOWNSTREAM
                )

    def _success(self, outcome: Outcome, served_by: str, own_id: str, request_body: RequestBody) -> Response:
        inferred, reply = outcome.inferred, outcome.reply
        headers: list[tuple[str, str]] = []
        if self._public.explain_headers:
            left = self._fleet.region_of(served_by) != self._fleet.region
            sent_bytes = request_body.passed_bytes if left else 0
            queue_ms = outcome.queue_ms + inferred.queue_ms
            headers = [
                ("Edge-Pop", self._pop),
                ("Edge-Served-By", served_by),
                ("Edge-Route", _route(outcome)),
                ("Edge-Residency", inferred.residency),
                ("Edge-Egress", f"req={sent_bytes};weights={inferred.weights_bytes}"),
                (
                    "Server-Timing",
                    f"route;dur={outcome.route_ms:.2f}, queue;dur={queue_ms:.2f}, "
                    f"hydrate;dur={inferred.hydrate_ms:.2f}, infer;dur={inferred.infer_ms:.2f}, "
                    f"hop;dur={outcome.hop_ms:.2f}",
                ),
            ]
        headers.append(("Edge-Request-Id", own_id))
        if inferred.oip_json_bytes is not None:
            headers.append(("Inference-Header-Content-Length", str(inferred.oip_json_bytes)))
        if inferred.content_encoding:
            headers.append(("Content-Encoding", inferred.content_encoding))
        body: bytes | AsyncIterator[bytes] = reply.body if reply.rest is None else aiter(reply.rest)
        return Response(200, headers, body, inferred.content_type)

    def _refusal(self, error: EdgeError, own_id: str) -> list[tuple[str, str]]:
        if not self._public.explain_headers:
            return edge_headers(request_id=own_id)
        headers = edge_headers(pop=self._pop, route=f"shed;reason={error.reason}", request_id=own_id)
        headers.append(
            (
                "Proxy-Status",
                f"{CDN_NAME}; error={_PROXY_ERRORS.get(error.reason, 'proxy_internal_response')}",
            )
        )
        return headers


#: This fleet's token in CDN-Loop and Proxy-Status.
CDN_NAME: Final = "edgepop"
#: RFC 9209, section 2.3.
_PROXY_ERRORS: Final = {
    Reason.DEADLINE: "connection_read_timeout",
    Reason.LOOP: "proxy_loop_detected",
    Reason.NO_ENDPOINT: "destination_unavailable",
    Reason.CONFINED: "destination_unavailable",
    Reason.REGION: "destination_unavailable",
    Reason.LINK_LOST: "connection_terminated",
    Reason.WORKER_LOST: "connection_terminated",
    Reason.SATURATED: "connection_limit_reached",
    Reason.QUEUE_FULL: "connection_limit_reached",
    Reason.QUEUE_TIMEOUT: "connection_limit_reached",
    Reason.BUSY: "connection_limit_reached",
    Reason.RATE_LIMITED: "http_request_denied",
    Reason.UNAUTHENTICATED: "http_request_denied",
    Reason.FORBIDDEN: "http_request_denied",
}


def _route(outcome: Outcome) -> str:
    """`spill;reason=cold-here;score=98.1;next=fra-a/0:251.0;age=140`."""
    chosen = outcome.chosen
    text = f"{outcome.route};reason={chosen.reason};score={chosen.score_ms:.1f}"
    if chosen.next:
        text += f";next={chosen.next}:{chosen.next_ms:.1f}"
    return f"{text};age={chosen.age_ms:.0f}" if chosen.age_ms else text


def _call(request: Request, model: str, found: Resolved, own_id: str, left_ms: float) -> calls.Infer:
    """The call that carries the request to a worker, of this node or another."""
    get = request.headers.get
    return calls.Infer(
        model=model,
        version=found.version,
        digest=found.digest,
        protocol="run" if request.path[0] == "run" else "oip",
        content_type=get("content-type") or "",
        content_encoding=get("content-encoding") or "",
        accept_encoding=get("accept-encoding") or "",
        oip_json_bytes=_json_bytes(get("inference-header-content-length")),
        deadline_ms=left_ms,
        request_id=own_id,
        traceparent=get("traceparent") or "",
    )


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
