"""Who holds what: Ensure, Release, Drop, and the budget of host memory.

Lives in the event loop. Whoever asks is a `Holder`; a hold pins a manifest and its blobs on
the disk and counts against `host_bytes`. How blobs come here is `edge.weights.hydrate`'s
business; this file knows no links, files or sources.
"""

import asyncio
from collections import Counter
from typing import Final

import msgspec

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.policy.facts import Tier
from edge.weights.budget import Shelf, host_missing_bytes, shelf_of
from edge.weights.hydrate import Hydrator
from edge.weights.layout import blob_key, ingest_key, manifest_key
from edge.weights.manifest import DIGEST, Manifest
from edge.weights.manifests import Far
from edge.weights.residency import Residency
from edge.weights.sources import Kind, Moved
from edge.wire import calls

MAX_DEADLINE_MS: Final = 600_000.0
#: For how long a drop tries again while somebody has a blob open.
DROP_PATIENCE_S: Final = 0.5
DROP_RETRY_S: Final = 0.02
_IN_USE: Final = "is in use on this node; unload it first"


class Holder:
    """One who holds: the far end of a link."""

    def __init__(self) -> None:
        self.holds: Counter[str] = Counter()


class _Held:
    """A manifest that somebody holds. `ready` once all of its blobs are here and verified."""

    def __init__(self, raw: bytes, manifest: Manifest) -> None:
        self.raw = raw
        #: For people.
        self.name = f"{manifest.name} version {manifest.version}"
        self.files = {file.blake3: file for file in manifest.files}
        self.sizes = {digest: file.size_bytes for digest, file in self.files.items()}
        self.holds = 0
        self.ready = False


