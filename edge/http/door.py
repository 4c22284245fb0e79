"""The words between the front door, its connections and its handler: types only."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from edge.errors import EdgeError
from edge.http.request import Request
from edge.http.respond import Response
from edge.limits import HttpLimits

if TYPE_CHECKING:
    from edge.http.connection import Connection

#: An answer now, or a future of one; a coroutine is run as a task of the door. Whatever is not a
#: Response is cancelled when the client leaves. EdgeError becomes its JSON answer, anything else a 500.
Answer: TypeAlias = Response | asyncio.Future[Response] | Coroutine[Any, Any, Response]
Handler: TypeAlias = Callable[[Request], Answer]


class Door(Protocol):
    """What a connection needs of the front door."""

    handler: Handler
    limits: HttpLimits
    hosts: frozenset[str]
    lame_duck: bool
    requests: int

    def opened(self, connection: "Connection") -> EdgeError | None:
        """Take the connection into account; an error is what it is to be refused with."""

    def closed(self, connection: "Connection") -> None:
        """The connection is gone."""

    def note(self, event: str) -> None:
        """Count an event of this name."""

    def run(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run a task that the door owns until `ended` is called with it."""

    def ended(self, work: "asyncio.Future[Any]") -> None:
        """The task is done; one that `run` did not make is fine."""

    def retry_after_s(self) -> int:
        """Seconds after which a refused client may come again."""


class AcceptingDoor(Door, Protocol):
    """What an acceptor needs beyond what its connections need."""

    def take_seat(self, seat: str) -> EdgeError | None:
        """Count a connection under its source; an error says which cap it is over."""

    def leave_seat(self, seat: str) -> None:
        """Undo `take_seat`."""

    def may_explain_refusal(self) -> bool:
        """True if a refused connection may be answered rather than reset."""
