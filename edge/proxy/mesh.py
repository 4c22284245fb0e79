"""Calls from other nodes: run it here or refuse, never forward.

A request that arrives here has been decided once, at its ingress; the same code runs it, and
`hops` keeps it on this node. Every answer and every refusal carries the fresh state of the
worker that was asked for, so that the ingress knows better the next time.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from edge.background import Background
from edge.errors import EdgeError, Reason, Source
from edge.fleet.snapshot import Fleet
from edge.policy.facts import Ask, Cold, Pulse
from edge.proxy.handler import Handler, Story
from edge.proxy.upstream import RequestBody
from edge.weights.manifest import DIGEST, MODEL_NAME
from edge.wire import calls
from edge.wire.exchange import Incoming

log = logging.getLogger(__name__)

MAX_HOPS: Final = 1
#: What a peer's word is worth, whatever its own door allows.
MAX_DEADLINE_MS: Final = 600_000.0
_FIELD: Final = re.compile(r"[\x20-\x7e]{0,1024}")
_PROTOCOLS: Final = frozenset({"oip", "run"})


class MeshCalls:
    """Answers calls of the mesh; `on_call` is given to every accepted link."""

    def __init__(
        self,
        *,
        handler: Handler,
        fleet: Fleet,
        background: Background,
        stamp: Callable[[], tuple[int, int]],
        on_request: Callable[[str, str], None],
        confine_of: Callable[[str], frozenset[str]],
        bring: Callable[[calls.Ensure], Awaitable[calls.Ensured]],
    ) -> None:
        """`stamp`: (boot, sequence number) of this node's beacons; `on_request` hears (model, outcome).

        `confine_of` tells the regions to which a model is confined, `bring` a model to this disk.
        """
        self._handler = handler
        self._fleet = fleet
        self._background = background
        self._stamp = stamp
        self._on_request = on_request
        self._confine_of = confine_of
        self._bring = bring
        self._running: set[asyncio.Task[Any]] = set()

    def on_call(self, incoming: Incoming) -> None:
        """One call from a peer; the answer is sent when it is there."""
        match incoming.head:
            case calls.Infer() as head:
                task = self._background.spawn(self._infer(incoming, head))
            case calls.Ensure() as head:
                task = self._background.spawn(self._ensure(incoming, head))
            case _:
                text = "the mesh has no such call"
                incoming.fail(EdgeError(Reason.PROTOCOL, text, source=Source.DOWNSTREAM))
                return
        self._running.add(task)

        def ended(ended: asyncio.Task[Any]) -> None:
            self._running.discard(ended)
            _answer_a_crash(incoming, ended)

        def cancel() -> None:
            task.cancel()

        incoming.on_cancel = cancel
        task.add_done_callback(ended)

    async def _ensure(self, incoming: Incoming, call: calls.Ensure) -> None:
        try:
            incoming.reply(await self._bring(call))
        except EdgeError as error:
            incoming.fail(error)

    async def finish(self, within_s: float) -> None:
        """Wait until nothing of other nodes runs here any more, at most so long."""
        if self._running:
            await asyncio.wait(list(self._running), timeout=within_s)

    async def _infer(self, incoming: Incoming, call: calls.Infer) -> None:
        outcome = "failed"
        try:
            _check(call)
            log.debug("request forwarded here", extra={"id": call.request_id, "model": call.model})
            held = None if incoming.rest is not None else incoming.body
            chunks = None if incoming.rest is None else aiter(incoming.rest)
            body = RequestBody(held, chunks, len(incoming.body))
            ask = Ask(
                model=call.model,
                digest=call.digest,
                deadline_ms=call.deadline_ms,
                body_bytes=body.size_bytes,
                hops=call.hops,
                worker=call.worker,
                confine=self._confine_of(call.model),
                cold=Cold.REJECT if call.cold == Cold.REJECT else Cold.WAIT,
            )
            found = await self._handler.infer(ask, call, body, Story())
            inferred = found.inferred
            inferred.queue_ms += found.queue_ms
            inferred.served_by = inferred.served_by or found.chosen.target
            inferred.pulse = self._pulse(inferred.served_by, call.digest)
            outcome = "served"
            if found.reply.rest is None:
                incoming.reply(inferred, found.reply.body)
            else:
                await incoming.stream(inferred, aiter(found.reply.rest))
        except EdgeError as error:
            outcome = "refused" if error.retryable else "failed"
            incoming.fail(error, pulse=self._pulse(call.worker, call.digest))
        finally:
            self._on_request(call.model, outcome)

    def _pulse(self, name: str, digest: str) -> Pulse | None:
        worker = self._fleet.own.get(name)
        if worker is None:
            return None
        boot, seq = self._stamp()
        return self._fleet.pulse_of(worker, digest, boot=boot, seq=seq)


def _check(call: calls.Infer) -> None:
    """What came from another node is no better than what came from a client. Raises EdgeError."""
    if call.hops != MAX_HOPS:
        raise EdgeError(Reason.LOOP, "the request was forwarded more than once, or not at all")
    texts = (
        call.content_type,
        call.content_encoding,
        call.accept_encoding,
        call.request_id,
        call.traceparent,
    )
    good = (
        MODEL_NAME.fullmatch(call.model) is not None
        and DIGEST.fullmatch(call.digest) is not None
        and call.protocol in _PROTOCOLS
        and all(_FIELD.fullmatch(text) is not None for text in texts)
        and (call.oip_json_bytes is None or 0 <= call.oip_json_bytes < 1 << 40)
    )
    if not good:
        raise EdgeError(Reason.PROTOCOL, "a field of the call can't be", source=Source.DOWNSTREAM)
    # NaN is in no interval.
    if not 0.0 < call.deadline_ms <= MAX_DEADLINE_MS:
        raise EdgeError(
            Reason.DEADLINE, "the deadline had passed when the request came here", retryable=False
        )


def _answer_a_crash(incoming: Incoming, ended: asyncio.Task[Any]) -> None:
    """A bug here must not leave the peer waiting for its deadline; `Background` has logged it."""
    if not ended.cancelled() and ended.exception() is not None:
        incoming.fail(EdgeError(Reason.INTERNAL, "the node failed to handle the request"))
