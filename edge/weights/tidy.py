"""An operator's care for this disk: read a model again, let go of what nobody needs.

The hands of `edge.weights.garbage`. It evicts what a policy of space would not: what nobody needs
goes although there is room. Lives in the event loop.
"""

import asyncio
import logging
from collections.abc import Iterable, Set
from typing import Final

from edge.errors import EdgeError, Reason, Source
from edge.weights.budget import Shelf
from edge.weights.disk import Disk
from edge.weights.floors import Floors
from edge.weights.garbage import garbage
from edge.weights.hydrate import Condition, Hydrator
from edge.weights.layout import blob_key
from edge.weights.manifest import decode_catalogue
from edge.wire import calls

#: The wire's word is not trusted beyond this.
MAX_DEADLINE_MS: Final = 3_600_000.0
_SHELVES: Final = (Shelf.MANIFESTS, Shelf.BLOBS, Shelf.INGEST)

log = logging.getLogger(__name__)


async def verify(
    hydrator: Hydrator, digest: str, deadline_ms: float, blob: int | None = None
) -> calls.Verified:
    """Read every blob of a manifest that lies here, or the one of that number; a bad one is set aside and
    fetched again, as is one that somebody removed.

    Raises EdgeError: UNKNOWN_MODEL when the manifest is not here, DEADLINE.
    """
    manifest = hydrator.manifests.known.get(digest)
    if manifest is None:
        text = f"{digest[:80]} is not on this node's disk: there is nothing to verify; pull it first"
        raise EdgeError(Reason.UNKNOWN_MODEL, text, source=Source.DOWNSTREAM)
    files = {file.blake3: file for file in manifest.files}
    done = calls.Verified(0, 0)
    asked = list(files)
    if blob is not None:
        asked, done.rest = asked[blob : blob + 1], max(0, len(asked) - blob - 1)
    seconds = min(deadline_ms, MAX_DEADLINE_MS) / 1000.0 if deadline_ms > 0.0 else 0.0
    try:
        async with asyncio.timeout(seconds):
            for one in asked:
                condition = Condition.GONE
                if blob_key(one) in hydrator.disk.ledger:
                    condition = await hydrator.recheck(one)
                if condition is not Condition.GONE:
                    done.blobs += 1
                    done.read_bytes += files[one].size_bytes
                if condition is Condition.WRONG:
                    done.bad = (*done.bad, one)
                if blob_key(one) in hydrator.disk.removed:
                    done.removed = (*done.removed, one)
            if damaged := (*done.bad, *done.removed):
                moved, _ = await hydrator.bring({one: files[one] for one in damaged})
                done.moved_bytes = moved.total_bytes
    except TimeoutError as error:
        text = f"{digest} was not read and mended within {seconds:.0f} s; {done.blobs} of its blobs were read"
        if not done.bad and not done.removed:
            raise EdgeError(Reason.DEADLINE, text, retryable=True) from error
        done.problem = text
    except EdgeError as error:
        if not done.bad and not done.removed:
            raise
        done.problem = error.message
    return done


async def collect(
    hydrator: Hydrator, catalogue: bytes, floors: Floors, objects: Set[str], *, dry_run: bool
) -> calls.Collected:
    """Let go of what nobody needs, or only count it. `objects` are blobs that requests need.

    Raises EdgeError(NO_CATALOGUE) while none was ever seen: without one, everything would go.
    """
    if not catalogue:
        text = (
            "no catalogue was ever seen here, so nobody can tell what is needed; bring the origin back first"
        )
        raise EdgeError(Reason.NO_CATALOGUE, text, source=Source.UPSTREAM)
    models = decode_catalogue(catalogue).models.values()
    catalogued = frozenset(digest for model in models for digest in model.versions.values())
    known, ledger = hydrator.manifests.known, hydrator.disk.ledger
    found = garbage(
        [key for shelf in _SHELVES for key in ledger.keys(shelf)],
        {digest: [file.blake3 for file in manifest.files] for digest, manifest in known.items()},
        catalogued | floors.pinned | floors.kept,
        catalogued,
        objects,
    )
    done = calls.Collected(unclaimed_bytes=sum(map(ledger.size_bytes, found.unclaimed)))
    disk = hydrator.disk
    # Blobs first: what is left of them is still named by a manifest.
    done.unfinished = await _go(disk, found.unfinished, done, dry_run=dry_run)
    done.blobs = await _go(disk, found.blobs, done, dry_run=dry_run)
    done.manifests = await _go(disk, found.manifests, done, dry_run=dry_run)
    return done


async def _go(disk: Disk, keys: Iterable[str], done: calls.Collected, *, dry_run: bool) -> int:
    """How many of these went, or would; what is held counts as busy."""
    gone = 0
    for key in keys:
        size_bytes = disk.ledger.size_bytes(key)
        if disk.ledger.pinned(key) or (not dry_run and await disk.drop([key])):
            done.busy += 1
            continue
        gone += 1
        done.bytes += size_bytes
    return gone
