"""The reading side of the region's index: keeps the mirror like it.

Follows the Stream of changes; looks at the epoch and at the nodes in between; reads all keys
when the Stream can't tell what was missed (trimmed; another one, or one that does not have
the event seen last, as in an old dump or in a replica that took over; another epoch; an event
that could not be read), and once a minute in any case. Calls nobody dead while this node was
itself cut off: after a stop of Redis every node's sign of life has run out.

Knows the scripts, the mirror and the clock; writes nothing and knows no client.
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec

from edge import clock
from edge.weights import replies, scripts
from edge.weights.mirror import EPOCH, Mirror, Reading, has_gap, read_event
from edge.weights.teller import Scripts, Who

LOOK_MS: Final = 150
LOOK_AT_NODES_MS: Final = 1_000
RELOAD_MS: Final = 60_000
#: SCAN gives at least one key in so many pages of it; beyond, somebody fills Redis with other things.
MAX_PAGES: Final = 20_000


class Reads(Scripts, Protocol):
    """Who asks Redis: scripts, and events."""

    async def news(self, stream: str, after: str, *, block_ms: int) -> bool:
        """Wait for an event after that id; False when there is none within `block_ms`."""


class Hooks(Protocol):
    """What the reading side needs to know and to tell."""

    def may_judge(self) -> bool:
        """Has this node itself been able to write for long enough to call others dead?"""

    def changed(self, digests: Iterable[str] | None) -> None:
        """These blobs' holders or leases changed; None: any may have."""

    def lost_epoch(self, epoch: str) -> None:
        """The epoch in Redis is not the one that was followed, or there is none ("")."""

    def own(self, epoch: str, listed: set[str]) -> None:
        """What the index lists for this node."""

    def died(self, node: str) -> None:
        """A node has been dead for long enough to be swept."""

    def seen(self, digest: str) -> None:
        """A change of this node's own came back."""


