"""The answering half of a link: replies, streamed replies, failures, and callers that leave.

Each call is answered once. It knows ids and order, not what a call means.
"""

import asyncio
from collections.abc import AsyncIterable
from typing import Final

from edge.errors import EdgeError, Reason, Source
from edge.policy.facts import Pulse
from edge.wire import calls, meshcalls
from edge.wire.channel import Channel
from edge.wire.exchange import Body, Incoming
from edge.wire.frame import SHARED_BODY_BYTES, FrameError, Kind, encode

_CUT: Final = "the answer broke off"


class Answering(Channel):
    """The calls that came in and have no whole answer yet, by exchange id."""

    def __init__(self, *, max_body_bytes: int, idle_s: float) -> None:
        super().__init__(max_body_bytes=max_body_bytes, idle_s=idle_s)
        self._incoming: dict[int, Incoming] = {}

    @property
    def answering(self) -> int:
        """Calls of the other side that have no whole answer yet."""
        return len(self._incoming)

    def goodbye(self) -> None:
        """Ask the other side to dial again and to open nothing more here; what is under way goes on."""
        self.event(meshcalls.Goodbye())

    def event(self, head: calls.Head, body: bytes = b"") -> None:
        """Tell the other side something that needs no answer; lost with the link."""
        if not self.closed:
            self._send(encode(Kind.EVENT, 0, calls.encode_head(head), body))

    def send_reply(self, exchange_id: int, head: calls.Head, body: bytes | memoryview) -> None:
        """Answer a call; a large body leaves in DATA frames. Unknown ids are a cancelled caller.

        A head that is larger than a frame takes fails this call, not the link.
        """
        item = self._incoming.get(exchange_id)
        if item is None or self.closed:
            return
        raw = calls.encode_head(head)
        whole = len(body) <= SHARED_BODY_BYTES
        try:
            frame = encode(Kind.REPLY if whole else Kind.REPLY_MORE, exchange_id, raw, body if whole else b"")
        except FrameError as error:
            text = f"the answer {type(head).__name__} can't be sent: {error}"
            self.send_failure(exchange_id, EdgeError(Reason.INTERNAL, text))
            return
        if whole:
            del self._incoming[exchange_id]
            if item.rest is not None:
                self._read_on(item.rest)
            self._send(frame, alone=not self._incoming)
            return
        self._answered(exchange_id)
        self._allow_pauses()
        view = memoryview(body)
        self._send(frame)
        for at in range(0, len(view), SHARED_BODY_BYTES):
            self._send(encode(Kind.DATA, exchange_id, body=view[at : at + SHARED_BODY_BYTES]))
        self._send(encode(Kind.END, exchange_id))

    def send_failure(self, exchange_id: int, error: EdgeError, pulse: Pulse | None = None) -> None:
        """Answer a call with an error, or end an answer that was being streamed with it."""
        if exchange_id in self._incoming and not self.closed:
            self._answered(exchange_id)
            self._send(encode(Kind.ERROR, exchange_id, calls.encode_failure(error, pulse)))

    async def stream_reply(self, item: Incoming, head: calls.Head, chunks: AsyncIterable[bytes]) -> None:
        """`Incoming.stream`: see there. The call stays open, so that its CANCEL is heard."""
        source = aiter(chunks)
        try:
            if not self._awaited(item):
                return
            self._send(encode(Kind.REPLY_MORE, item.id, calls.encode_head(head)))
            self._allow_pauses()
            if item.rest is not None:
                # The caller stops sending at the first frame of its answer: no more will come.
                item.rest.end(EdgeError(Reason.PROTOCOL, "answered before the whole body was there"))
                self._read_on(item.rest)
            pump = item.sending = asyncio.get_running_loop().create_task(self._pump(item.id, source))
            try:
                await asyncio.wait((pump,))
            finally:
                pump.cancel()
                await asyncio.gather(pump, return_exceptions=True)
            if not self._awaited(item):
                return
            pump.result()
            self._answered(item.id)
            self._send(encode(Kind.END, item.id))
        except EdgeError as error:
            item.fail(error)
            raise
        except asyncio.CancelledError:
            item.fail(EdgeError(Reason.LINK_LOST, _CUT, source=Source.UPSTREAM))
            raise
        except Exception:
            item.fail(EdgeError(Reason.INTERNAL, _CUT))
            raise
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()
            if isinstance(chunks, Body):
                # Closing an iterator that was never started does not reach it.
                chunks.abandon()

    def _awaited(self, item: Incoming) -> bool:
        """The caller has neither cancelled nor gone, nor had its answer."""
        return self._incoming.get(item.id) is item and not self.closed

    def _answered(self, exchange_id: int) -> None:
        item = self._incoming.pop(exchange_id)
        if item.rest is not None:
            self._read_on(item.rest)

    def _cancel_incoming(self, item: Incoming) -> None:
        item.cancelled = True
        if item.sending is not None:
            item.sending.cancel()
        if item.rest is not None:
            item.rest.end(EdgeError(Reason.CLIENT_GONE, "the caller left", source=Source.DOWNSTREAM))
            self._read_on(item.rest)
        if item.on_cancel is not None:
            item.on_cancel()
