"""What the weights process tells of itself: one read of everybody's books, nothing changed."""

from typing import Final

from edge import clock
from edge.weights.budget import Shelf
from edge.weights.floors import Floors
from edge.weights.hydrate import Hydrator
from edge.weights.keeper import Keeper
from edge.weights.layout import blob_key, manifest_key
from edge.weights.manifest import Manifest
from edge.weights.regional import Regional
from edge.wire import calls

#: Of those that are neither pinned nor kept.
MAX_LISTED_MODELS: Final = 150
MAX_LISTED_FETCHES: Final = 64


def weights_state(
    hydrator: Hydrator, keeper: Keeper, floors: Floors, regional: Regional, served_bytes: int
) -> calls.WeightsState:
    """What `Status` is answered with; the models that are pinned or kept, those that are held, then those
    held last.
    """
    ledger, now_ms = hydrator.disk.ledger, clock.now_ms()
    stay = floors.pinned | floors.kept
    listed = sorted(
        hydrator.manifests.known.items(),
        key=lambda item: (
            item[0] in stay,
            keeper.holds(item[0]) > 0,
            ledger.last_held_ms(manifest_key(item[0])),
        ),
        reverse=True,
    )

    def stored(digest: str, known: Manifest) -> calls.StoredModel:
        sizes = {file.blake3: file.size_bytes for file in known.files}
        here = sum(size for blob, size in sizes.items() if blob_key(blob) in ledger)
        held_ms = ledger.last_held_ms(manifest_key(digest))
        return calls.StoredModel(
            digest,
            known.name,
            known.version,
            sum(sizes.values()),
            here,
            keeper.holds(digest),
            digest in floors.pinned,
            digest in floors.kept,
            # What a start found was held at no time of this run.
            round(now_ms - held_ms, 3) if held_ms > 0.0 else None,
            keeper.residency.of(sizes) if keeper.holds(digest) else None,
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
        models=[stored(digest, known) for digest, known in listed[: len(stay) + MAX_LISTED_MODELS]],
        evictions=hydrator.disk.evictions,
        host_resident_bytes=keeper.residency.of(keeper.host_sizes()),
        host_read_bytes=keeper.residency.read_bytes,
        host_undersized=keeper.residency.undersized,
        fetching=fetching(hydrator),
    )


def fetching(hydrator: Hydrator) -> list[calls.Fetching]:
    """How far models are that are on their way here."""
    if not len(hydrator.under_way):
        return []
    now_ms, ledger = clock.now_ms(), hydrator.disk.ledger
    told = (
        hydrator.under_way.of(digest, known, lambda blob: blob_key(blob) in ledger, now_ms)
        for digest, known in hydrator.manifests.known.items()
    )
    return [one for one in told if one is not None][:MAX_LISTED_FETCHES]
