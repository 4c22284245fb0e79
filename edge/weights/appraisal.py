"""What each file of this store is worth, joined from who uses it and who else has it.

`Appraiser.survey` looks once at the manifests, the region's index and the measured rates and
returns a function of a key; `edge.policy.worth` is the rule. A blob is used when a model that
names it is; one that another node of the region has comes back at the region's rate, the only
copy from the origin. Knows no links, no threads and no files but `uses.json`'s format.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Annotated, Final, Protocol

import msgspec

from edge.policy.worth import MAX_MODELS, NOTHING, Fresh, Uses, Worth, refetch_s, worth
from edge.weights.layout import BLOBS, Found
from edge.weights.manifest import DIGEST, Manifest
from edge.weights.mirror import Holder
from edge.weights.sources import PRIOR, Kind

#: What a fetch takes beside its bytes: a lease and a round trip; the origin may be an ocean away.
WAIT_MS: Final = {Kind.REGION: 20.0, Kind.ORIGIN: 300.0}

log = logging.getLogger(__name__)

Survey = Callable[[str, int], Worth]


class Known(Protocol):
    """`edge.weights.manifests.Manifests`: those on disk, by digest."""

    known: dict[str, Manifest]


class Region(Protocol):
    """`edge.weights.regional.Regional`."""

    def holders(self, digest: str) -> tuple[Holder, ...]:
        """Other nodes of the region that have it."""


class Rates(Protocol):
    """`edge.weights.fetch.Choice`."""

    def rate(self, kind: Kind) -> float:
        """Bytes per ms of whole fetches from this class; 0 until measured."""


class UsesFile(msgspec.Struct, frozen=True):
    """`uses.json`: manifest digests and their frequency, least recently used first."""

    uses: Annotated[tuple[tuple[str, float], ...], msgspec.Meta(max_length=MAX_MODELS)]


def encode_uses(uses: Uses) -> bytes:
    """The file's bytes."""
    return msgspec.json.encode(UsesFile(tuple((model, round(count, 3)) for model, count in uses.dump())))


def decode_uses(raw: bytes) -> Uses:
    """Uses as they were. Raises ValueError for a file that is not ours."""
    try:
        found = msgspec.json.decode(raw, type=UsesFile).uses
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"uses.json is unreadable: {error}") from error
    for digest, count in found:
        if DIGEST.fullmatch(digest) is None or not 0.0 <= count < 1e9:
            raise ValueError(f"uses.json says that {digest[:80]!r} was used {count} times")
    uses = Uses()
    uses.load(found)
    return uses


class Appraiser:
    """The memory of one node's disk, and the value of what lies on it now."""

    def __init__(self, manifests: Known, region: Region, rates: Rates) -> None:
        self.uses = Uses()
        self.fresh = Fresh()
        self._manifests = manifests
        self._region = region
        self._rates = rates

    def begin(self, found: Found) -> None:
        """Go on where the last run stopped; without its file every model starts as a stranger."""
        if found.uses is not None:
            try:
                self.uses = decode_uses(found.uses)
            except ValueError as error:
                log.warning("how often models were used is forgotten: %s", error)

    def survey(self, now_ms: float, blobs: Iterable[str]) -> Survey:
        """What a key of so many bytes is worth now; whatever is no blob of a known model: nothing.

        `blobs` are the keys of those on the disk.
        """
        here = {key.removeprefix(BLOBS) for key in blobs}
        self.uses.find_room(
            sum(all(file.blake3 in here for file in one.files) for one in self._manifests.known.values())
        )
        models: defaultdict[str, list[str]] = defaultdict(list)
        for digest, manifest in self._manifests.known.items():
            for file in manifest.files:
                models[file.blake3].append(digest)
        fresh = self.fresh(now_ms)

        def value(key: str, size_bytes: int) -> Worth:
            if not key.startswith(BLOBS):
                return NOTHING
            blob = key.removeprefix(BLOBS)
            users = models.get(blob, ())
            frequency = sum(self.uses.frequency(model) for model in users)
            return worth(
                size_bytes, frequency, self.refetch_s(blob, size_bytes), spared=not fresh.isdisjoint(users)
            )

        return value

    def refetch_s(self, blob: str, size_bytes: int) -> float:
        """Seconds to have it again from the nearest who would have it then."""
        kind = Kind.REGION if self._region.holders(blob) else Kind.ORIGIN
        return refetch_s(size_bytes, self._rates.rate(kind) or PRIOR[kind], WAIT_MS[kind])

    def published(self, models: Iterable[str], now_ms: float) -> None:
        """These are in the catalogue now."""
        self.fresh.published(models, now_ms)
