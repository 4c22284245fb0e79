"""What an operator asks of the weight store, in frames: read it again, tidy it, tell what is on its way.

Part of the vocabulary of `edge.wire.calls`, which joins it with the rest.
"""

import msgspec


class Fetching(msgspec.Struct, omit_defaults=True):
    """A manifest whose blobs are on their way here: `done_bytes` are here of `total_bytes`.

    `bytes_per_s` is what came over the network lately, 0 while that is not known; `sources` what came
    from where, so far.
    """

    digest: str
    done_bytes: int
    total_bytes: int
    bytes_per_s: float = 0.0
    sources: dict[str, int] = msgspec.field(default_factory=dict)


class Verify(msgspec.Struct, tag="verify", tag_field="op", omit_defaults=True):
    """Read all blobs of a manifest on this disk again; a bad one is set aside and fetched anew.

    Reply `Verified`. A blob that is not here is no damage, unless somebody else removed it. With `blob`,
    a number from 0 on, only that one: what takes hours to read is asked for piece by piece.
    """

    digest: str
    deadline_ms: float = 3_600_000.0
    blob: int | None = None


class Verified(msgspec.Struct, tag="verified", tag_field="op", omit_defaults=True):
    """Answer to `Verify`: blobs read, their bytes, digests of those that were bad, bytes fetched anew.

    `removed` are those whose file somebody else removed since they came. `problem` says why one could
    not be fetched again; it is gone all the same. `rest` are the blobs behind the one that was asked for.
    """

    blobs: int
    read_bytes: int
    bad: tuple[str, ...] = ()
    moved_bytes: int = 0
    problem: str = ""
    removed: tuple[str, ...] = ()
    rest: int = 0


class Scrubbed(msgspec.Struct, omit_defaults=True):
    """What a store read again by itself since its start: whole passes, blobs, bytes, blobs that were `bad`.

    `since_pass_ms`: since the last whole pass ended; none while there was none.
    """

    passes: int = 0
    blobs: int = 0
    bytes: int = 0
    bad: int = 0
    since_pass_ms: float | None = None


class Collect(msgspec.Struct, tag="collect", tag_field="op", omit_defaults=True):
    """Let go of what no version of the catalogue, no pin and no hold needs. Reply `Collected`."""

    dry_run: bool = False


class Collected(msgspec.Struct, tag="collected", tag_field="op", omit_defaults=True):
    """Answer to `Collect`: files that went, or with `dry_run` would, and their bytes.

    `busy` are files that somebody uses. `unclaimed_bytes` are of blobs that no manifest here names;
    they stay while this disk lacks a manifest of the catalogue, which might name them.
    """

    manifests: int = 0
    blobs: int = 0
    unfinished: int = 0
    bytes: int = 0
    busy: int = 0
    unclaimed_bytes: int = 0
