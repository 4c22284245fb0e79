"""The vocabulary: every call, reply and event that travels in a frame's head.

Heads are msgpack maps. A receiver ignores fields it does not know and fills those that
are missing from the defaults here, so that nodes of neighbouring versions understand
each other. Bodies are raw bytes; the comment beside a head says what its body holds.
"""

from typing import Any, Final

import msgspec

from edge.errors import EdgeError, Reason, Source
from edge.policy.facts import Pulse
from edge.policy.others import Others
from edge.wire import meshcalls, treecalls
from edge.wire.failures import UNREADABLE
from edge.wire.failures import UpstreamError as UpstreamError
from edge.wire.failures import decode_failure as decode_failure
from edge.wire.failures import encode_failure as encode_failure
from edge.wire.failures import sane_pulse as sane_pulse
from edge.wire.objectcalls import EnsuredObjects as EnsuredObjects
from edge.wire.objectcalls import EnsureObjects as EnsureObjects
from edge.wire.objectcalls import ObjectHere as ObjectHere
from edge.wire.objectcalls import ReleaseObjects as ReleaseObjects
from edge.wire.storecalls import Collect as Collect
from edge.wire.storecalls import Collected as Collected
from edge.wire.storecalls import Fetching as Fetching
from edge.wire.storecalls import Scrubbed as Scrubbed
from edge.wire.storecalls import Verified as Verified
from edge.wire.storecalls import Verify as Verify


class Infer(msgspec.Struct, tag="infer", tag_field="op", omit_defaults=True):
    """Run one model once. Body: the client's HTTP body, as it came."""

    model: str
    version: str
    digest: str
    protocol: str = "oip"
    content_type: str = ""
    content_encoding: str = ""
    accept_encoding: str = ""
    oip_json_bytes: int | None = None
    deadline_ms: float = 30_000.0
    request_id: str = ""
    hops: int = 0
    #: The worker that the ingress chose ("fra-a/0"); another one of the node may answer.
    worker: str = ""
    cold: str = "far"
    traceparent: str = ""
    #: Filled in by the proxy beside the worker, whatever came from elsewhere.
    objects: tuple[ObjectHere, ...] = ()


class Inferred(msgspec.Struct, tag="inferred", tag_field="op", omit_defaults=True):
    """Answer to `Infer`. Body: the HTTP body for the client.

    `batch` is how many requests shared the execution, `lead` is true for one of them, so
    that executions can be counted; `items` is this request's share of the batch axis.
    """

    content_type: str = "application/json"
    content_encoding: str = ""
    oip_json_bytes: int | None = None
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    hydrate_ms: float = 0.0
    items: int = 1
    batch: int = 1
    lead: bool = True
    residency: str = "device"
    served_by: str = ""
    #: Bytes of weights and objects that came from another region, or the origin, for this request.
    weights_bytes: int = 0
    pulse: Pulse | None = None


class Load(msgspec.Struct, tag="load", tag_field="op", omit_defaults=True):
    """Make a model resident on the device; its blobs lie in the store. Body: the manifest."""

    digest: str
    deadline_ms: float = 60_000.0


class Loaded(msgspec.Struct, tag="loaded", tag_field="op", omit_defaults=True):
    """Answer to `Load`: what it costs on the device and how long it took."""

    device_bytes: int
    load_ms: float
    provider: str = ""


class Unload(msgspec.Struct, tag="unload", tag_field="op", omit_defaults=True):
    """Drop a model from the device; answered by `Done` once its memory is released."""

    digest: str


class Done(msgspec.Struct, tag="done", tag_field="op", omit_defaults=True):
    """An answer that has nothing to add."""


class Status(msgspec.Struct, tag="status", tag_field="op", omit_defaults=True):
    """What do you hold? Answered by `WorkerState` or `WeightsState`. Reply body: see `edge.wire.states`."""


class LoadedModel(msgspec.Struct, omit_defaults=True):
    """One model on a device."""

    digest: str
    model: str
    version: str
    device_bytes: int
    batch_cap: int = 1


