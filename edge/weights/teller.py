"""The writing side of the region's index: what this node has, and that it lives.

Registers the whole disk when Redis has another epoch than the one registered in, or counts
other blobs than it was told of; after that only changes. A change that could not be told
stays pending; when too many are, the whole disk is registered instead. Also does what
somebody has to do for the region: sweeps nodes that are dead, gives back leases nobody holds.

Knows the scripts and their keys; not who carries them to Redis, and nothing of reading it.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from edge import clock
from edge.weights import replies, scripts
from edge.weights.mirror import EPOCH, MAX_BLOBS

HEARTBEAT_MS: Final = 2_000
BATCH: Final = 250
MAX_PENDING: Final = 4_096
MAX_UNRELEASED: Final = 1_024
MAX_SWEEPS: Final = 64

log = logging.getLogger(__name__)


class Lease(NamedTuple):
    """The right to fetch `digest` for the region until released, or `lease_ms` after the last renewal.

    `beside` are other nodes that asked for it lately, and may have some of it.
    """

    digest: str
    owner: str
    beside: tuple[str, ...] = ()


class Who(NamedTuple):
    """This node as the index knows it; `prefix` is before every key of its region."""

    node: str
    boot: str
    blobs: str
    prefix: str

    def keys(self, *names: str) -> list[str]:
        """Whole keys of the region."""
        return [self.prefix + name for name in names]


class Scripts(Protocol):
    """Who carries a script to Redis: one attempt, bounded in time. Raises anything when it fails."""

    async def run(self, script: str, keys: list[str], *args: str | int) -> Any:
        """The script's reply."""


