"""Send one request to where it was decided to run, and bring back the answer.

A worker of this node is reached over its UNIX socket, a peer over the mesh; the frames are
the same. Small bodies share a link; a large one gets a link for itself and is sent only as
fast as it is taken.
"""

from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, Final

import msgspec

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.fleet.peers import Peer
from edge.fleet.snapshot import Fleet
from edge.oip.objects import names_in
from edge.policy.decision import Chosen
from edge.policy.facts import Ask, Tier
from edge.policy.score import FIRST_FLIGHT_BYTES
from edge.proxy.objects import Asked, Objects
from edge.proxy.worker import LocalWorker
from edge.wire import calls
from edge.wire.dial import Dialer
from edge.wire.exchange import Reply
from edge.wire.failures import UpstreamError, sane_pulse
from edge.wire.frame import SHARED_BODY_BYTES

#: How much longer than the deadline the other side may take to say that it passed.
GRACE_S: Final = 0.5
#: A node that said goodbye is dialed anew within this.
REPLACED_S: Final = 2.0
#: No stage of a request takes a day; NaN is not below it either.
MAX_STAGE_MS: Final = 86_400_000.0
_TIERS: Final = frozenset(Tier)


class RequestBody:
    """A body to send: held in memory and repeatable, or a stream that can be sent once."""

    __slots__ = ("chunks", "held", "passed_bytes", "size_bytes")

    def __init__(self, held: bytes | None, chunks: AsyncIterator[bytes] | None, size_bytes: int) -> None:
        self.held = held
        self.chunks = chunks
        self.size_bytes = size_bytes
        #: Of a stream: what has been sent so far; of a held body: all of it.
        self.passed_bytes = 0 if held is None else len(held)

    @property
    def repeatable(self) -> bool:
        """Whether a second attempt has anything to send."""
        return self.held is not None


class Upstream:
    """Workers of this node by endpoint name, and the other nodes of the fleet."""

    def __init__(self, fleet: Fleet, peers: Mapping[str, Peer], objects: Objects) -> None:
        self.workers: dict[str, LocalWorker] = {}
        self._fleet = fleet
        self._peers = peers
        self._objects = objects

    async def exchange(
        self, chosen: Chosen, ask: Ask, call: calls.Infer, body: RequestBody, *, deadline_ms: float
    ) -> tuple[calls.Inferred, Reply, float]:
        """One attempt at `chosen.target`: the answer, and the ms that the hop cost (0 at home).

        `deadline_ms` is what is left of it. Raises EdgeError; its `retryable` says that nothing
        ran. The endpoint's load is counted for the length of the attempt.
        """
        target = chosen.target
        cost_ms = self._fleet.cost_ms(target, call.digest)
        worker = self.workers.get(target)
        self._fleet.begin(target, cost_ms)
        try:
            if worker is not None:
                inferred, reply = await self._at_worker(worker, call, body, deadline_ms)
                hop_ms = 0.0
            else:
                inferred, reply, hop_ms = await self._at_peer(target, chosen, ask, call, body, deadline_ms)
        finally:
            self._fleet.end(target, cost_ms)
        own = target if worker is not None else ""
        self._fleet.answered(
            own, call.digest, body.size_bytes, len(reply.body), inferred.infer_ms, inferred.batch
        )
        return inferred, reply, hop_ms

    async def _at_worker(
        self, worker: LocalWorker, call: calls.Infer, body: RequestBody, deadline_ms: float
    ) -> tuple[calls.Inferred, Reply]:
        residency, hydrate_ms, outside_bytes = "device", 0.0, 0
        far = () if call.digest in worker.endpoint.models else self._fleet.far_sources(call.digest)
        model = worker.claim(call.digest, call.model, far)
        objects: Asked | None = None
        try:
            if names := _names(call, body):
                # Beside a load of the model, which has begun.
                objects = await self._objects.ask(names, deadline_ms)
            if model.loading is not None:
                residency, hydrate_ms, outside_bytes = await worker.ensure(model, deadline_ms)
                deadline_ms -= hydrate_ms
            if objects is not None:
                await objects.wait(deadline_ms)
                deadline_ms -= objects.waited_ms
            # Time spent waiting at the door is not given back to the worker.
            told = objects.told if objects is not None else ()
            local = msgspec.structs.replace(call, deadline_ms=deadline_ms, objects=told)
            with worker.upload(body.repeatable and _are_small(told)):
                reply = await _send(worker.dialer, local, body, deadline_ms)
            inferred = _inferred(reply, worker.name)
            if hydrate_ms:
                inferred.hydrate_ms, inferred.residency = hydrate_ms, residency
                inferred.weights_bytes = outside_bytes
            if objects is not None:
                inferred.hydrate_ms += objects.waited_ms
                inferred.weights_bytes += objects.outside_bytes
        except EdgeError as error:
            if error.reason is Reason.LINK_LOST and not error.retryable:
                raise EdgeError(
                    Reason.WORKER_LOST,
                    f"worker {worker.name} died while the request was in it",
                    source=Source.UPSTREAM,
                    retry_after_s=1,
                ) from error
            if error.reason is Reason.NO_ENDPOINT and error.retryable:
                worker.forget(call.digest, model)
            raise
        finally:
            worker.unclaim(model)
            if objects is not None:
                objects.give_back()
        return inferred, reply

    async def _at_peer(
        self,
        target: str,
        chosen: Chosen,
        ask: Ask,
        call: calls.Infer,
        body: RequestBody,
        deadline_ms: float,
    ) -> tuple[calls.Inferred, Reply, float]:
        node = target.rpartition("/")[0]
        peer = self._peers.get(node)
        if peer is None:
            raise EdgeError(Reason.LINK_LOST, f"{node} has left the fleet", retryable=True)
        # A node that turns out not to have the model says so, unless it was chosen to bring it.
        cold = "wait" if self._fleet.is_cold(target, call.digest) or ask.tried else "reject"
        forwarded = msgspec.structs.replace(
            call, hops=call.hops + 1, deadline_ms=deadline_ms, worker=target, cold=cold
        )
        if peer.dialer.replacing:
            # A planned restart over there: some round trips, against another POP's distance for good.
            await peer.dialer.wait_shared(min(REPLACED_S, deadline_ms / 1000.0))
        sent_ms = clock.now_ms()
        peer.sent()
        try:
            reply = await _send(peer.dialer, forwarded, body, deadline_ms)
            inferred = _inferred(reply, node)
        except EdgeError as error:
            pulse = error.pulse if isinstance(error, UpstreamError) else None
            if pulse is not None:
                self._fleet.pulse(node, pulse, call.digest, clock.now_ms())
                peer.succeeded()
            else:
                peer.failed(error.reason)
            raise
        took_ms = clock.now_ms() - sent_ms
        peer.succeeded()
        if inferred.pulse is not None:
            self._fleet.pulse(node, inferred.pulse, call.digest, clock.now_ms())
        hop_ms = max(0.0, took_ms - inferred.queue_ms - inferred.hydrate_ms - inferred.infer_ms)
        if body.size_bytes <= FIRST_FLIGHT_BYTES and reply.rest is None:
            peer.passive_rtt(hop_ms)
        return inferred, reply, hop_ms