class WorkerState(msgspec.Struct, tag="worker-state", tag_field="op", omit_defaults=True):
    """A worker's own view of its device."""

    device: str
    provider: str
    device_bytes: int
    used_bytes: int
    queued: int = 0
    executions: int = 0
    models: list[LoadedModel] = msgspec.field(default_factory=list)


class Catalogue(msgspec.Struct, tag="catalogue", tag_field="op", omit_defaults=True):
    """The catalogue as this node last saw it. Reply `CatalogueState`, body: catalog.json."""

    newer_than: str = ""


class CatalogueState(msgspec.Struct, tag="catalogue-state", tag_field="op", omit_defaults=True):
    """`digest` is empty while no catalogue was ever seen; body is empty when not newer than asked."""

    digest: str = ""
    epoch: int = 0
    origin_up: bool = False


class GetManifest(msgspec.Struct, tag="manifest", tag_field="op", omit_defaults=True):
    """A manifest by digest, from disk or origin. Reply `Done`, body: the manifest."""

    digest: str
    deadline_ms: float = 10_000.0


class FarSource(msgspec.Struct, omit_defaults=True):
    """A node of another region that holds a model on its disk; `blobs` is host:port of its blob server."""

    node: str
    blobs: str
    rtt_ms: float = 0.0


class Ensure(msgspec.Struct, tag="ensure", tag_field="op", omit_defaults=True):
    """Bring all blobs of a manifest to this node's disk, verified, and hold them.

    The hold lasts until `Release` or until the link closes. One fetch under many callers. With
    `hold` false they are only brought. `far` are nodes of other regions that have them.
    """

    digest: str
    deadline_ms: float = 30_000.0
    hold: bool = True
    far: tuple[FarSource, ...] = ()


class Ensured(msgspec.Struct, tag="ensured", tag_field="op", omit_defaults=True):
    """Answer to `Ensure`: where the weights were found (host | disk | region | far | origin), what moved.

    `moved_bytes` came over a network, `outside_bytes` of them from another region or the origin.
    Body: the manifest.
    """

    residency: str
    moved_bytes: int
    hydrate_ms: float
    outside_bytes: int = 0


class Release(msgspec.Struct, tag="release", tag_field="op", omit_defaults=True):
    """Give back one hold on a manifest. Reply `Done`."""

    digest: str


class Inventory(msgspec.Struct, tag="inventory", tag_field="op", omit_defaults=True):
    """What lies whole on your disk? Reply `InventoryState`."""

    newer_than: int = 0


class InventoryState(msgspec.Struct, tag="inventory-state", tag_field="op", omit_defaults=True):
    """Body: msgpack of {manifest digest: [tier ("disk" | "host"), size in bytes]}; empty when not newer.

    `number` grows with each change. The rates are measured, in bytes per ms, 0 until they are. `spoiled` are
    manifests of which a blob was found bad while somebody held it: what is loaded of them is to be let go.
    """

    number: int
    region_rate: float = 0.0
    far_rate: float = 0.0
    origin_rate: float = 0.0
    fetching: list[Fetching] = msgspec.field(default_factory=list)
    spoiled: list[str] = msgspec.field(default_factory=list)


class Drop(msgspec.Struct, tag="drop", tag_field="op", omit_defaults=True):
    """Evict a manifest and those of its blobs that nobody else needs from disk. Reply `Collected`."""

    digest: str


class Pin(msgspec.Struct, tag="pin", tag_field="op", omit_defaults=True):
    """Keep a manifest's blobs on this disk until told otherwise, over restarts. Reply `Done`."""

    digest: str
    pinned: bool = True


class StoredModel(msgspec.Struct, omit_defaults=True):
    """One manifest on disk: `disk_bytes` verified, of `total_bytes`; `holds` callers need it."""

    digest: str
    model: str
    version: str
    total_bytes: int
    disk_bytes: int
    holds: int
    pinned: bool = False
    kept: bool = False
    #: Since somebody held it last; None: not since the store was started.
    held_ms_ago: float | None = None
    #: Of a held one: bytes that lay in memory when it was measured last, some seconds ago.
    resident_bytes: int | None = None


