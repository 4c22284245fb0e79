"""Bring one blob to the disk: chunks from several sources, then the whole checked as it lies there.

`fetch_blob` blocks, and runs in a thread of its own beside the event loop. What was good stays on the
disk for the next attempt. Who has the blob is not decided here; room for it was made before. How its
chunks are brought is `edge.weights.download`.
"""

import threading
from collections.abc import Mapping
from typing import Final

from edge import clock
from edge.errors import EdgeError, Reason
from edge.weights.choice import Choice, Party
from edge.weights.download import Download
from edge.weights.ingest import file_digest
from edge.weights.manifest import BlobFile
from edge.weights.sources import Moved, Site
from edge.weights.store import Store
from edge.weights.terms import CorruptError, Limits, Meter, Ranges

__all__ = ["Choice", "CorruptError", "Limits", "Meter", "Ranges", "fetch_blob"]

#: So often a blob is completed that lies on the disk otherwise than it was written.
_DISK_ROUNDS: Final = 3


def fetch_blob(
    file: BlobFile,
    store: Store,
    feeds: Mapping[Site, Ranges],
    choice: Choice,
    limits: Limits,
    meter: Meter,
    stop: threading.Event,
    party: Party | None = None,
) -> None:
    """The blob lies verified under its name (durable once it is settled), or an EdgeError says why not.

    ORIGIN_DOWN or LINK_LOST (also when too slow), BLOB_CORRUPT as CorruptError, NO_SPACE, INTERNAL.
    Of several sources that failed, the origin's error is the one that is told. `party`: of which it is one.
    """
    ingest = store.open_ingest(file)
    try:
        missing = ingest.missing()
        meter.present_bytes = file.size_bytes - sum(
            end - at for at, end in (ingest.bounds(index) for index in missing)
        )
        for again in range(_DISK_ROUNDS):
            if missing:
                began_ms, before = clock.now_ms(), meter.moved.plus(Moved())
                Download(ingest, feeds, choice, limits, meter, stop, party).run(missing)
                choice.fetched(meter.moved.since(before), clock.now_ms() - began_ms)
            # What was hashed on the way is of the first round.
            if (file_digest(ingest.data_path) if again else ingest.digest()) == file.blake3:
                store.commit(ingest)
                return
            missing = ingest.missing()
            if not missing:
                raise CorruptError(
                    f"blob {file.blake3} ({file.name}): every chunk is as its manifest says, the whole is "
                    "not; publish the model again",
                    None,
                )
        raise EdgeError(
            Reason.INTERNAL,
            f"blob {file.blake3} ({file.name}): the disk gives back other bytes than were written, "
            f"{_DISK_ROUNDS} times, in chunk {missing[0]}; replace the disk under weights.store",
        )
    finally:
        ingest.close()
