"""Into an origin: models that `python -m models make` wrote, and which version of each is served.

Everything but `catalog.json` is immutable and named by its content, so it goes first: blobs,
checked by their digests on the way, then manifests. The catalogue comes last, as a higher
epoch, and only if nobody else replaced it meanwhile. Each catalogue that is replaced stays as
`catalogs/<epoch>.json`: going back is its content under a new epoch. Blocking; knows no ONNX,
and not how far a terminal is wide: who wants to see progress hands in a Report.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from blake3 import blake3

from edge.errors import EdgeError, Reason, Source
from edge.weights import changes
from edge.weights import manifest as mf
from edge.weights.changes import Models
from edge.weights.origin import ChangedError, Object, Origin, OriginError

#: Above this a blob is sent in parts.
SINGLE_PUT_BYTES: Final = 4 * mf.MIB
_PIECE_BYTES: Final = mf.MIB
#: Read by one request, where the origin's content is compared.
_VERIFIED_BYTES: Final = 64 * mf.MIB
#: One request may take so long, and a part of an upload that nothing answers to.
REQUEST_TIMEOUT_MS: Final = 120_000
#: Times that a blob is sent, and that a change is made anew because somebody else published.
MAX_TRIES: Final = 3
#: Epochs that may be missing between the catalogue and the newest one that was kept.
MAX_BACK: Final = 64


class Report(Protocol):
    """Hears how an upload goes."""

    def begins(self, what: str, total_bytes: int) -> None:
        """This object is sent next."""

    def moved(self, count_bytes: int) -> None:
        """So many more bytes of it."""


class Published(NamedTuple):
    """What came of it; `changed` false: the origin said all this already, its epoch stays."""

    epoch: int
    changed: bool
    models: Models
    uploaded: int = 0
    uploaded_bytes: int = 0


class Publisher:
    """Changes one origin. Every method raises EdgeError with a sentence that says what to do.

    A blob that is there with the right size is taken for good; with `verify` it is read first.
    """

    def __init__(self, url: str, *, stop: threading.Event, report: Report, verify: bool = False) -> None:
        self._origin = Origin(
            url, request_timeout_ms=REQUEST_TIMEOUT_MS, stop=stop, read_timeout_ms=REQUEST_TIMEOUT_MS
        )
        self._report = report
        self._stop = stop
        self._verify = verify
        self._uploaded = 0
        self._uploaded_bytes = 0

    def push(
        self,
        store: Path,
        names: Sequence[str],
        current: str | None,
        *,
        keep_placement: bool = False,
        epoch_above: int = 0,
    ) -> Published:
        """Upload what the origin lacks of these models (all if none is named), then serve them.

        `current` is the version served from now on, of the one model that is named; else what
        the store's own catalogue says. With `keep_placement` a model that the origin has stays where
        the origin's catalogue has it run and kept. Nodes that hold `epoch_above`, of an origin that was
        made anew, believe what is published here.
        """
        local = _local_catalogue(store)
        wanted = changes.picked(local, names, current)

        def change(present: mf.Catalogue) -> Models:
            return changes.merged(present.models, wanted, keep_placement=keep_placement)

        held, _ = self._catalogue()
        changes.encoded(mf.Catalogue(held.epoch, change(held)))  # refuses before anything is sent
        for model in wanted.values():
            for digest in model.versions.values():
                self._send_version(store, digest)
        return self._change(change, first_epoch=local.epoch, epoch_above=epoch_above)

    def rollout(self, name: str, version: str) -> Published:
        """Serve this version of a model by default."""
        return self._change(lambda present: changes.rolled_out(present.models, name, version))

    def retire(self, name: str, versions: Sequence[str] = (), keep_last: int | None = None) -> Published:
        """Take these versions of a model out of the catalogue, all but its highest `keep_last`, or the model.

        What they consist of stays in the origin: a kept catalogue still names it.
        """
        return self._change(lambda present: changes.retired(present.models, name, versions, keep_last))

    def rollback(self, name: str) -> Published:
        """Serve the version of a model that was served before the present one."""
        present, _ = self._catalogue()
        now = changes.of(present.models, name)
        for older in self._older(present.epoch):
            then = older.models.get(name)
            if then is not None and then.current != now.current and then.current in now.versions:
                return self.rollout(name, then.current)
        known = ", ".join(sorted(now.versions, key=int))
        raise _wrong(f"no kept catalogue names another version of {name}; name one of {known}")

    def restore(self, epoch: int | None) -> Published:
        """The whole catalogue as it was at `epoch` (None: before the present one), as a new epoch."""
        present, _ = self._catalogue()
        if epoch is None:
            older = next(self._older(present.epoch), None)
            if older is None:
                raise _wrong(
                    f"the origin keeps no catalogue before epoch {present.epoch}: nothing to go back to"
                )
        else:
            kept = self._read(f"catalogs/{epoch}.json")
            if kept is None:
                raise _wrong(
                    f"the origin keeps no catalogue of epoch {epoch}; the present one is {present.epoch}"
                )
            older = mf.decode_catalogue(kept.raw)

        def change(now: mf.Catalogue) -> Models:
            if now.epoch != present.epoch:
                raise _wrong(
                    f"somebody else published epoch {now.epoch} meanwhile; look at it, then try again"
                )
            return dict(older.models)

        return self._change(change)

    # --- the catalogue

    def _catalogue(self) -> tuple[mf.Catalogue, Object | None]:
        found = self._read("catalog.json")
        return (mf.Catalogue(0, {}) if found is None else mf.decode_catalogue(found.raw)), found

    def _older(self, epoch: int) -> Iterator[mf.Catalogue]:
        """Kept catalogues before `epoch`, newest first."""
        missing = 0
        for before in range(epoch - 1, 0, -1):
            kept = self._read(f"catalogs/{before}.json")
            if kept is not None:
                missing = 0
                yield mf.decode_catalogue(kept.raw)
            elif (missing := missing + 1) > MAX_BACK:
                return

    def _read(self, path: str) -> Object | None:
        try:
            return self._origin.small(path, mf.CATALOGUE_MAX_BYTES)
        except OriginError as error:
            if error.missing:
                return None
            raise

    def _change(
        self, change: Callable[[mf.Catalogue], Models], first_epoch: int = 0, epoch_above: int = 0
    ) -> Published:
        """Read, change, write if nobody else wrote; then again."""
        for left in range(MAX_TRIES - 1, -1, -1):
            before, found = self._catalogue()
            models = change(before)
            if found is not None and models == before.models and before.epoch > epoch_above:
                return self._published(before, changed=False)
            epoch = before.epoch + 1 if found is not None else max(1, first_epoch)
            after = mf.Catalogue(max(epoch, epoch_above + 1), models)
            raw = changes.encoded(after)
            self._check_served(before.models, models)
            if found is not None:
                # Going back looks a few epochs far, so that behind a jump it lies below it too.
                for epoch in sorted({before.epoch, after.epoch - 1}):
                    self._origin.put(f"catalogs/{epoch}.json", found.raw)
            try:
                self._origin.replace("catalog.json", raw, found)
            except ChangedError:
                if not left:
                    raise
            else:
                return self._published(after, changed=True)
        raise AssertionError("the last try returns or raises")

    def _published(self, catalogue: mf.Catalogue, *, changed: bool) -> Published:
        return Published(catalogue.epoch, changed, catalogue.models, self._uploaded, self._uploaded_bytes)

    def _check_served(self, before: Models, after: Models) -> None:
        """What is newly served must be in the origin, whole."""
        for name, model in after.items():
            digest = model.versions[model.current]
            if name in before and before[name].versions.get(before[name].current) == digest:
                continue
            found = self._manifest(digest)
            absent = found is None or any(
                self._origin.size_bytes(f"blobs/{file.blake3}") != file.size_bytes for file in found.files
            )
            if absent:
                version = f"version {model.current} of {name}"
                raise _wrong(f"{version} is not whole in the origin; push it again from its store")

    # --- what is behind it

    def _manifest(self, digest: str) -> mf.Manifest | None:
        try:
            raw = self._origin.small(f"manifests/{digest}.json", mf.MANIFEST_MAX_BYTES)
        except OriginError as error:
            if error.missing:
                return None
            raise
        return None if raw is None else mf.decode(raw.raw, expect_digest=digest)

    def _send_version(self, store: Path, digest: str) -> None:
        """One version's blobs, then its manifest; what is there already is not sent."""
        raw = _read_local(store / "manifests" / f"{digest}.json")
        for file in mf.decode(raw, expect_digest=digest).files:
            path = f"blobs/{file.blake3}"
            if not self._has(file):
                self._report.begins(f"{file.name} {file.blake3[:12]}", file.size_bytes)
                self._send_blob(store / path, path, file)
                self._uploaded += 1
                self._uploaded_bytes += file.size_bytes
        path = f"manifests/{digest}.json"
        held = self._read(path) if self._origin.size_bytes(path) == len(raw) else None
        if held is None or held.raw != raw:
            self._origin.put(path, raw)

    def _has(self, file: mf.BlobFile) -> bool:
        """Is this blob in the origin, as far as `verify` wants to know?"""
        path = f"blobs/{file.blake3}"
        if self._origin.size_bytes(path) != file.size_bytes:
            return False
        if not self._verify:
            return True
        self._report.begins(f"verify {file.name} {file.blake3[:12]}", file.size_bytes)
        whole = blake3()
        for start in range(0, file.size_bytes, _VERIFIED_BYTES):
            end = min(start + _VERIFIED_BYTES, file.size_bytes)
            for buffer in self._origin.range(path, start, end, object_bytes=file.size_bytes):
                whole.update(buffer)
                self._report.moved(len(buffer))
        return whole.hexdigest() == file.blake3

    def _send_blob(self, source: Path, path: str, file: mf.BlobFile) -> None:
        for left in range(MAX_TRIES - 1, -1, -1):
            pieces = self._pieces(source, file)
            try:
                # In parts only what is large: a small object is one request instead of three.
                small = file.size_bytes <= SINGLE_PUT_BYTES
                self._origin.put(path, b"".join(pieces) if small else pieces, file.size_bytes)
            except OriginError as error:
                if error.lasting or self._stop.is_set() or not left:
                    raise
                self._report.begins(f"{file.name} {file.blake3[:12]} again", file.size_bytes)
            else:
                return

    def _pieces(self, source: Path, file: mf.BlobFile) -> Iterator[bytes]:
        """The blob's bytes; raises before the last of them is taken when they are not what they should be."""
        whole, size = blake3(), 0
        try:
            with source.open("rb") as opened:
                held = b""
                while piece := opened.read(_PIECE_BYTES):
                    if self._stop.is_set():
                        raise OriginError(
                            "stopped: nothing is served that was not served before", lasting=True
                        )
                    whole.update(piece)
                    size += len(piece)
                    if held:
                        yield held
                        self._report.moved(len(held))
                    held = piece
                if size != file.size_bytes or whole.hexdigest() != file.blake3:
                    raise _wrong(f"{source} is damaged: its content is not what its name says; make it again")
                yield held
                self._report.moved(len(held))
        except OSError as error:
            raise _wrong(f"{source}: {error.strerror}; make the models again") from error


def _local_catalogue(store: Path) -> mf.Catalogue:
    path = store / "catalog.json"
    if not path.exists():
        raise _wrong(f"{path} is not there; give the folder that `python -m models make` wrote")
    return mf.decode_catalogue(_read_local(path))


def _read_local(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _wrong(f"{path}: {error.strerror}; make the models again") from error


def _wrong(text: str) -> EdgeError:
    return EdgeError(Reason.BAD_REQUEST, text, source=Source.DOWNSTREAM)
