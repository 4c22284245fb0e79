"""Objects that requests name in the place of data, in frames: bring them near, tell the worker, let go.

Part of the vocabulary of `edge.wire.calls`, which joins it with the rest.
"""

import msgspec


class ObjectHere(msgspec.Struct, omit_defaults=True):
    """An object that a request may name: its blob in this node's store, or why it is not there.

    `reason` is empty for one that is there; else the four fields after it are an EdgeError's.
    """

    name: str
    digest: str = ""
    size_bytes: int = 0
    reason: str = ""
    message: str = ""
    retryable: bool = False
    retry_after_s: int | None = None


class EnsureObjects(msgspec.Struct, tag="ensure-objects", tag_field="op", omit_defaults=True):
    """Bring these objects to this node's disk, verified, and hold those that came. Reply `EnsuredObjects`.

    Together they may have `max_bytes`. A hold lasts until `ReleaseObjects` or until the link closes.
    """

    names: tuple[str, ...]
    max_bytes: int
    deadline_ms: float = 30_000.0


class EnsuredObjects(msgspec.Struct, tag="ensured-objects", tag_field="op", omit_defaults=True):
    """Answer to `EnsureObjects`: each of them in the order asked, and what moved, as in `Ensured`."""

    objects: tuple[ObjectHere, ...]
    moved_bytes: int = 0
    outside_bytes: int = 0


class ReleaseObjects(msgspec.Struct, tag="release-objects", tag_field="op", omit_defaults=True):
    """Give back one hold on each of these blobs. Reply `Done`."""

    digests: tuple[str, ...]
