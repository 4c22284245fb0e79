"""The region's Redis: tells it what this node has, mirrors what the others have, and leases fetches.

Redis is an economy and may be lost at any time: the disk is the truth, reading the mirror
awaits nothing, and of what a caller awaits only `lease`, `renew` and `release` ask Redis,
once, for at most `timeout_ms`. A lease saves bytes and guards nothing: two nodes that fetch
one blob both end with the same verified bytes.

Two loops, each with its own connections: one writes (heartbeat, registration, changes,
sweeping of dead nodes), one reads (the Stream of changes, all keys when events were lost).
So a Redis that is read-only is still followed. Knows no disk and fetches nothing.

A node's user needs no more than this (tests/service/test_index_rights.py):
  resetchannels %R~wc:{REGION}:* ~wc:{REGION}:alive:NODE
  and ~wc:{REGION}: before each of epoch ev loc:* lease:* have:* node:*
  -@all +eval +eval_ro +evalsha +evalsha_ro +scan +type +getrange +set +del +pexpire +pttl +hset +hget
  +hdel +hlen +hgetall +hstrlen +sadd +srem +scard +sscan +spop +xadd +xrange +xread +xinfo|stream
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from edge import clock, config
from edge.weights import replies, scripts
from edge.weights.carrier import Carrier
from edge.weights.follower import Follower
from edge.weights.mirror import NODE, Holder, Mirror
from edge.weights.teller import Lease, Teller, Who
from edge.wire.calls import IndexState

__all__ = ["Away", "Holder", "Index", "Lease", "Taken"]

MAX_ASKED: Final = 1_024
CONNECTIONS: Final = 4
BACKOFF_MS: Final = (50, 1_000)

log = logging.getLogger(__name__)


class Taken(NamedTuple):
    """Another one is fetching, for `left_ms` more unless it renews; `beside` asked for it as well."""

    node: str
    left_ms: int
    beside: tuple[str, ...] = ()


class Away(NamedTuple):
    """Redis can't be asked now: settle by `mirror.leader(digest, index.nodes())`."""

    why: str