class Keeper:
    """All holds of this node."""

    def __init__(self, hydrator: Hydrator, host_bytes: int) -> None:
        self._hydrator = hydrator
        self._ledger = hydrator.disk.ledger
        self._appraiser = hydrator.disk.appraiser
        self.host_bytes = host_bytes
        #: Manifests that are held, of which a blob was found bad since somebody has them.
        self.spoiled: set[str] = set()
        hydrator.on_spoiled = self._spoil
        self._held: dict[str, _Held] = {}
        self.residency = Residency(hydrator.disk, self.host_sizes)
        self._inventory = b""
        self._number = 0

    async def manifest(self, digest: str, deadline_ms: float) -> bytes:
        """A manifest's bytes, digest-checked. Raises EdgeError."""
        try:
            async with asyncio.timeout(_seconds(deadline_ms)):
                raw, _ = await self._hydrator.manifests.get(digest)
        except TimeoutError as error:
            raise EdgeError(
                Reason.DEADLINE, f"manifest {digest} was not here within {deadline_ms:.0f} ms", retryable=True
            ) from error
        return raw

    async def ensure(
        self, digest: str, deadline_ms: float, holder: Holder | None, far: Far = ()
    ) -> tuple[calls.Ensured, bytes]:
        """All blobs here, verified, and held for `holder` if there is one; with the manifest's bytes.

        `residency` host: somebody held them before; disk: they were here; else the farthest that any
        of them had to come from. `moved_bytes` is what was fetched on behalf of this caller: who
        joins a fetch under way moved nothing. Raises EdgeError; then nothing is held.
        """
        began_ms = clock.now_ms()
        try:
            async with asyncio.timeout(_seconds(deadline_ms)):
                held, residency, moved = await self._ensure(digest, holder, far)
        except TimeoutError as error:
            raise EdgeError(
                Reason.DEADLINE,
                f"{digest} was not here within {deadline_ms:.0f} ms; the fetch goes on",
                retryable=True,
            ) from error
        took_ms = clock.now_ms() - began_ms
        return calls.Ensured(residency, moved.total_bytes, took_ms, moved.outside_bytes), held.raw

    async def _ensure(self, digest: str, holder: Holder | None, far: Far) -> tuple[_Held, str, Moved]:
        held = self._held.get(digest)
        if held is None:
            raw, manifest = await self._hydrator.manifests.get(digest, far)
            held = self._held.get(digest) or _Held(raw, manifest)
        if holder is None:
            return held, *await self._bring_only(digest, held, far)
        self._hold(digest, held, holder)
        nearest = Tier.HOST if held.ready else Tier.DISK
        try:
            # Also of one that is held: what was touched since, which may have killed a worker, is verified.
            moved, farthest = await self._bring(held, far)
            await self._grip(held)
        except EdgeError:
            held.ready = False
            self._unhold(digest, holder)
            raise
        except BaseException:
            self._unhold(digest, holder)
            raise
        held.ready = True
        return held, farthest or nearest, moved

    async def _grip(self, held: _Held) -> None:
        """From now on its holders may map its blobs."""
        disk = self._hydrator.disk
        files = {blob_key(blob): disk.store.blob_path(blob) for blob in held.files}
        await disk.run(disk.store.unlinked.grip, files)

    async def _bring(self, held: _Held, far: Far) -> tuple[Moved, Kind | None]:
        """All of its blobs. Raises EdgeError, which says of which model."""
        try:
            return await self._hydrator.bring(held.files, far)
        except EdgeError as error:
            error.message = f"{held.name}: {error.message}"
            raise

    async def _bring_only(self, digest: str, held: _Held, far: Far) -> tuple[str, Moved]:
        """To the disk, and not counted as host memory; kept from eviction until all of it is here."""
        keys = self._keys(digest, held)
        for key in keys:
            self._ledger.pin(key)
        self._used(digest)
        try:
            moved, farthest = await self._bring(held, far)
        finally:
            for key in keys:
                self._ledger.unpin(key, clock.now_ms())
        return farthest or (Tier.HOST if held.ready else Tier.DISK), moved

    def _hold(self, digest: str, held: _Held, holder: Holder) -> None:
        if held.holds == 0:
            self._check_host(digest, held)
            self._held[digest] = held
            for key in self._keys(digest, held):
                self._ledger.pin(key)
        held.holds += 1
        holder.holds[digest] += 1
        self._used(digest)

    def _unhold(self, digest: str, holder: Holder) -> None:
        if holder.holds[digest] == 0:
            del holder.holds[digest]
            return
        holder.holds[digest] -= 1
        held = self._held[digest]
        held.holds -= 1
        if held.holds == 0:
            del self._held[digest]
            self.spoiled.discard(digest)
            others = self.host_sizes()
            for blob in held.files:
                if blob not in others:
                    self._hydrator.disk.store.unlinked.let_go(blob_key(blob))
            now_ms = clock.now_ms()
            for key in self._keys(digest, held):
                self._ledger.unpin(key, now_ms)
            # It was in use up to now: who is held for long is no older than who is held often.
            self._used(digest)

    def _spoil(self, blob: str) -> None:
        for digest, held in self._held.items():
            if held.ready and blob in held.files:
                held.ready = False
                self.spoiled.add(digest)

    def _used(self, digest: str) -> None:
        if self._appraiser is not None:
            self._appraiser.uses.used(digest)

    @staticmethod
    def _keys(digest: str, held: _Held) -> list[str]:
        return [manifest_key(digest), *(blob_key(blob) for blob in held.files)]

    def host_sizes(self) -> dict[str, int]:
        """Blobs that are held, digest -> size."""
        return {blob: size for held in self._held.values() for blob, size in held.sizes.items()}

    def _check_host(self, digest: str, held: _Held) -> None:
        now_held = self.host_sizes()
        missing = host_missing_bytes(now_held, held.sizes, self.host_bytes)
        if missing:
            wanted = sum(held.sizes.values())
            raise EdgeError(
                Reason.NO_MEMORY,
                f"model {digest} needs {wanted} bytes of host memory: weights.host_bytes is "
                f"{self.host_bytes}, {sum(now_held.values())} are held, {missing} are missing",
                retryable=wanted <= self.host_bytes,
                retry_after_s=10 if wanted <= self.host_bytes else None,
            )

    def release(self, digest: str, holder: Holder) -> None:
        """Give back one hold; nothing happens if there is none. Raises EdgeError(PROTOCOL) for no digest."""
        if DIGEST.fullmatch(digest) is None:
            raise EdgeError(Reason.PROTOCOL, f"{digest[:80]!r} is no digest", source=Source.DOWNSTREAM)
        self._unhold(digest, holder)

    def drop(self, holder: Holder) -> None:
        """The holder is gone, and all of its holds with it."""
        for digest, count in list(holder.holds.items()):
            for _ in range(count):
                self._unhold(digest, holder)

    async def evict(self, digest: str) -> calls.Collected:
        """A manifest and those of its blobs that no other one here needs leave this disk; what went.

        Raises EdgeError(BUSY) while somebody uses it. Who keeps it for good is the caller's to check.
        """
        known = self._hydrator.manifests.known
        if digest not in known:
            return calls.Collected()
        if digest in self._held:
            raise self._in_use(digest)
        needed = {file.blake3 for other, one in known.items() if other != digest for file in one.files}
        blobs = {file.blake3 for file in known[digest].files} - needed
        keys = [*map(ingest_key, sorted(blobs)), *map(blob_key, sorted(blobs)), manifest_key(digest)]
        sizes = {key: self._ledger.size_bytes(key) for key in keys if key in self._ledger}
        until_s = clock.now_s() + DROP_PATIENCE_S
        while await self._hydrator.disk.drop(keys):
            # This process itself opens blobs for moments, to warm them: that is not being in use.
            if digest in self._held or clock.now_s() >= until_s:
                raise self._in_use(digest)
            await asyncio.sleep(DROP_RETRY_S)
        gone = Counter(map(shelf_of, sizes))
        return calls.Collected(
            gone[Shelf.MANIFESTS], gone[Shelf.BLOBS], gone[Shelf.INGEST], sum(sizes.values())
        )

    def _in_use(self, digest: str) -> EdgeError:
        known = self._hydrator.manifests.known.get(digest)
        keys = [ingest_key(file.blake3) for file in known.files] if known is not None else []
        comes = any(map(self._ledger.pinned, keys))
        why = "is on its way to this node; evict it once it is here" if comes else _IN_USE
        return EdgeError(
            Reason.BUSY, f"{digest} {why}", source=Source.DOWNSTREAM, retryable=True, retry_after_s=1
        )

    # --- state

    def holds(self, digest: str) -> int:
        """How many hold it now."""
        held = self._held.get(digest)
        return held.holds if held else 0

    def host_used_bytes(self) -> int:
        """What is held, blobs that several models share once."""
        return sum(self.host_sizes().values())

    def inventory(self) -> tuple[int, bytes]:
        """A number that grows with each change, and {manifest digest: [tier, bytes]} as msgpack.

        What an unclean stop left in doubt counts as here: it is verified before it is used.
        """
        whole = {}
        for digest, manifest in self._hydrator.manifests.known.items():
            blobs = {file.blake3: file.size_bytes for file in manifest.files}
            if all(blob_key(blob) in self._ledger for blob in blobs):
                held = self._held.get(digest)
                tier = Tier.HOST if held is not None and held.ready else Tier.DISK
                whole[digest] = tier, sum(blobs.values())
        now = msgspec.msgpack.encode(whole, order="deterministic")
        if now != self._inventory:
            self._inventory = now
            self._number += 1
        return self._number, now


def _seconds(deadline_ms: float) -> float:
    """A deadline from the wire, made harmless: NaN and less than nothing are now."""
    return min(deadline_ms, MAX_DEADLINE_MS) / 1000.0 if deadline_ms > 0 else 0.0
