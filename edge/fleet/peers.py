"""One other node: the link to it, what it tells, how far it is, and how it stands.

A `Peer` dials, greets (both ends name themselves, and TLS has proved the name), takes in the
beacons that come back, measures the round trip, and reports all of it to a `Book`. It has no
opinion of its own: what is believed is `intake`'s matter, what health means is `policy.health`'s.
"""

import asyncio
import dataclasses
import itertools
import logging
import math
import ssl
import weakref
from typing import Final, Protocol

from edge import clock
from edge.config import Mesh
from edge.errors import EdgeError, Reason, Source
from edge.fleet.beacon import Bad, NeedWhole
from edge.fleet.intake import Intake, Stale, Taken, judge
from edge.policy import health
from edge.policy.facts import Beacon, Standing
from edge.wire import calls, meshcalls
from edge.wire.dial import Dialer
from edge.wire.link import Link

log = logging.getLogger(__name__)

PROBE_S: Final = 1.0
#: A busy link is probed too when no round trip was measured for so long.
RTT_MAX_AGE_MS: Final = 5_000.0
RTT_EWMA: Final = 0.3
#: Round trips seen on exchanges count at most so often, or the average would forget within milliseconds.
PASSIVE_EVERY_MS: Final = 100.0
WATCH_S: Final = 0.1
RESYNC_EVERY_MS: Final = 1_000.0


class Book(Protocol):
    """Who is told (`edge.fleet.snapshot.Fleet`)."""

    def take(self, beacon: Beacon, at_ms: float) -> None:
        """A beacon that was checked and is newer than the last one."""

    def linked(self, node: str, up: bool) -> None:
        """The link to a node came up or was lost."""

    def measured_rtt(self, node: str, rtt_ms: float) -> None:
        """The smoothed round trip to a node."""

    def standing(self, node: str, standing: Standing) -> None:
        """Whether a node may be chosen."""

    def forget(self, node: str) -> None:
        """A node is taken to be gone for good."""


@dataclasses.dataclass(slots=True)
class Statistics:
    """What came from one node; counts only grow. `quarantined` is by `beacon.Why`."""

    accepted: int = 0
    stale: int = 0
    doubted: int = 0
    resyncs: int = 0
    links: int = 0
    received_bytes: int = 0
    quarantined: dict[str, int] = dataclasses.field(default_factory=dict)
    last_bad: str = ""


