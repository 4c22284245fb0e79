"""What a child tells of itself, whatever it holds: its models are the body, as a head is bounded. Pure.

A body that is empty leaves the models as the head tells them.
"""

from typing import Final

import msgspec

from edge.errors import EdgeError, Reason, Source
from edge.wire import calls
from edge.wire.failures import UNREADABLE

_loaded: Final = msgspec.msgpack.Decoder(list[calls.LoadedModel])
_stored: Final = msgspec.msgpack.Decoder(list[calls.StoredModel])


def tell(state: calls.WorkerState | calls.WeightsState) -> tuple[calls.Head, bytes]:
    """The head and the body of an answer to `Status`."""
    return msgspec.structs.replace(state, models=[]), msgspec.msgpack.encode(state.models)


def worker_state(head: calls.Head, body: bytes) -> calls.WorkerState:
    """What a worker told. Raises EdgeError(PROTOCOL)."""
    if not isinstance(head, calls.WorkerState):
        raise _unreadable(f"{type(head).__name__} is not the state of a worker")
    if body:
        try:
            head.models = _loaded.decode(body)
        except UNREADABLE as error:
            raise _unreadable(f"the models of a worker can't be read: {error}") from error
    return head


def weights_state(head: calls.Head, body: bytes) -> calls.WeightsState:
    """What a weight store told. Raises EdgeError(PROTOCOL)."""
    if not isinstance(head, calls.WeightsState):
        raise _unreadable(f"{type(head).__name__} is not the state of a weight store")
    if body:
        try:
            head.models = _stored.decode(body)
        except UNREADABLE as error:
            raise _unreadable(f"the models of a weight store can't be read: {error}") from error
    return head


def _unreadable(message: str) -> EdgeError:
    return EdgeError(Reason.PROTOCOL, message, source=Source.UPSTREAM)
