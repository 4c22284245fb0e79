"""Leaving and coming back, as an operator or the parent asks for it.

Drain: other nodes send nothing new, answers say Connection: close for the length of the lame
duck, then idle connections end and the address is withdrawn. What runs is never cut here. Where no
other node announces, the parent announces a drained one again: it refuses what is new, and says why.
The parent owns the announcement and the processes; this only asks it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum

from edge.config import Drain
from edge.errors import EdgeError, Reason
from edge.fleet.snapshot import Fleet
from edge.http.server import FrontDoor
from edge.policy.others import Others
from edge.wire import calls, treecalls

log = logging.getLogger(__name__)

AskParent = Callable[[calls.Head], Awaitable[calls.Head]]


class Phase(StrEnum):
    """Where a node stands: taking part, on its way out, out."""

    SERVING = "serving"
    LAME_DUCK = "lame-duck"
    DRAINED = "drained"


class Operate:
    """The node's phase. One change at a time. `on_announcement` hears what the parent answers."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        front: FrontDoor,
        drain: Drain,
        ask_parent: AskParent,
        changed: Callable[[], None],
        on_announcement: Callable[[str], None],
    ) -> None:
        self.phase = Phase.SERVING
        #: Drained, and nobody else attracts clients: they may be here because there is no other place.
        self.last_one = False
        self._fleet = fleet
        self._front = front
        self._drain = drain
        self._ask_parent = ask_parent
        self._changed = changed
        self._on_announcement = on_announcement
        self._others = Others.UNKNOWN
        self._busy = False

    async def drain(self) -> object:
        """Lame duck, then withdrawn; what still runs goes on. Raises EdgeError when a change is under way."""
        async with _One(self):
            if self.phase is Phase.SERVING:
                self._become(Phase.LAME_DUCK)
                await asyncio.sleep(self._drain.lame_duck_ms / 1000.0)
                # Who did not ask meanwhile has not heard it, and would be reset by the next POP.
                self._front.end_idle()
            answer = await self._ask_parent(treecalls.Withdraw(drained=True))
            self._become(Phase.DRAINED)
        return self._told(answer)

    async def undrain(self) -> object:
        """Take part again."""
        async with _One(self):
            self._become(Phase.SERVING)
            answer = await self._ask_parent(treecalls.Announce())
        return self._told(answer)

    def adopt(self, *, drained: bool) -> None:
        """Be as the parent says: another proxy of this node may have been asked."""
        phase = Phase.DRAINED if drained else Phase.SERVING
        if not self._busy and phase is not self.phase:
            self._become(phase)

    def heard(self, others: Others) -> None:
        """What is known now of other nodes that announce; not to know changes nothing."""
        self._others = others
        drained = self.phase is Phase.DRAINED
        self.last_one = drained and (others is Others.NOBODY or (others is Others.UNKNOWN and self.last_one))

    async def withdraw(self) -> object:
        """Attract nobody any more; other nodes may still send."""
        return self._told(await self._ask_parent(treecalls.Withdraw()))

    async def announce(self) -> object:
        """Attract clients again. Raises EdgeError for a node that leaves or has left."""
        if self.phase is not Phase.SERVING:
            problem = f"this node is {self.phase}: `popctl undrain` brings it back and announces it"
            raise EdgeError(Reason.DRAINING, problem)
        return self._told(await self._ask_parent(treecalls.Announce()))

    def _become(self, phase: Phase) -> None:
        if phase is not self.phase:
            log.info("phase", extra={"phase": str(phase), "before": str(self.phase)})
        self.phase = phase
        self.heard(self._others)
        self._fleet.draining = phase is not Phase.SERVING
        self._front.lame_duck = phase is not Phase.SERVING
        self._fleet.touched()
        self._changed()

    def _told(self, answer: calls.Head) -> object:
        announcement = "unknown"
        if isinstance(answer, treecalls.Announcement):
            announcement = answer.announcement
            self._on_announcement(announcement)
        return {"schema_version": 1, "phase": str(self.phase), "announcement": announcement}


class _One:
    """One change at a time; a second one is refused, not queued."""

    def __init__(self, operate: Operate) -> None:
        self._operate = operate

    async def __aenter__(self) -> None:
        if self._operate._busy:
            raise EdgeError(Reason.BUSY, "another drain or undrain is under way", retry_after_s=1)
        self._operate._busy = True

    async def __aexit__(self, *_: object) -> None:
        self._operate._busy = False
