"""Keeps the lease: looks at the proxy's life, asks lease.py, and moves the addresses.

The only opinions here are how often to look. A node without an announcement has one of
these too; it answers "never".
"""

import asyncio
import logging
from typing import Final

from edge import clock
from edge.parent import lease
from edge.parent.announce import AnnounceError, Announcer
from edge.parent.guard import Guard
from edge.parent.held import Held
from edge.parent.lease import Do, Lease, Proxy, Signal, State, Terms
from edge.policy.others import Others

log = logging.getLogger(__name__)

#: While the lease lapses its end is near: look this often.
LAPSING_LOOK_S: Final = 0.05


class Attraction:
    """The announcement of one node; `announcer` and `guard` are None on a node that attracts nobody."""

    def __init__(
        self, announcer: Announcer | None, guard: Guard | None, held: Held, terms: Terms, renew_ms: float
    ) -> None:
        self._announcer = announcer
        self._guard = guard
        self._held = held
        self._terms = terms
        self._renew_s = renew_ms / 1000.0
        self._lease = Lease()
        self._proxy = Proxy()
        self._renewed_ms: float | None = None
        self._fault = ""
        if announcer is not None and held.held:
            self._obey(Signal.WITHDRAW if held.withdrawn else Signal.DRAIN)

    def __str__(self) -> str:
        """ "announced", "never", "withdrawn: <why>" and the like, or "faulty: <what>"."""
        return f"faulty: {self._fault}" if self._fault else str(self._lease)

    @property
    def drained(self) -> bool:
        """True while the operator wants neither clients nor other nodes to come."""
        return self._held.drained

    @property
    def announced(self) -> bool:
        """True while clients may be coming because of us."""
        return self._lease.state in (State.ANNOUNCED, State.LAPSING, State.LAST)

    async def keep(self) -> None:
        """Look and renew until cancelled."""
        while self._announcer is not None:
            self._look()
            lapsing = self._lease.state is State.LAPSING
            await asyncio.sleep(LAPSING_LOOK_S if lapsing else self._renew_s)

    def proxy_born(self) -> None:
        """A proxy was started."""
        self._proxy = lease.born(self._proxy, clock.now_ms())

    def proxy_beat(self, *, ready: bool, others: Others) -> None:
        """It spoke; `others` is what it knows of other nodes that announce."""
        self._proxy = lease.beat(self._proxy, clock.now_ms(), ready=ready, others=others)
        if self._lease.state is not State.ANNOUNCED:
            self._look()

    def proxy_replaced(self, born_ms: float) -> None:
        """Another one, ready, took over as planned."""
        self._proxy = lease.replaced(self._proxy, born_ms, clock.now_ms())
        self._look()

    def proxy_exited(self) -> None:
        """It is gone."""
        self._proxy = lease.exited(self._proxy, clock.now_ms(), self._terms)
        self._look()

    def order(self, signal: Signal, *, drained: bool = False) -> str:
        """Withdraw, announce or stop: done when this returns. The announcement as it is then.

        What the operator orders is remembered, also by a node that attracts nobody; `drained` is
        why it withdraws.
        """
        if signal is Signal.WITHDRAW:
            self._held.hold(drained=drained)
            signal = Signal.DRAIN if drained else signal
        elif signal is Signal.ANNOUNCE:
            self._held.release()
        if self._announcer is not None:
            self._obey(signal)
            self._look()
        return str(self)

    def _look(self) -> None:
        if self._announcer is not None:
            now_ms, held = clock.now_ms(), self._held
            drained = held.drained and not held.withdrawn
            self._obey(lease.read(self._proxy, self._terms, self._renewed_ms, now_ms, drained=drained))

    def _obey(self, signal: Signal) -> None:
        before = self._lease
        self._lease, do = lease.after(before, signal)
        if do is not Do.NOTHING:
            self._act(do)
        if self._lease != before:
            log.info("announcement", extra={"was": str(before), "now": str(self)})

    def _act(self, do: Do) -> None:
        if self._announcer is None or self._guard is None:
            return
        fault = ""
        try:
            if do is Do.RENEW:
                self._guard.beat(self._announcer.deletions())
                self._announcer.renew()
                self._renewed_ms = clock.now_ms()
            else:
                self._announcer.delete()
                self._renewed_ms = None
                self._guard.off()
        except AnnounceError as error:
            fault = str(error)
        if fault and fault != self._fault:
            log.error("announcement failed", extra={"problem": fault})
        self._fault = fault
