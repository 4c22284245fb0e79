"""What lies on this disk and nobody needs? Pure.

Needed is what a version of the catalogue, a pin, a floor, a hold or a request names; the rest is
`Garbage`.
Evidence in quarantine and files that are not ours are neither.
"""

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from edge.weights.budget import Shelf, shelf_of


class Garbage(NamedTuple):
    """Keys of files that may go, by shelf, and blobs of which nobody can tell yet."""

    manifests: tuple[str, ...]
    blobs: tuple[str, ...]
    unfinished: tuple[str, ...]
    unclaimed: tuple[str, ...]


def garbage(
    keys: Iterable[str],
    manifests: Mapping[str, Iterable[str]],
    needed: Set[str],
    catalogued: Set[str],
    objects: Set[str] = frozenset(),
) -> Garbage:
    """Which of a store's `keys` may go.

    `manifests` are those on the disk, digest -> their blobs; `needed` the manifests that somebody
    needs, of which `catalogued` are the catalogue's; `objects` blobs that requests name. A blob that
    no manifest here names may be named by one of the catalogue that is not here: then it is
    unclaimed, and stays.
    """
    held = {blob for digest, blobs in manifests.items() if digest in needed for blob in blobs} | objects
    named = {blob for blobs in manifests.values() for blob in blobs}
    whole = catalogued <= manifests.keys()
    found: dict[Shelf, list[str]] = {Shelf.MANIFESTS: [], Shelf.BLOBS: [], Shelf.INGEST: []}
    unclaimed: list[str] = []
    for key in sorted(keys):
        shelf = shelf_of(key)
        name = key.partition("/")[2].removesuffix(".json")
        if shelf not in found or name in (needed if shelf is Shelf.MANIFESTS else held):
            continue
        if shelf is Shelf.BLOBS and name not in named and not whole:
            unclaimed.append(key)
        else:
            found[shelf].append(key)
    return Garbage(
        tuple(found[Shelf.MANIFESTS]),
        tuple(found[Shelf.BLOBS]),
        tuple(found[Shelf.INGEST]),
        tuple(unclaimed),
    )
