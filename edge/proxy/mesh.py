"""Calls from other nodes: run it here or refuse, never forward.

A request that arrives here has been decided once, at its ingress; the same code runs it,
and `hops` keeps it on this node.
"""

import asyncio
from typing import Any

from edge.background import Background
from edge.errors import EdgeError, Reason, Source
from edge.policy.facts import Ask, State
from edge.proxy.handler import Handler
from edge.proxy.upstream import RequestBody, Upstream
from edge.wire import calls
from edge.wire.exchange import Incoming

MAX_HOPS = 1


class MeshCalls:
    """Answers calls of the mesh; `on_call` is given to every accepted link."""

    def __init__(
        self, *, node: str, pop: str, handler: Handler, upstream: Upstream, background: Background
    ) -> None:
        self._node = node
        self._pop = pop
        self._handler = handler
        self._upstream = upstream
        self._background = background

    def on_call(self, incoming: Incoming) -> None:
        """One call from a peer; the answer is sent when it is there."""
        head = incoming.head
        if isinstance(head, calls.Status):
            workers = self._upstream.workers.values()
            up = [w for w in workers if w.endpoint.state is State.UP]
            starting = [w for w in workers if w.endpoint.state is State.STARTING]
            warm = sorted({digest for worker in up for digest in worker.endpoint.warm})
            state = calls.PeerState(
                node=self._node, pop=self._pop, workers_up=len(up), workers_starting=len(starting), warm=warm
            )
            incoming.reply(state)
        elif isinstance(head, calls.Infer):
            task = self._background.spawn(self._infer(incoming, head))

            def cancel() -> None:
                task.cancel()

            incoming.on_cancel = cancel
            task.add_done_callback(lambda ended: _answer_a_crash(incoming, ended))
        else:
            incoming.fail(EdgeError(Reason.PROTOCOL, "the mesh has no such call", source=Source.DOWNSTREAM))

    async def _infer(self, incoming: Incoming, call: calls.Infer) -> None:
        try:
            if call.hops > MAX_HOPS:
                raise EdgeError(Reason.LOOP, "the request was forwarded more than once")
            held = None if incoming.rest is not None else incoming.body
            chunks = None if incoming.rest is None else aiter(incoming.rest)
            body = RequestBody(held, chunks, len(incoming.body))
            ask = Ask(call.model, call.digest, call.deadline_ms, body.size_bytes, hops=max(1, call.hops))
            outcome = await self._handler.route(ask, call, body)
            inferred = outcome.inferred
            inferred.queue_ms += outcome.queue_ms
            inferred.served_by = inferred.served_by or outcome.target
            incoming.reply(inferred, await outcome.reply.whole())
        except EdgeError as error:
            incoming.fail(error)


def _answer_a_crash(incoming: Incoming, ended: asyncio.Task[Any]) -> None:
    """A bug here must not leave the peer waiting for its deadline; `Background` has logged it."""
    if not ended.cancelled() and ended.exception() is not None:
        incoming.fail(EdgeError(Reason.INTERNAL, "the node failed to handle the request"))
