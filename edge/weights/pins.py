"""Which models this disk has to keep, and why: the operator's pins, and the catalogue's floors.

Pure: `floor`, `Lately` and the format of `pins.json`. How the bytes get here is `edge.weights.floors`'s.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from edge.weights.manifest import DIGEST, Catalogue
from edge.weights.mirror import leader

MAX_PINS: Final = 1_000
#: A node that left may be restarting, and has all that it kept; its floors are another's after this.
GRACE_MS: Final = 60_000.0


class PinsFile(msgspec.Struct, frozen=True):
    """`pins.json`: manifest digests."""

    pinned: tuple[str, ...]


def encode_pins(pinned: Collection[str]) -> bytes:
    """The file's bytes."""
    return msgspec.json.encode(PinsFile(tuple(sorted(pinned))))


def decode_pins(raw: bytes) -> frozenset[str]:
    """Digests that are pinned. Raises ValueError for a file that is not ours."""
    try:
        found = msgspec.json.decode(raw, type=PinsFile).pinned
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"pins.json is unreadable: {error}") from error
    for digest in found:
        if DIGEST.fullmatch(digest) is None:
            raise ValueError(f"pins.json names {digest[:80]!r}, which is no digest")
    return frozenset(found[:MAX_PINS])


def floor(catalogue: Catalogue, region: str, node: str, nodes: Collection[str] | None) -> frozenset[str]:
    """Manifest digests that `node` keeps because the catalogue says so.

    `keep: {region: n}` is n of the region's living `nodes`, by rendezvous, so that all of them
    agree and few move when one comes or goes. Nobody knows who lives (None): every node keeps it.
    """
    kept: set[str] = set()
    for model in catalogue.models.values():
        if (count := model.keep.get(region)) is not None:
            digest = model.versions[model.current]
            if nodes is None or node in chosen(digest, nodes, count):
                kept.add(digest)
    return frozenset(kept)


class Lately:
    """Nodes that live, and those that did within GRACE_MS."""

    def __init__(self) -> None:
        self._seen_ms: dict[str, float] = {}

    def of(self, living: Collection[str] | None, now_ms: float) -> frozenset[str] | None:
        """`living` and those that left lately; None while nobody can tell who lives."""
        if living is None:
            return None
        self._seen_ms |= dict.fromkeys(living, now_ms)
        self._seen_ms = {node: at for node, at in self._seen_ms.items() if now_ms - at < GRACE_MS}
        return frozenset(self._seen_ms)


def chosen(digest: str, nodes: Collection[str], count: int) -> frozenset[str]:
    """The first `count` of `nodes` by rendezvous."""
    left, found = set(nodes), set[str]()
    while left and len(found) < count:
        first = leader(digest, left)
        left.discard(first)
        found.add(first)
    return frozenset(found)
