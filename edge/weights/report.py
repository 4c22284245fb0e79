"""What the weights process tells of itself: one read of everybody's books, nothing changed."""

from typing import Final

from edge.weights.budget import Shelf
from edge.weights.floors import Floors
from edge.weights.hydrate import Hydrator
from edge.weights.keeper import Keeper
from edge.weights.layout import blob_key, manifest_key
from edge.weights.manifest import Manifest
from edge.weights.regional import Regional
from edge.wire import calls

#: What one head can carry (64 KiB).
MAX_LISTED_MODELS: Final = 150


def weights_state(
    hydrator: Hydrator, keeper: Keeper, floors: Floors, regional: Regional, served_bytes: int
) -> calls.WeightsState:
    """What `Status` is answered with; the models that are held, then those held last."""
    ledger = hydrator.disk.ledger
    listed = sorted(
        hydrator.manifests.known.items(),
        key=lambda item: (keeper.holds(item[0]) > 0, ledger.last_held_ms(manifest_key(item[0]))),
        reverse=True,
    )

    def stored(digest: str, known: Manifest) -> calls.StoredModel:
        sizes = {file.blake3: file.size_bytes for file in known.files}
        here = sum(size for blob, size in sizes.items() if blob_key(blob) in ledger)
        return calls.StoredModel(
            digest,
            known.name,
            known.version,
            sum(sizes.values()),
            here,
            keeper.holds(digest),
            digest in floors.pinned,
            digest in floors.kept,
        )

    return calls.WeightsState(
        disk_bytes=ledger.capacity_bytes,
        disk_used_bytes=ledger.used_bytes,
        host_bytes=keeper.host_bytes,
        host_used_bytes=keeper.host_used_bytes(),
        quarantined=len(ledger.keys(Shelf.QUARANTINE)),
        fetched_bytes=hydrator.fetched.total_bytes,
        fetches=hydrator.fetches,
        sources={str(kind): count for kind, count in hydrator.fetched.by.items()},
        served_bytes=served_bytes,
        index=regional.state(),
        models=[stored(digest, known) for digest, known in listed[:MAX_LISTED_MODELS]],
    )
