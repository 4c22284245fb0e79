"""Who holds what: Ensure, Release, and the budget of host memory.

Lives in the event loop. Whoever asks is a `Holder`; a hold pins a manifest and its blobs on
the disk and counts against `host_bytes`. How blobs come here is `edge.weights.hydrate`'s
business; this file knows no links, files or origins.
"""

import asyncio
from collections import Counter
from typing import Final

from edge import clock
from edge.errors import EdgeError, Reason, Source
from edge.weights.budget import Shelf, host_missing_bytes
from edge.weights.hydrate import Hydrator
from edge.weights.layout import blob_key, manifest_key
from edge.weights.manifest import Manifest
from edge.wire import calls

MAX_DEADLINE_MS: Final = 600_000.0
#: What one head can carry (64 KiB).
MAX_LISTED_MODELS: Final = 150


class Holder:
    """One who holds: the far end of a link."""

    def __init__(self) -> None:
        self.holds: Counter[str] = Counter()


class _Held:
    """A manifest that somebody holds. `ready` once all of its blobs are here and verified."""

    def __init__(self, raw: bytes, manifest: Manifest) -> None:
        self.raw = raw
        self.files = {file.blake3: file for file in manifest.files}
        self.sizes = {digest: file.size_bytes for digest, file in self.files.items()}
        self.holds = 0
        self.ready = False


class Keeper:
    """All holds of this node."""

    def __init__(self, hydrator: Hydrator, host_bytes: int) -> None:
        self._hydrator = hydrator
        self._ledger = hydrator.disk.ledger
        self._host_bytes = host_bytes
        self._held: dict[str, _Held] = {}

    async def manifest(self, digest: str, deadline_ms: float) -> bytes:
        """A manifest's bytes, digest-checked. Raises EdgeError."""
        try:
            async with asyncio.timeout(_seconds(deadline_ms)):
                raw, _ = await self._hydrator.manifest(digest)
        except TimeoutError as error:
            raise EdgeError(
                Reason.DEADLINE, f"manifest {digest} was not here within {deadline_ms:.0f} ms", retryable=True
            ) from error
        return raw

    async def ensure(self, digest: str, deadline_ms: float, holder: Holder) -> tuple[calls.Ensured, bytes]:
        """All blobs here, verified, and held for `holder`; with the manifest's bytes.

        `residency` host: somebody held them before; disk: they were here; origin: they, or some
        of them, had to be fetched. `moved_bytes` is what was fetched on behalf of this caller:
        who joins a fetch under way moved nothing. Raises EdgeError; then nothing is held.
        """
        began_ms = clock.now_ms()
        try:
            async with asyncio.timeout(_seconds(deadline_ms)):
                held, residency, moved_bytes = await self._ensure(digest, holder)
        except TimeoutError as error:
            raise EdgeError(
                Reason.DEADLINE,
                f"{digest} was not here within {deadline_ms:.0f} ms; the fetch goes on",
                retryable=True,
            ) from error
        return calls.Ensured(residency, moved_bytes, clock.now_ms() - began_ms), held.raw

    async def _ensure(self, digest: str, holder: Holder) -> tuple[_Held, str, int]:
        held = self._held.get(digest)
        if held is None:
            raw, manifest = await self._hydrator.manifest(digest)
            held = self._held.get(digest) or _Held(raw, manifest)
        self._hold(digest, held, holder)
        if held.ready:
            return held, "host", 0
        try:
            moved_bytes, fetched = await self._hydrator.bring(held.files)
        except BaseException:
            self._unhold(digest, holder)
            raise
        held.ready = True
        return held, "origin" if fetched else "disk", moved_bytes

    def _hold(self, digest: str, held: _Held, holder: Holder) -> None:
        if held.holds == 0:
            self._check_host(digest, held)
            self._held[digest] = held
            for key in self._keys(digest, held):
                self._ledger.pin(key)
        held.holds += 1
        holder.holds[digest] += 1

    def _unhold(self, digest: str, holder: Holder) -> bool:
        if holder.holds[digest] == 0:
            del holder.holds[digest]
            return False
        holder.holds[digest] -= 1
        held = self._held[digest]
        held.holds -= 1
        if held.holds == 0:
            del self._held[digest]
            now_ms = clock.now_ms()
            for key in self._keys(digest, held):
                self._ledger.unpin(key, now_ms)
        return True

    @staticmethod
    def _keys(digest: str, held: _Held) -> list[str]:
        return [manifest_key(digest), *(blob_key(blob) for blob in held.files)]

    def _host_sizes(self) -> dict[str, int]:
        return {blob: size for held in self._held.values() for blob, size in held.sizes.items()}

    def _check_host(self, digest: str, held: _Held) -> None:
        now_held = self._host_sizes()
        missing = host_missing_bytes(now_held, held.sizes, self._host_bytes)
        if missing:
            wanted = sum(held.sizes.values())
            raise EdgeError(
                Reason.NO_MEMORY,
                f"model {digest} needs {wanted} bytes of host memory: weights.host_bytes is "
                f"{self._host_bytes}, {sum(now_held.values())} are held, {missing} are missing",
                retryable=wanted <= self._host_bytes,
                retry_after_s=10 if wanted <= self._host_bytes else None,
            )

    def release(self, digest: str, holder: Holder) -> None:
        """Give back one hold. Raises EdgeError(PROTOCOL) if there is none."""
        if not self._unhold(digest, holder):
            raise EdgeError(
                Reason.PROTOCOL, f"no hold on {digest[:80]!r} to release", source=Source.DOWNSTREAM
            )

    def drop(self, holder: Holder) -> None:
        """The holder is gone, and all of its holds with it."""
        for digest, count in list(holder.holds.items()):
            for _ in range(count):
                self._unhold(digest, holder)

    # --- state

    def state(self) -> calls.WeightsState:
        """What `Status` is answered with; the models that are held, then those held last."""
        ledger = self._ledger
        listed = sorted(
            self._hydrator.manifests.items(),
            key=lambda item: (item[0] in self._held, ledger.last_held_ms(manifest_key(item[0]))),
            reverse=True,
        )
        return calls.WeightsState(
            disk_bytes=ledger.capacity_bytes,
            disk_used_bytes=ledger.used_bytes,
            host_bytes=self._host_bytes,
            host_used_bytes=sum(self._host_sizes().values()),
            quarantined=len(ledger.keys(Shelf.QUARANTINE)),
            fetched_bytes=self._hydrator.fetched_bytes,
            fetches=self._hydrator.fetches,
            models=[self._stored(digest, known) for digest, known in listed[:MAX_LISTED_MODELS]],
        )

    def _stored(self, digest: str, known: Manifest) -> calls.StoredModel:
        sizes = {file.blake3: file.size_bytes for file in known.files}
        here = sum(size for blob, size in sizes.items() if blob_key(blob) in self._ledger)
        held = self._held.get(digest)
        return calls.StoredModel(
            digest, known.name, known.version, sum(sizes.values()), here, held.holds if held else 0
        )


def _seconds(deadline_ms: float) -> float:
    """A deadline from the wire, made harmless: NaN and less than nothing are now."""
    return min(deadline_ms, MAX_DEADLINE_MS) / 1000.0 if deadline_ms > 0 else 0.0