class Follower:
    """Where in the Stream this node is, and what is to be looked at next."""

    def __init__(self, client: Reads, who: Who, alive_ms: int, mirror: Mirror, hooks: Hooks) -> None:
        self._client = client
        self._who = who
        self._alive_ms = alive_ms
        self._mirror = mirror
        self._hooks = hooks
        self._at_id = "0-0"
        #: Was an event of that id in the Stream? Then it must be there until newer ones displace it.
        self._anchored = False
        self._reload_at_ms = 0.0
        self._look_at_nodes_ms = 0.0
        self._curious: set[str] = set()
        self._dead_since_ms: dict[str, float] = {}
        self._settle_at_ms: float | None = None
        self._reads_failed = 0

    async def work(self, on_well: Callable[[], None]) -> None:
        """For ever. Raises whatever Redis does; the mirror stays as it was."""
        await self._look()
        next_look_ms = 0.0
        while True:
            while clock.now_ms() >= self._reload_at_ms:
                await self._reload()
            if self._mirror.epoch:
                on_well()
            self._reads_failed += 1
            if self._reads_failed > 1:
                # Twice at the same place: whatever lies there can't be read, go round it.
                self._reload_at_ms = self._reads_failed = 0
                continue
            pressing = await self._read()
            self._reads_failed = 0
            if pressing or self._curious or clock.now_ms() >= next_look_ms:
                next_look_ms = clock.now_ms() + LOOK_MS
                await self._look()

    async def _read(self) -> bool:
        """Waits for events and applies them. True when something must be looked at before the next."""
        stream = self._who.prefix + "ev"
        if not await self._client.news(stream, self._at_id, block_ms=LOOK_MS):
            return True
        reply = await self._client.run(scripts.NEWS, [stream], self._at_id)
        news = msgspec.msgpack.decode(reply, type=replies.News)
        if self._anchored and not news.kept:
            # Another past than the one that was followed: `_look` will see it too.
            return True
        if news.last:
            self._at_id, self._anchored = news.last, True
        foreign, changed = False, set()
        for fields in news.events:
            event = read_event(*fields)
            if event is None:
                self._mirror.refused += 1
            elif event.epoch != self._mirror.epoch:
                # Another epoch has begun, or somebody says so: `_look` will know.
                foreign = True
            elif event.state == "node":
                self._curious.add(event.node)
            else:
                if self._mirror.apply(event) or event.state == "free":
                    changed.add(event.digest)
                if event.node == self._who.node:
                    self._hooks.seen(event.digest)
                elif not self._mirror.knows(event.node):
                    self._curious.add(event.node)
        if changed:
            self._hooks.changed(changed)
        return foreign or len(news.events) >= scripts.EVENTS

    async def _look(self) -> replies.Look:
        """The epoch, the Stream's ends and, now and then, the nodes."""
        now_ms = clock.now_ms()
        names = sorted(self._curious)[: scripts.MAX_NODES]
        if now_ms >= self._look_at_nodes_ms:
            self._look_at_nodes_ms = now_ms + LOOK_AT_NODES_MS
            names = sorted({*names, *self._mirror.known()})[: scripts.MAX_NODES]
        self._curious.clear()
        keys = [key for node in names for key in (f"alive:{node}", f"node:{node}")]
        reply = await self._client.run(scripts.LOOK, self._who.keys("epoch", "ev", *keys), self._at_id)
        look = msgspec.msgpack.decode(reply, type=replies.Look)
        if look.epoch != self._mirror.epoch:
            self._hooks.lost_epoch(look.epoch)
            if EPOCH.fullmatch(look.epoch):
                self._reload_at_ms = 0.0
        elif (self._anchored and not look.kept) or has_gap(
            self._at_id, look.oldest, look.last, trimmed=look.trimmed
        ):
            self._reload_at_ms = 0.0
        self._judge(dict(zip(names, look.nodes, strict=True)))
        return look

    def _judge(self, looks: dict[str, replies.NodeLook]) -> None:
        now_ms, judge = clock.now_ms(), self._hooks.may_judge()
        changed, dead = self._mirror.look(looks, judge=judge)
        for node in looks.keys() - dead if judge else ():
            self._dead_since_ms.pop(node, None)
        for node in dead:
            since_ms = self._dead_since_ms.setdefault(node, now_ms)
            if now_ms - since_ms >= self._alive_ms and node != self._who.node:
                self._hooks.died(node)
        if judge and self._settle_at_ms is not None and now_ms >= self._settle_at_ms:
            self._settle_at_ms = None
            changed = self._mirror.settle() or changed
        if changed:
            self._hooks.changed(None)

    async def _reload(self) -> None:
        """All keys, off to the side, then in one step. Not done when another epoch begins meanwhile."""
        look = await self._look()
        if EPOCH.fullmatch(look.epoch) is None:
            # Nobody has begun an epoch. This node's writing side will, and its event ends the wait.
            self._reload_at_ms = clock.now_ms() + LOOK_MS
            return
        reading, cursor = Reading(), "0"
        for _ in range(MAX_PAGES):
            reply = await self._client.run(scripts.PAGE, self._who.keys("epoch"), cursor, self._who.prefix)
            page = msgspec.msgpack.decode(reply, type=replies.Page)
            reading.take(page)
            cursor = page.cursor
            if cursor == "0":
                break
        else:
            raise ValueError(f"more than {MAX_PAGES} pages of keys in Redis")
        if (await self._look()).epoch != look.epoch:
            return
        now_ms = clock.now_ms()
        if look.epoch != self._mirror.epoch:
            self._settle_at_ms = now_ms + self._alive_ms
        self._at_id, self._anchored = look.last, look.ends
        self._reload_at_ms = now_ms + RELOAD_MS
        judge = self._hooks.may_judge()
        self._mirror.load(reading, look.epoch, judge=judge)
        if judge:
            for node in reading.strays():
                self._hooks.died(node)
        self._hooks.own(look.epoch, self._mirror.held_by(self._who.node))
        self._hooks.changed(None)
