"""Send one request to where it was decided to run, and bring back the answer.

A worker of this node is reached over its UNIX socket, a peer over the mesh; the frames are
the same. Small bodies share a link; a large one gets a link for itself and is sent only as
fast as it is taken.
"""

from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

import msgspec

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.fleet.peers import PeerNode
from edge.proxy.worker import LocalWorker
from edge.wire import calls
from edge.wire.dial import Dialer
from edge.wire.exchange import Reply
from edge.wire.frame import SHARED_BODY_BYTES

#: How much longer than the deadline the other side may take to say that it passed.
GRACE_S: Final = 0.5
#: No stage of a request takes a day; NaN is not below it either.
MAX_STAGE_MS: Final = 86_400_000.0


class RequestBody:
    """A body to send: held in memory and repeatable, or a stream that can be sent once."""

    __slots__ = ("chunks", "held", "size_bytes")

    def __init__(self, held: bytes | None, chunks: AsyncIterator[bytes] | None, size_bytes: int) -> None:
        self.held = held
        self.chunks = chunks
        self.size_bytes = size_bytes

    @property
    def repeatable(self) -> bool:
        """Whether a second attempt has anything to send."""
        return self.held is not None


class Upstream:
    """Workers of this node and peers of this POP, by endpoint name."""

    def __init__(self) -> None:
        self.workers: dict[str, LocalWorker] = {}
        self.peers: dict[str, PeerNode] = {}

    def exchange(
        self, target: str, call: calls.Infer, body: RequestBody, *, deadline_ms: float
    ) -> Coroutine[Any, Any, tuple[calls.Inferred, Reply]]:
        """One attempt at `target`. `deadline_ms` is what is left of it.

        Raises EdgeError; its `retryable` says that nothing ran. The endpoint's load is counted
        for the length of the attempt.
        """
        worker = self.workers.get(target)
        if worker is not None:
            return self._at_worker(worker, call, body, deadline_ms)
        return self._at_peer(self.peers[target], call, body, deadline_ms)

    async def _at_worker(
        self, worker: LocalWorker, call: calls.Infer, body: RequestBody, deadline_ms: float
    ) -> tuple[calls.Inferred, Reply]:
        endpoint = worker.endpoint
        residency, hydrate_ms, started_ms = "device", 0.0, clock.now_ms()
        endpoint.begin()
        served_ms: float | None = None
        model = worker.claim(call.digest, call.model)
        try:
            if model.loading is not None:
                residency, hydrate_ms = await worker.ensure(model, deadline_ms)
                deadline_ms -= hydrate_ms
                call = msgspec.structs.replace(call, deadline_ms=deadline_ms)
            # Time spent waiting at the door is not given back to the worker.
            call.deadline_ms = deadline_ms
            reply = await _send(worker.dialer, call, body, deadline_ms)
            inferred = _inferred(reply, worker.name)
            if hydrate_ms:
                inferred.hydrate_ms, inferred.residency = hydrate_ms, residency
            else:
                served_ms = clock.now_ms() - started_ms
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
            endpoint.end(served_ms)
        return inferred, reply

    async def _at_peer(
        self, peer: PeerNode, call: calls.Infer, body: RequestBody, deadline_ms: float
    ) -> tuple[calls.Inferred, Reply]:
        endpoint, started_ms = peer.endpoint, clock.now_ms()
        forwarded = msgspec.structs.replace(call, hops=call.hops + 1, deadline_ms=deadline_ms)
        endpoint.begin()
        served_ms: float | None = None
        try:
            reply = await _send(peer.dialer, forwarded, body, deadline_ms)
            inferred = _inferred(reply, peer.peer.node)
            served_ms = clock.now_ms() - started_ms
        finally:
            endpoint.end(served_ms)
        return inferred, reply


def _send(dialer: Dialer, call: calls.Infer, body: RequestBody, left_ms: float) -> Coroutine[Any, Any, Reply]:
    """A small body on the shared link, a large one on a link of its own."""
    timeout_s = left_ms / 1000.0 + GRACE_S
    if body.held is not None and len(body.held) <= SHARED_BODY_BYTES:
        return dialer.shared().request(call, body.held, timeout_s=timeout_s)
    return _alone(dialer, call, body, timeout_s)


async def _alone(dialer: Dialer, call: calls.Infer, body: RequestBody, timeout_s: float) -> Reply:
    """A large body on a link of its own; the link closes when the answer has been read."""
    link = await dialer.exclusive()
    try:
        chunks = body.chunks if body.held is None else _slices(body.held)
        if chunks is None:
            raise EdgeError(Reason.INTERNAL, "a body that was sent once can't be sent again")
        reply = await link.stream(call, chunks, timeout_s=timeout_s)
    except BaseException:
        link.abort()
        raise
    if reply.rest is None:
        link.close()
    else:
        reply.rest.on_end = link.close
    return reply


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
    if not all(0.0 <= one < MAX_STAGE_MS for one in times) or not 0 < head.items < 1 << 32:
        raise EdgeError(Reason.PROTOCOL, "upstream tells times that can't be", source=Source.UPSTREAM)
    node, _, index = head.served_by.partition("/")
    if head.served_by != expected and not (node == expected and index.isdecimal() and len(index) <= 3):
        head.served_by = expected
    return head
