"""What the blob server may give: decided and pinned in the loop of the store's owner.

A blob that lies here verified, or what is right by now of one that is on its way: that one is lent
as an open file, since it is renamed when it is whole. Nothing that is lent is evicted meanwhile.
"""

import os
from collections.abc import Callable

from edge import clock
from edge.weights.disk import Disk
from edge.weights.layout import ingest_key
from edge.weights.serve import Lent


def lend(disk: Disk, key: str, may_give: Callable[[str], bool]) -> Lent | None:
    """The file of this key, whole or growing; None if there is nothing to give."""
    if may_give(key):
        disk.ledger.pin(key)
        return Lent(key, disk.store.root / key, disk.ledger.size_bytes(key))
    digest = key.removeprefix("blobs/")
    ingest = disk.store.ingests.get(digest)
    if ingest is None or digest == key:
        return None
    try:
        fd = ingest.lend()
    except OSError:
        return None
    # Both names: it may be committed while it is lent.
    disk.ledger.pin(ingest_key(digest))
    disk.ledger.pin(key)
    return Lent(key, ingest.data_path, ingest.file.size_bytes, ingest.growth, fd)


def take_back(disk: Disk, lent: Lent) -> None:
    """It is not read any more."""
    now_ms = clock.now_ms()
    if lent.growth is not None:
        os.close(lent.fd)
        disk.ledger.unpin(ingest_key(lent.key.removeprefix("blobs/")), now_ms)
    disk.ledger.unpin(lent.key, now_ms)