def _send(dialer: Dialer, call: calls.Infer, body: RequestBody, left_ms: float) -> Coroutine[Any, Any, Reply]:
    """A small body on the shared link, a large one on a link of its own."""
    timeout_s = left_ms / 1000.0 + GRACE_S
    if body.held is not None and len(body.held) <= SHARED_BODY_BYTES:
        return dialer.shared().request(call, body.held, timeout_s=timeout_s)
    return _alone(dialer, call, body, timeout_s)


def _are_small(told: tuple[calls.ObjectHere, ...]) -> bool:
    """A worker reads objects whole: large ones count like a large body, however short their names."""
    return sum([one.size_bytes for one in told]) <= SHARED_BODY_BYTES


def _names(call: calls.Infer, body: RequestBody) -> tuple[str, ...]:
    """Objects that the request may name. One that is sent only as it is taken names none."""
    if body.held is None or call.content_encoding:
        return ()
    return names_in(body.held, call.protocol, call.content_type, call.oip_json_bytes)


async def _alone(dialer: Dialer, call: calls.Infer, body: RequestBody, timeout_s: float) -> Reply:
    """A large body on a link of its own; the link closes when the answer has been read."""
    link = await dialer.exclusive()
    try:
        chunks = _counted(body) if body.held is None else _slices(body.held)
        reply = await link.stream(call, chunks, timeout_s=timeout_s)
    except BaseException:
        link.abort()
        raise
    if reply.rest is None:
        link.close()
    else:
        reply.rest.on_end = link.close
    return reply


async def _counted(body: RequestBody) -> AsyncIterator[bytes]:
    chunks, body.chunks = body.chunks, None
    if chunks is None:
        raise EdgeError(Reason.INTERNAL, "a body that was sent once can't be sent again")
    async for chunk in chunks:
        body.passed_bytes += len(chunk)
        yield chunk


async def _slices(held: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(held), SHARED_BODY_BYTES):
        yield held[at : at + SHARED_BODY_BYTES]


def _inferred(reply: Reply, expected: str) -> calls.Inferred:
    """The answer's head, checked: it comes from another process, and becomes headers and metrics.

    `expected` is the worker, or the node whose workers may have served.
    """
    head = reply.head
    if not isinstance(head, calls.Inferred):
        raise EdgeError(Reason.PROTOCOL, "upstream answered something else", source=Source.UPSTREAM)
    times = (head.queue_ms, head.infer_ms, head.hydrate_ms)
    counts = (head.items, head.batch)
    if not all(0.0 <= one < MAX_STAGE_MS for one in times) or not all(0 < one < 1 << 32 for one in counts):
        raise EdgeError(Reason.PROTOCOL, "upstream tells times that can't be", source=Source.UPSTREAM)
    if not 0 <= head.weights_bytes < 1 << 50 or head.residency not in _TIERS:
        raise EdgeError(Reason.PROTOCOL, "upstream tells a residency that can't be", source=Source.UPSTREAM)
    head.pulse = sane_pulse(head.pulse)
    node, _, index = head.served_by.partition("/")
    if head.served_by != expected and not (node == expected and index.isdecimal() and len(index) <= 3):
        head.served_by = expected
    return head
