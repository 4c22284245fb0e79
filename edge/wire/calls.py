"""The vocabulary: every call, reply and event that travels in a frame's head.

Heads are msgpack maps. A receiver ignores fields it does not know and fills those that
are missing from the defaults here, so that nodes of neighbouring versions understand
each other. Bodies are raw bytes; the comment beside a head says what its body holds.
"""

from typing import Any, Final

import msgspec

from edge.errors import EdgeError, Reason, Source


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
    """What do you hold? Answered by `WorkerState`, `WeightsState` or a proxy's state."""


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


class PeerState(msgspec.Struct, tag="peer-state", tag_field="op", omit_defaults=True):
    """A node's answer to `Status` over the mesh: who it is, and its workers that are up or coming."""

    node: str
    pop: str
    workers_up: int = 0
    workers_starting: int = 0
    warm: list[str] = msgspec.field(default_factory=list)


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


class Ensure(msgspec.Struct, tag="ensure", tag_field="op", omit_defaults=True):
    """Bring all blobs of a manifest to this node's disk, verified, and hold them.

    The hold lasts until `Release` or until the link closes. One fetch under many callers.
    """

    digest: str
    deadline_ms: float = 30_000.0


class Ensured(msgspec.Struct, tag="ensured", tag_field="op", omit_defaults=True):
    """Answer to `Ensure`: where the weights were found (disk | origin) and what moved.

    Body: the manifest.
    """

    residency: str
    moved_bytes: int
    hydrate_ms: float


class Release(msgspec.Struct, tag="release", tag_field="op", omit_defaults=True):
    """Give back one hold on a manifest. Reply `Done`."""

    digest: str


class StoredModel(msgspec.Struct, omit_defaults=True):
    """One manifest on disk: `disk_bytes` verified, of `total_bytes`; `holds` callers need it."""

    digest: str
    model: str
    version: str
    total_bytes: int
    disk_bytes: int
    holds: int


class WeightsState(msgspec.Struct, tag="weights-state", tag_field="op", omit_defaults=True):
    """The weight store's own view."""

    disk_bytes: int
    disk_used_bytes: int
    host_bytes: int
    host_used_bytes: int
    quarantined: int = 0
    fetched_bytes: int = 0
    fetches: int = 0
    models: list[StoredModel] = msgspec.field(default_factory=list)


class Failed(msgspec.Struct, omit_defaults=True):
    """Head of an ERROR frame."""

    reason: str
    message: str
    source: str = "internal"
    retryable: bool = False
    retry_after_s: int | None = None


class Heartbeat(msgspec.Struct, tag="heartbeat", tag_field="op", omit_defaults=True):
    """EVENT, child -> parent: my event loop turns. `ready` once it can do its work."""

    ready: bool = True


class Withdraw(msgspec.Struct, tag="withdraw", tag_field="op", omit_defaults=True):
    """CALL, proxy -> parent: stop attracting traffic until `Announce`. Reply `Announcement`."""


class Announce(msgspec.Struct, tag="announce", tag_field="op", omit_defaults=True):
    """CALL, proxy -> parent: attract traffic again. Reply `Announcement`."""


class Tree(msgspec.Struct, tag="tree", tag_field="op", omit_defaults=True):
    """CALL, proxy -> parent: how are the children? Reply `TreeState`."""


class ChildState(msgspec.Struct, omit_defaults=True):
    """One child process of the node; `exits` counts how often it died."""

    role: str
    pid: int
    up: bool
    exits: int
    ready: bool = False


class TreeState(msgspec.Struct, tag="tree-state", tag_field="op", omit_defaults=True):
    """Children, and whether the VIP is announced ("announced", "withdrawn: <why>", "never")."""

    announcement: str
    children: list[ChildState] = msgspec.field(default_factory=list)


class Announcement(msgspec.Struct, tag="announcement", tag_field="op", omit_defaults=True):
    """Answer to `Withdraw` and `Announce`."""

    announcement: str


Head = (
    Infer
    | Inferred
    | Load
    | Loaded
    | Unload
    | Done
    | Status
    | WorkerState
    | PeerState
    | Catalogue
    | CatalogueState
    | GetManifest
    | Ensure
    | Ensured
    | Release
    | WeightsState
    | Heartbeat
    | Withdraw
    | Announce
    | Announcement
    | Tree
    | TreeState
)

_encoder: Final = msgspec.msgpack.Encoder()
_heads: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(Head)
_failures: Final = msgspec.msgpack.Decoder(Failed)
_REASONS: Final = {str(reason): reason for reason in Reason}
_SOURCES: Final = {str(source): source for source in Source}

encode_head = _encoder.encode


def decode_head(raw: bytes) -> Head:
    """A typed head. Raises EdgeError(PROTOCOL) for an unknown call or a field of the wrong type."""
    try:
        head: Head = _heads.decode(raw)
    except msgspec.MsgspecError as error:
        raise EdgeError(Reason.PROTOCOL, f"unreadable call: {error}", source=Source.UPSTREAM) from error
    return head


def encode_failure(error: EdgeError) -> bytes:
    """The head of an ERROR frame."""
    return _encoder.encode(
        Failed(str(error.reason), error.message, str(error.source), error.retryable, error.retry_after_s)
    )


def decode_failure(raw: bytes) -> EdgeError:
    """An error as the peer raised it; unknown reasons become PROTOCOL, so that none is invented here."""
    try:
        failed = _failures.decode(raw)
    except msgspec.MsgspecError as error:
        return EdgeError(Reason.PROTOCOL, f"unreadable error from upstream: {error}", source=Source.UPSTREAM)
    return EdgeError(
        _REASONS.get(failed.reason, Reason.PROTOCOL),
        failed.message,
        source=_SOURCES.get(failed.source, Source.UPSTREAM),
        retryable=failed.retryable,
        retry_after_s=failed.retry_after_s,
    )