class Teller:
    """What Redis has been told, and what it is still to be told."""

    def __init__(
        self, client: Scripts, who: Who, alive_ms: int, stored: Callable[[], Mapping[str, int]]
    ) -> None:
        self._client = client
        self._who = who
        self._alive_ms = alive_ms
        self._stored = stored
        self._pending: dict[str, int | None] = {}
        self._told: dict[str, int] = {}
        self._epoch = ""
        #: A full registration under way: its epoch, what it will have told, and what of that is left.
        self._begun = ""
        self._registering: dict[str, int] = {}
        self._left: dict[str, int | None] = {}
        #: All that this process has told and not taken back, in registrations that were given up too.
        self._said: set[str] = set()
        self._poke = asyncio.Event()
        self._beat = False
        self._dead: set[str] = set()
        self._unreleased: deque[Lease] = deque(maxlen=MAX_UNRELEASED)
        self.registrations = 0
        #: The last change that was told, and when: the reading side sees it come back.
        self.sent: tuple[str, float] | None = None

    # --- from outside

    def change(self, digest: str, size_bytes: int | None) -> None:
        """A blob came to the disk, or left it (None)."""
        if len(self._pending) >= MAX_PENDING and digest not in self._pending:
            # Too many to remember: the whole disk is registered instead.
            self._pending.clear()
            self._epoch = self._begun = ""
            self.beat_now()
        self._pending[digest] = size_bytes
        self._poke.set()

    def beat_now(self) -> None:
        """Something is doubtful: the next heartbeat is due at once."""
        self._beat = True
        self._poke.set()

    def is_in(self, epoch: str) -> bool:
        """Is this the epoch that the disk is registered in?"""
        return epoch == self._epoch != ""

    def sweep(self, node: str) -> None:
        """That node has been dead for long enough."""
        if len(self._dead) < MAX_SWEEPS:
            self._dead.add(node)
            self._poke.set()

    def release_later(self, lease: Lease) -> None:
        """Give it back as soon as Redis answers. Of too many the oldest run out by themselves."""
        self._unreleased.append(lease)
        self._poke.set()

    def compare(self, epoch: str, listed: set[str]) -> None:
        """What the index lists for this node in that epoch: what is missing or too much is told again.

        Before this node has registered there, what is listed is something to be taken back then:
        an old dump may list what this very process had long since taken back.
        """
        if epoch != self._epoch:
            self._said |= listed
            if epoch == self._begun:
                self._left.update(dict.fromkeys(listed - self._registering.keys()))
            return
        # What is pending will be told anyhow.
        for digest in self._told.keys() - listed - self._pending.keys():
            self.change(digest, self._told[digest])
        for digest in listed - self._told.keys() - self._pending.keys():
            self.change(digest, None)

    # --- the loop

    async def work(self, on_well: Callable[[], None]) -> None:
        """For ever. Raises whatever Redis does; what was not told stays pending for the next call."""
        while True:
            self._beat = False
            heard = await self._heartbeat()
            as_told = (heard.epoch, heard.have) == (self._epoch, len(self._told))
            if not (as_told or await self._register(heard)):
                continue
            on_well()
            due_ms = clock.now_ms() + HEARTBEAT_MS
            while not self._beat and clock.now_ms() < due_ms and await self._tell():
                await self._sweep_some()
                while self._unreleased:
                    await self.release(self._unreleased[0])
                    self._unreleased.popleft()
                if not self._pending:
                    await self._wait_until_poked(due_ms - clock.now_ms())

    async def _wait_until_poked(self, within_ms: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, within_ms / 1000)):
                await self._poke.wait()
        self._poke.clear()

    async def _heartbeat(self) -> replies.Heard:
        who = self._who
        reply = await self._client.run(
            scripts.HEARTBEAT,
            who.keys("epoch", f"node:{who.node}", f"alive:{who.node}", f"have:{who.node}", "ev"),
            who.node,
            who.boot,
            who.blobs,
            sum(self._told.values()),
            self._alive_ms,
            secrets.token_hex(16),
        )
        heard = msgspec.msgpack.decode(reply, type=replies.Heard)
        if EPOCH.fullmatch(heard.epoch) is None:
            raise ValueError(f"Redis answered with an epoch of {heard.epoch[:64]!r}")
        return heard

    async def _register(self, heard: replies.Heard) -> bool:
        """The whole disk. False when it must begin anew: yet another epoch, or too many changes meanwhile.

        Goes on where it was when Redis failed in the middle of it: on a busy machine one of its many
        batches took longer than the timeout again and again, and beginning anew never came to an end.
        """
        if self._begun != heard.epoch:
            self._registering = dict(islice(self._stored().items(), MAX_BLOBS))
            self._left = {**self._registering, **dict.fromkeys(self._said - self._registering.keys())}
            self._pending.clear()
            self._begun, self._epoch = heard.epoch, ""
        while self._left:
            batch = dict(islice(self._left.items(), BATCH))
            if not await self._commit(heard.epoch, batch):
                self._begun = ""
            if self._begun != heard.epoch:
                return False
            for digest in batch:
                del self._left[digest]
        if heard.have > 0 and not await self._prune(heard.epoch):
            self._begun = ""
        if self._begun != heard.epoch:
            return False
        self._told, self._registering = self._registering, {}
        self._begun, self._epoch = "", heard.epoch
        self.registrations += 1
        log.info("registered in the region's index", extra={"blobs": len(self._told), "epoch": self._epoch})
        return True

    async def _prune(self, epoch: str) -> bool:
        """What Redis had of this node before and is not on its disk now."""
        who, cursor = self._who, "0"
        keys = who.keys("epoch", f"have:{who.node}", "ev")
        while True:
            reply = await self._client.run(scripts.PRUNE, keys, who.node, who.boot, epoch, cursor, who.prefix)
            cursor = bytes(reply).decode("ascii")
            if cursor in ("", "0"):
                return cursor == "0"

    async def _tell(self) -> bool:
        """Pending changes; False when another epoch has begun."""
        while self._pending and not self._beat:
            batch = dict(islice(self._pending.items(), BATCH))
            last = next(reversed(batch))
            self.sent = (last, clock.now_ms())
            if not await self._commit(self._epoch, batch):
                return False
            for digest, size_bytes in batch.items():
                if self._pending.get(digest, -1) == size_bytes:
                    del self._pending[digest]
                if size_bytes is None:
                    self._told.pop(digest, None)
                else:
                    self._told[digest] = size_bytes
        return True

    async def _commit(self, epoch: str, batch: Mapping[str, int | None]) -> bool:
        who = self._who
        # Before it is sent: a time-out does not say whether it was done.
        self._said.update(digest for digest, size in batch.items() if size is not None)
        keys = who.keys("epoch", f"have:{who.node}", "ev")
        signed = [("-" if size is None else "+") + digest for digest, size in batch.items()]
        reply = await self._client.run(scripts.COMMIT, keys, who.node, who.boot, epoch, who.prefix, *signed)
        if reply == 1:
            self._said.difference_update(digest for digest, size in batch.items() if size is None)
        return bool(reply == 1)

    async def _sweep_some(self) -> None:
        """One step for each dead node, so that changes of this node need not wait."""
        for node in list(self._dead):
            keys = self._who.keys(f"have:{node}", f"node:{node}", "ev", "epoch")
            left = await self._client.run(scripts.SWEEP, keys, node, self._who.prefix)
            if left <= 0:
                self._dead.discard(node)
            else:
                self._poke.set()

    async def release(self, lease: Lease) -> None:
        """Give a lease back, if it still has that owner. Raises whatever Redis does."""
        keys = self._who.keys(f"lease:{lease.digest}", "ev", "epoch")
        await self._client.run(scripts.RELEASE, keys, lease.owner, self._who.node, lease.digest)

    async def leave(self) -> None:
        """This node stops: the others need not wait for its silence. Raises whatever Redis does."""
        keys = self._who.keys(f"alive:{self._who.node}", "ev", "epoch")
        await self._client.run(scripts.LEAVE, keys, self._who.node, self._who.boot)