class Peer:
    """One other node, by name and address; `run` keeps everything about it true."""

    def __init__(
        self,
        node: str,
        address: tuple[str, int],
        *,
        me: str,
        version: str,
        mesh: Mesh,
        tls: ssl.SSLContext,
        book: Book,
        max_body_bytes: int,
    ) -> None:
        self.node = node
        #: Of the other node, as it greeted.
        self.version = ""
        self.statistics = Statistics()
        self.rtt_ms: float | None = None
        self.standing: Standing | None = None
        self.linked = False
        self._me = meshcalls.Subscribe(me, version)
        self._mesh = mesh
        self._tls = tls
        self._book = book
        self._max_body_bytes = max_body_bytes
        self._limits = health.Limits(mesh.suspect_ms, mesh.unroutable_ms, mesh.forget_ms)
        self._health = health.Health()
        self._intake = Intake()
        self._at_ms: float | None = None
        self._alive_ms = clock.now_ms()
        self._rtt_at_ms = -math.inf
        self._resync_ms = -math.inf
        self._dials: weakref.WeakKeyDictionary[Link, int] = weakref.WeakKeyDictionary()
        self._count = itertools.count(1)
        self.address = address
        self.dialer = self._dialer(address)

    def _dialer(self, address: tuple[str, int]) -> Dialer:
        return Dialer(
            self.node,
            address=address,
            tls=self._tls,
            greet=self._greet,
            on_lost=self._lost,
            on_event=self._event,
            connect_timeout_s=self._mesh.connect_timeout_ms / 1000.0,
            max_body_bytes=self._max_body_bytes,
        )

    # --- life

    async def run(self) -> None:
        """Keep the link, the round trip and the standing true until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.dialer.run())
            tasks.create_task(self._probe_forever())
            tasks.create_task(self._watch_forever())

    def move(self, address: tuple[str, int]) -> None:
        """It listens elsewhere now. Only while `run` does not."""
        self.address = address
        self.dialer = self._dialer(address)

    def age_ms(self, now_ms: float) -> float | None:
        """Since the last beacon that was taken; None before the first and after forgetting."""
        return now_ms - self._at_ms if self._at_ms is not None else None

    def silent_ms(self, now_ms: float) -> float:
        """Since the last sign of life on its link, or since it became a peer."""
        return now_ms - self._alive_ms

    # --- what the request path tells

    def sent(self) -> None:
        """A request goes there."""
        self._set_health(health.sent(self._health, clock.now_ms()))

    def succeeded(self) -> None:
        """An exchange ended with an answer."""
        self._set_health(health.succeeded(self._health, clock.now_ms()))

    def failed(self, reason: Reason) -> None:
        """An exchange failed; whether that is this node's fault is told from the reason."""
        if health.blamed(reason):
            self._set_health(health.failed(self._health, clock.now_ms()))

    def passive_rtt(self, sample_ms: float) -> None:
        """A round trip as an exchange saw it: its time, less what the other side spent."""
        if clock.now_ms() - self._rtt_at_ms >= PASSIVE_EVERY_MS and 0.0 <= sample_ms < math.inf:
            self._sample(sample_ms)

    def _set_health(self, now: health.Health) -> None:
        if now is not self._health:
            self._health = now
            self._settle(clock.now_ms())

    # --- the link

    async def _greet(self, link: Link) -> None:
        self._number(link)
        began_ms = clock.now_ms()
        reply = await link.request(self._me, timeout_s=self._mesh.connect_timeout_ms / 1000.0)
        if not isinstance(reply.head, meshcalls.Welcome) or reply.head.node != self.node:
            raise EdgeError(Reason.PROTOCOL, f"{self.node} answered as somebody else", source=Source.UPSTREAM)
        self.version = reply.head.version[:64]
        self._alive_ms = clock.now_ms()
        self._sample(self._alive_ms - began_ms)
        self.statistics.links += 1
        self.linked = True
        self._book.linked(self.node, up=True)

    def _lost(self) -> None:
        if self.linked:
            self.linked = False
            self._book.linked(self.node, up=False)

    def _number(self, link: Link) -> int:
        """Links are numbered as they are dialed."""
        number = self._dials.get(link)
        if number is None:
            number = self._dials[link] = next(self._count)
        return number

    async def _probe_forever(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            link = self.dialer.link
            if link is None or link.closed or not self.linked:
                continue
            began_ms = clock.now_ms()
            if link.in_flight and began_ms - self._rtt_at_ms < RTT_MAX_AGE_MS:
                continue
            try:
                await link.request(meshcalls.Probe(), timeout_s=self._mesh.unroutable_ms / 1000.0)
            except EdgeError as error:
                if error.reason is Reason.DEADLINE:
                    log.info("a peer does not answer", extra={"peer": self.node})
                    link.abort()
                continue
            self._alive_ms = clock.now_ms()
            self._sample(self._alive_ms - began_ms)

    def _sample(self, sample_ms: float) -> None:
        self._rtt_at_ms = clock.now_ms()
        if self.rtt_ms is None:
            self.rtt_ms = sample_ms
        else:
            self.rtt_ms += RTT_EWMA * (sample_ms - self.rtt_ms)
        self._book.measured_rtt(self.node, self.rtt_ms)

    # --- beacons

    def _event(self, link: Link, head: calls.Head, body: bytes) -> None:
        if not isinstance(head, meshcalls.BeaconNews):
            return
        now_ms = self._alive_ms = clock.now_ms()
        self.statistics.received_bytes += len(body)
        before = self._intake
        self._intake, verdict = judge(before, head, body, dial=self._number(link), expect_node=self.node)
        match verdict:
            case Taken(beacon, doubted):
                self._take(beacon, now_ms, new_boot=before.told is None or before.told.boot != beacon.boot)
                self.statistics.doubted += doubted
                if doubted:
                    log.warning("a beacon lacks most models", extra={"peer": self.node, "seq": beacon.seq})
            case Stale():
                self.statistics.stale += 1
            case NeedWhole():
                self._resync(link, now_ms)
            case Bad(why, text):
                self._quarantine(str(why), text)

    def _take(self, beacon: Beacon, now_ms: float, *, new_boot: bool) -> None:
        self._health = health.heard(self._health, now_ms, new_boot=new_boot)
        self._at_ms = now_ms
        self.statistics.accepted += 1
        self._book.take(beacon, now_ms)
        self._settle(now_ms)

    def _resync(self, link: Link, now_ms: float) -> None:
        """Ask for a whole beacon, but not more often than a whole one may cost."""
        if now_ms - self._resync_ms >= RESYNC_EVERY_MS:
            self._resync_ms = now_ms
            self.statistics.resyncs += 1
            link.event(meshcalls.Resync())

    def _quarantine(self, why: str, text: str) -> None:
        counts = self.statistics.quarantined
        if why not in counts:
            log.warning("a beacon was refused", extra={"peer": self.node, "why": why, "text": text})
        counts[why] = counts.get(why, 0) + 1
        self.statistics.last_bad = text

    # --- standing

    async def _watch_forever(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            now_ms = clock.now_ms()
            self._settle(now_ms)
            link = self.dialer.link
            if self.linked and link is not None and self.silent_ms(now_ms) >= self._mesh.unroutable_ms:
                # No beacon, good or bad, and no answer to a probe: what is in this link waits for nothing.
                log.info("a peer fell silent", extra={"peer": self.node})
                link.abort()

    def _settle(self, now_ms: float) -> None:
        """Tell the book when the standing changed, and when the node is to be forgotten."""
        if health.forgotten(self._health, now_ms, self._limits):
            log.info("a peer is forgotten", extra={"peer": self.node})
            self._health, self._intake, self._at_ms = health.Health(), Intake(dial=self._intake.dial), None
            self.standing = None
            self._book.forget(self.node)
        if self._at_ms is None:
            return
        told = self._intake.told
        draining = told is not None and told.draining
        standing = health.standing(self._health, now_ms, self._limits, draining=draining)
        if standing is not self.standing:
            self.standing = standing
            self._book.standing(self.node, standing)

    def __repr__(self) -> str:
        link = "linked" if self.linked else f"no link: {self.dialer.last_error}"
        return f"<Peer {self.node} {self.standing or 'unheard'}, {link}>"