class IndexState(msgspec.Struct, omit_defaults=True):
    """The region's Redis as this node sees it; `state`: off | up | stale. Counts only grow."""

    state: str = "off"
    epoch: str = ""
    last_error: str = ""
    blobs: int = 0
    nodes: tuple[str, ...] = ()
    lag_ms: float = 0.0
    refused: int = 0
    reregistered: int = 0


class WeightsState(msgspec.Struct, tag="weights-state", tag_field="op", omit_defaults=True):
    """The weight store's own view."""

    disk_bytes: int
    disk_used_bytes: int
    host_bytes: int
    host_used_bytes: int
    quarantined: int = 0
    fetched_bytes: int = 0
    fetches: int = 0
    #: Bytes fetched, by source: region, far, origin.
    sources: dict[str, int] = msgspec.field(default_factory=dict)
    served_bytes: int = 0
    index: IndexState = msgspec.field(default_factory=IndexState)
    models: list[StoredModel] = msgspec.field(default_factory=list)
    #: Files evicted since the start.
    evictions: int = 0
    #: Of `host_used_bytes`, what lay in memory when it was measured last, some seconds ago.
    host_resident_bytes: int | None = None
    #: Read in again since the start, as the kernel had taken it; what was read in went out again soon.
    host_read_bytes: int = 0
    host_undersized: bool = False
    fetching: list[Fetching] = msgspec.field(default_factory=list)
    #: Of `disk_used_bytes`, objects that requests named, here or on their way.
    objects_bytes: int = 0
    scrubbed: Scrubbed = msgspec.field(default_factory=Scrubbed)


class Heartbeat(msgspec.Struct, tag="heartbeat", tag_field="op", omit_defaults=True):
    """EVENT, child -> parent: my event loop turns. `ready` once it can do its work.

    `others`: whether another node attracts clients, as far as a proxy knows.
    """

    ready: bool = True
    others: Others = Others.UNKNOWN


Head = (
    Infer
    | Inferred
    | Load
    | Loaded
    | Unload
    | Done
    | Status
    | WorkerState
    | meshcalls.Subscribe
    | meshcalls.Welcome
    | meshcalls.Probe
    | meshcalls.BeaconNews
    | meshcalls.Resync
    | meshcalls.Goodbye
    | Inventory
    | InventoryState
    | Drop
    | Pin
    | treecalls.Restart
    | Catalogue
    | CatalogueState
    | GetManifest
    | Ensure
    | Ensured
    | Release
    | EnsureObjects
    | EnsuredObjects
    | ReleaseObjects
    | WeightsState
    | Heartbeat
    | treecalls.Withdraw
    | treecalls.Announce
    | treecalls.Announcement
    | treecalls.Tree
    | treecalls.TreeState
    | Verify
    | Verified
    | Collect
    | Collected
)

_encoder: Final = msgspec.msgpack.Encoder()
_heads: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(Head)

encode_head = _encoder.encode


def decode_head(raw: bytes) -> Head:
    """A typed head. Raises EdgeError(PROTOCOL) for an unknown call or a field of the wrong type.

    A pulse that can't be read becomes None: it is a hint, and the answer it came with is not.
    """
    head: Head | None
    try:
        head = _heads.decode(raw)
    except UNREADABLE as error:
        head = _without_pulse(raw)
        if head is None:
            raise EdgeError(Reason.PROTOCOL, f"unreadable call: {error}", source=Source.UPSTREAM) from error
    return head


def _without_pulse(raw: bytes) -> Inferred | None:
    try:
        fields = msgspec.msgpack.decode(raw, type=dict[str, Any])
        if fields.get("op") != "inferred" or fields.pop("pulse", None) is None:
            return None
        return msgspec.convert(fields, Inferred)
    except UNREADABLE:
        return None
