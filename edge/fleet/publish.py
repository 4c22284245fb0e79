"""Tells this node's beacons to the links that subscribed.

Changes are gathered for `coalesce_ms` and told as a difference to what was told last; at
least every `heartbeat_ms` something is told. A difference is encoded once, however many
subscribers share its base. One that does not read is passed over, so that it costs a bounded
buffer, and has a whole beacon when it reads again.

Knows nothing of where the state comes from, and nothing of the links but how to send.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from edge import clock
from edge.fleet.beacon import delta, encode, fitted, tidy
from edge.fleet.noise import steady, worth_telling
from edge.policy.facts import Beacon
from edge.wire.link import Link
from edge.wire.meshcalls import BeaconNews

#: With so much unread, a subscriber is told nothing more.
MAX_UNREAD_BYTES: Final = 1024 * 1024


class Publisher:
    """`make(seq)` is the state now; it is asked for the same number again when that was not worth telling."""

    def __init__(self, make: Callable[[int], Beacon], *, coalesce_ms: float, heartbeat_ms: float) -> None:
        self._make = make
        self._coalesce_ms = coalesce_ms
        self._heartbeat_ms = heartbeat_ms
        self._told: Beacon | None = None
        self._told_ms = self._looked_ms = -math.inf
        #: What each subscriber has, by sequence number; 0: nothing that a difference could build on.
        self._subscribers: dict[Link, int] = {}
        self._dirty = asyncio.Event()
        self.wholes = 0
        self.deltas = 0
        self.passed_over = 0
        self.told_bytes = 0
        #: Models and demand that the newest beacon had no room for.
        self.left_out = 0

    @property
    def seq(self) -> int:
        """The newest sequence number that was told, 0 before the first."""
        return self._told.seq if self._told is not None else 0

    @property
    def subscribers(self) -> int:
        """Links that are told."""
        return len(self._subscribers)

    def changed(self) -> None:
        """Something that others may want to know."""
        self._dirty.set()

    def subscribe(self, link: Link) -> None:
        """Tell this link everything, and every change from now on."""
        self._subscribers[link] = 0
        self._dirty.set()

    def resync(self, link: Link) -> None:
        """A subscriber can't use what it was told. Nothing happens for a link that is none."""
        if link in self._subscribers:
            self.subscribe(link)

    def unsubscribe(self, link: Link) -> None:
        """The link is gone."""
        self._subscribers.pop(link, None)

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            due_ms = self._told_ms + self._heartbeat_ms - clock.now_ms()
            try:
                async with asyncio.timeout(max(0.0, due_ms) / 1000.0 if self._subscribers else None):
                    await self._dirty.wait()
            except TimeoutError:
                pass
            early_ms = self._looked_ms + self._coalesce_ms - clock.now_ms()
            if early_ms > 0.0:
                await asyncio.sleep(early_ms / 1000.0)
            self._tell()

    def _tell(self) -> None:
        now_ms = self._looked_ms = clock.now_ms()
        new = self._next(now_ms) if self._subscribers else None
        # Making a beacon may itself say that something changed: that is in it already.
        self._dirty.clear()
        if new is None:
            return
        base, self._told, self._told_ms = self._told, new, now_ms
        difference: tuple[BeaconNews, bytes] | None = None
        whole: tuple[BeaconNews, bytes] | None = None
        for link, has in list(self._subscribers.items()):
            if link.closed:
                del self._subscribers[link]
            elif _unread_bytes(link) > MAX_UNREAD_BYTES:
                self.passed_over += 1
            elif base is not None and has == base.seq:
                difference = difference or delta(base, new)
                self.deltas += 1
                self._send(link, difference)
            else:
                whole = whole or (BeaconNews(), encode(new))
                self.wholes += 1
                self._send(link, whole)

    def _next(self, now_ms: float) -> Beacon | None:
        """The next beacon, or None when it says nothing new and the heartbeat is not due."""
        told = self._told
        made = self._make(self.seq + 1)
        new = fitted(tidy(made))
        self.left_out = max(0, len(made.models) - len(new.models))
        if told is None:
            return new
        new = steady(told, new)
        due = now_ms >= self._told_ms + self._heartbeat_ms - 1.0
        behind = any(has != told.seq for has in self._subscribers.values())
        return new if due or behind or worth_telling(told, new) else None

    def _send(self, link: Link, news: tuple[BeaconNews, bytes]) -> None:
        head, body = news
        link.event(head, body)
        self._subscribers[link] = self.seq
        self.told_bytes += len(body)

    def __repr__(self) -> str:
        return f"<Publisher seq {self.seq}, {self.subscribers} subscribers>"


def _unread_bytes(link: Link) -> int:
    return link.transport.get_write_buffer_size() if link.transport is not None else 0