class Index:
    """One node's part in its region's index. Every method belongs to the event loop's thread.

    `stored` gives all blobs on this node's disk with their sizes in bytes, now. `on_change` is called
    after the mirror or `state` changed. `blobs` is host:port of this node's blob server.
    """

    def __init__(
        self,
        settings: config.Index,
        *,
        region: str,
        node: str,
        boot: str,
        blobs: str,
        password: str,
        stored: Callable[[], Mapping[str, int]],
        on_change: Callable[[], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._who = Who(node, boot, blobs, scripts.prefix(region))
        self._lease_ms = min(settings.lease_ms, scripts.MAX_LEASE_MS)
        self._alive_ms = min(settings.alive_ms, scripts.MAX_ALIVE_MS)
        self._on_change = on_change
        self._draw = draw
        epoch = self._who.prefix + "epoch"
        self._commands = Carrier(settings, password, CONNECTIONS, epoch)
        self._events = Carrier(settings, password, 1, epoch)
        self._mirror = Mirror(node)
        self._teller = Teller(self._commands, self._who, self._alive_ms, stored)
        self._follower = Follower(self._events, self._who, self._alive_ms, self._mirror, self)
        self._well = {"write": False, "read": False}
        self._last_error = "not asked yet"
        self._writing_since_ms: float | None = None
        self._lag_ms = 0.0
        self._leases = 0
        self._asked: dict[str, bool] = {}
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}

    # --- for callers: nothing here waits

    def holders(self, digest: str) -> tuple[Holder, ...]:
        """Other live nodes of the region that have it; as last known while Redis is away."""
        return self._mirror.holders(digest)

    def nodes(self) -> tuple[str, ...]:
        """Live nodes of the region by name, this one included; as last known while Redis is away."""
        return tuple(sorted({self._who.node, *self._mirror.nodes()}))

    def address(self, node: str) -> str | None:
        """Where a live node of the region gives blobs (host:port); None if there is none of that name."""
        return self._mirror.address(node)

    def add(self, digest: str, size_bytes: int) -> None:
        """A blob is on this node's disk, verified."""
        self._teller.change(digest, size_bytes)

    def remove(self, digest: str) -> None:
        """A blob has left this node's disk."""
        self._teller.change(digest, None)

    def state(self) -> IndexState:
        """For operators and metrics. `lag_ms`: how long this node's last change took to come back to it."""
        return IndexState(
            state="up" if all(self._well.values()) else "stale",
            epoch=self._mirror.epoch,
            last_error=self._last_error,
            blobs=self._mirror.blobs,
            nodes=self._mirror.nodes(),
            lag_ms=round(self._lag_ms, 3),
            refused=self._mirror.refused,
            reregistered=max(0, self._teller.registrations - 1),
        )

    # --- for callers: one attempt within `timeout_ms`

    async def lease(self, digest: str) -> Lease | Taken | Away:
        """May this node fetch it for the region? Never raises; `Away` at once while Redis is known to be."""
        if not self._well["write"]:
            return Away(self._last_error)
        self._leases += 1
        who = self._who
        mine = Lease(digest, f"{who.node}|{who.boot}|{self._leases}")
        self._listen(digest)
        answered = False
        try:
            reply = await self._commands.run(
                scripts.LEASE,
                who.keys(f"lease:{digest}", f"lease:{digest}:by"),
                mine.owner,
                self._lease_ms,
                who.node,
                who.boot,
            )
            held = msgspec.msgpack.decode(reply, type=replies.Held)
            answered = True
        except Exception as error:  # noqa: BLE001 -- whatever Redis does, the caller goes on without it
            self._doubt(error)
            return Away(self._last_error)
        finally:
            if not answered:
                # It may have been granted all the same, and nobody here would know.
                self._teller.release_later(mine)
        beside = tuple(node for node in held.beside if NODE.fullmatch(node))[: scripts.MAX_BESIDE]
        if held.owner == "":
            self._asked.pop(digest, None)
            return mine._replace(beside=beside)
        node = held.owner.partition("|")[0]
        left_ms = min(max(1, held.left_ms), scripts.MAX_LEASE_MS)
        return Taken(node if NODE.fullmatch(node) else "", left_ms, beside)

    async def renew(self, lease: Lease) -> bool:
        """Another `lease_ms`. False: it is lost, or can't be confirmed; a fetch under way may go on."""
        if not self._well["write"]:
            return False
        try:
            keys = self._who.keys(f"lease:{lease.digest}")
            return bool(await self._commands.run(scripts.RENEW, keys, lease.owner, self._lease_ms) == 1)
        except Exception as error:  # noqa: BLE001 -- as in `lease`
            self._doubt(error)
            return False

    async def release(self, lease: Lease) -> None:
        """Give it back, now or, if Redis is away, when it returns. Another owner's is left alone."""
        released = False
        try:
            if self._well["write"]:
                await self._teller.release(lease)
                released = True
        except Exception as error:  # noqa: BLE001 -- as in `lease`
            self._doubt(error)
        finally:
            if not released:
                self._teller.release_later(lease)

    async def wait_changed(self, digest: str, within_s: float) -> bool:
        """Until its holders change, its lease is given back or Redis goes away; False: not within `within_s`.

        What happened since `lease` said Taken counts, so nothing is missed between the two calls.
        """
        if self._asked.pop(digest, False):
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(digest, set()).add(waiter)
        try:
            async with asyncio.timeout(within_s):
                await waiter
        except TimeoutError:
            return False
        else:
            return True
        finally:
            self._waiters[digest].discard(waiter)
            if not self._waiters[digest]:
                del self._waiters[digest]

    def _listen(self, digest: str) -> None:
        while len(self._asked) >= MAX_ASKED:
            del self._asked[next(iter(self._asked))]
        self._asked[digest] = False

    # --- the life of the two sides

    async def run(self) -> None:
        """For ever: write and read, and again after whatever Redis does. Ends by cancellation only."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep("write", self._teller.work))
            group.create_task(self._keep("read", self._follower.work))

    async def close(self) -> None:
        """After `run` was cancelled: tell the others that this node stops, and end the connections."""
        if self._well["write"]:
            with contextlib.suppress(Exception):
                await self._teller.leave()
        self._well = dict.fromkeys(self._well, False)
        self._last_error = "closed"
        await self._commands.aclose()
        await self._events.aclose()

    async def _keep(self, side: str, work: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        wait_ms = BACKOFF_MS[0]
        while True:
            try:
                await work(lambda: self._became(side))
            except Exception as error:  # noqa: BLE001 -- a Redis that talks nonsense must not end the store
                if self._well[side]:
                    wait_ms = BACKOFF_MS[0]
                self._became(side, error)
            await asyncio.sleep(wait_ms / 1000 * (0.5 + self._draw()))
            wait_ms = min(wait_ms * 2, BACKOFF_MS[1])

    def _became(self, side: str, error: Exception | None = None) -> None:
        """One side works, or has failed: told and logged when that is new."""
        if error is not None:
            self._last_error = f"{type(error).__name__}: {error}"[:200]
        if self._well[side] == (error is None):
            return
        self._well[side] = error is None
        if side == "write":
            self._writing_since_ms = clock.now_ms() if error is None else None
        if error is not None:
            log.warning("the region's index is stale", extra={"side": side, "error": self._last_error})
            self.changed(None)
        elif all(self._well.values()):
            self._last_error = ""
            log.info("the region's index is up", extra={"blobs": self._mirror.blobs})
            self._on_change()

    def _doubt(self, error: Exception) -> None:
        """A caller's command failed: none is tried until a heartbeat has come through."""
        self._became("write", error)
        self._teller.beat_now()

    # --- what the reading side tells (edge.weights.follower.Hooks)

    def may_judge(self) -> bool:
        """Others are called dead only once this node could itself write for as long as silence may last."""
        since_ms = self._writing_since_ms
        return since_ms is not None and clock.now_ms() - since_ms >= self._alive_ms

    def changed(self, digests: Iterable[str] | None) -> None:
        """Holders or leases of these blobs changed, or maybe all: wakes who waits for one."""
        for digest in [*self._asked, *self._waiters] if digests is None else digests:
            if digest in self._asked:
                self._asked[digest] = True
            for waiter in self._waiters.get(digest, ()):
                if not waiter.done():
                    waiter.set_result(None)
        self._on_change()

    def lost_epoch(self, epoch: str) -> None:
        """Redis lost its epoch, or has another: register there at once."""
        if not self._teller.is_in(epoch):
            self._teller.beat_now()

    def own(self, epoch: str, listed: set[str]) -> None:
        """What the index lists for this node."""
        self._teller.compare(epoch, listed)

    def died(self, node: str) -> None:
        """A node is to be swept."""
        self._teller.sweep(node)

    def seen(self, digest: str) -> None:
        """A change of this node's own came back: that is the mirror's lag."""
        if self._teller.sent is not None and self._teller.sent[0] == digest:
            self._lag_ms = clock.now_ms() - self._teller.sent[1]
