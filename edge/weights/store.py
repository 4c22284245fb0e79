"""The store on disk: its layout, what a start finds there, and how files come and go.

    node.json  catalog.json  pins.json  uses.json
    manifests/<digest>.json  blobs/<digest>  ingest/<digest>/  quarantine/

Blobs are regular files of mode 0444 with one name, never written again: they go by unlink
only, as shortening a file that a worker has mapped kills that worker. Every method blocks
and is called from threads; each key (a path in the store) is touched by one of them at a
time, which is the caller's promise. Knows nothing of budgets, holds or origins.
"""

import contextlib
import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edge import clock
from edge.errors import EdgeError, Reason
from edge.weights.budget import Shelf, shelf_of
from edge.weights.ingest import Ingest, called, disk_error, file_digest, keep_names
from edge.weights.layout import DIRECTORIES, Found, blob_key, manifest_key, seals_in, sizes_in
from edge.weights.manifest import (
    CATALOGUE_MAX_BYTES,
    MANIFEST_MAX_BYTES,
    BlobFile,
    Manifest,
    decode,
)
from edge.weights.pagecache import ask_for
from edge.weights.slowread import SlowReader
from edge.weights.unlinked import Evicted, Gone, Unlinked

LAYOUT: Final = 1
PINS_MAX_BYTES: Final = 1024 * 1024
USES_MAX_BYTES: Final = 1024 * 1024
#: A blob that is found bad more often replaces the last of them.
QUARANTINE_MAX_COPIES: Final = 16
LOCK_WAIT_S: Final = 5.0

log = logging.getLogger(__name__)


class Store:
    """One node's store. `open` before, `close` after everything else."""

    def __init__(self, root: Path, node: str) -> None:
        self.root = root
        self._node = node
        self._root_fd = -1
        self.unlinked = Unlinked()
        self._seen_ns = (0, 0)
        #: Whoever reads blobs for long reads them with this, and is in nobody's way.
        self.reader = SlowReader()
        #: Blobs on their way in, by digest.
        self.ingests: dict[str, Ingest] = {}

    # --- start and end

    def open(self) -> Found:
        """Take the store for this process alone and see what is in it.

        Removes only what is known to be worthless: unfinished small files and empty ingests.
        Raises EdgeError(INTERNAL) when the store can't be used, with what to do about it; a store
        that another process has is waited for, LOCK_WAIT_S at most.
        """
        try:
            self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._root_fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._lock()
            for name in DIRECTORIES:
                directory = self.root / name
                directory.mkdir(exist_ok=True)
                # The umask may be narrow, but workers of another uid read blobs.
                directory.chmod(0o755)
            stopped_ns = self._stopped_ns()
            clean = self._begin()
            return self._look(clean=clean, stopped_ns=stopped_ns)
        except OSError as error:
            where = error.filename or self.root
            raise EdgeError(
                Reason.INTERNAL,
                f"weights.store {self.root} can't be used: {where}: {error.strerror}; "
                "it must be a directory that the weights user may write",
            ) from error

    def _lock(self) -> None:
        until_s = clock.now_s() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._root_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if clock.now_s() >= until_s:
                    raise EdgeError(
                        Reason.INTERNAL,
                        f"weights.store {self.root} is in use by another process; give each node its own",
                    ) from error
                # One whose parent was killed lets go by itself within this time.
                threading.Event().wait(0.05)
            else:
                return

    def _begin(self) -> bool:
        """Was the last stop a clean one? From now on this run is not, until `close`."""
        # Without its marker a store with blobs in it is one that was started while its disk was full.
        clean = not any((self.root / "blobs").iterdir())
        with contextlib.suppress(FileNotFoundError):
            try:
                record = json.loads((self.root / "node.json").read_bytes())
                clean = record["clean"] is True
                layout = record["layout"]
            except (ValueError, KeyError, TypeError):
                clean, layout = False, LAYOUT
            if layout != LAYOUT:
                raise EdgeError(
                    Reason.INTERNAL,
                    f"weights.store {self.root} has layout {layout}, this version reads {LAYOUT}; "
                    "move it away, it will be fetched again",
                )
        try:
            self._mark(clean=False)
        except EdgeError as error:
            if error.reason is not Reason.NO_SPACE:
                raise
            # What lies here can be served all the same; no marker says what this one would.
            log.warning("%s", error.message)
            (self.root / "node.json").unlink(missing_ok=True)
        return clean

    def _stopped_ns(self) -> int:
        """When the last run said its last word."""
        try:
            return (self.root / "node.json").lstat().st_ctime_ns
        except FileNotFoundError:
            return 0

    def _mark(self, *, clean: bool) -> None:
        record = {"layout": LAYOUT, "node": self._node, "clean": clean}
        self._write_small("node.json", json.dumps(record, sort_keys=True).encode())

    def _look(self, *, clean: bool, stopped_ns: int) -> Found:
        for directory in (self.root, self.root / "manifests", self.root / "quarantine"):
            for leftover in directory.glob("*.tmp"):
                leftover.unlink()
        self._drop_empty_ingests()
        sizes = sizes_in(self.root)
        manifests: dict[str, Manifest] = {}
        for key in [key for key in sizes if shelf_of(key) is Shelf.MANIFESTS]:
            digest = key.removeprefix("manifests/").removesuffix(".json")
            try:
                manifests[digest] = decode(self._read(key, MANIFEST_MAX_BYTES), expect_digest=digest)
            except EdgeError as error:
                log.warning("a manifest on disk is unusable and goes: %s", error.message)
                self.remove(key)
                del sizes[key]
        catalogue = self._read("catalog.json", CATALOGUE_MAX_BYTES) if "catalog.json" in sizes else None
        pins = self._read("pins.json", PINS_MAX_BYTES) if "pins.json" in sizes else None
        uses = self._read("uses.json", USES_MAX_BYTES) if "uses.json" in sizes else None
        blobs = [key.removeprefix("blobs/") for key in sizes if shelf_of(key) is Shelf.BLOBS]
        seals = {digest: at_ns for digest, at_ns in self.seals(blobs).items() if at_ns <= stopped_ns}
        return Found(sizes, manifests, catalogue, clean, seals, pins, uses)

    def _drop_empty_ingests(self) -> None:
        """A crash between rename and tidying leaves a journal without data."""
        for directory in (self.root / "ingest").iterdir():
            if directory.is_dir() and not directory.is_symlink() and not (directory / "data").exists():
                self._discard(directory)

    def close(self, *, clean: bool) -> None:
        """Let go of the store; `clean` says that nothing was under way."""
        self.unlinked.close()
        self.reader.end()
        if self._root_fd >= 0:
            try:
                if clean:
                    self._mark(clean=True)
            except EdgeError as error:
                log.warning("blobs are verified at the next start: %s", error.message)
            os.close(self._root_fd)
            self._root_fd = -1

    # --- small files

    def read_manifest(self, digest: str) -> bytes:
        """A manifest's bytes, unchecked. Raises EdgeError(INTERNAL) if it can't be read."""
        return self._read(manifest_key(digest), MANIFEST_MAX_BYTES)

    def write_manifest(self, digest: str, raw: bytes) -> None:
        """Keep a manifest. Raises EdgeError(NO_SPACE) or INTERNAL."""
        self._write_small(manifest_key(digest), raw)

    def write_catalogue(self, raw: bytes) -> None:
        """Keep the catalogue in place of the one before."""
        self._write_small("catalog.json", raw)

    def write_pins(self, raw: bytes) -> None:
        """Keep the list of pins in place of the one before."""
        self._write_small("pins.json", raw)

    def write_uses(self, raw: bytes) -> None:
        """Keep how often models were used in place of what was kept before."""
        self._write_small("uses.json", raw)

    def _read(self, key: str, max_bytes: int) -> bytes:
        try:
            with (self.root / key).open("rb") as file:
                return file.read(max_bytes + 1)
        except OSError as error:
            raise disk_error(error, f"read {key}") from error

    def _write_small(self, key: str, raw: bytes) -> None:
        path = self.root / key
        temporary = path.with_name(path.name + ".tmp")
        try:
            with temporary.open("wb") as file:
                file.write(raw)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            temporary.rename(path)
            keep_names(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise disk_error(error, f"write {key}") from error

    def size_bytes(self, key: str) -> int:
        """Bytes that a file or an unfinished blob takes now; 0 if it is not there."""
        path = self.root / key
        try:
            return sum(inner.lstat().st_size for inner in (path.iterdir() if path.is_dir() else [path]))
        except FileNotFoundError:
            return 0

    # --- blobs

    def blob_path(self, digest: str) -> Path:
        """Where a blob lies."""
        return self.root / blob_key(digest)

    def open_ingest(self, file: BlobFile) -> Ingest:
        """Begin or go on with a blob. Raises EdgeError(NO_SPACE): then nothing of it is left."""
        directory = self.root / "ingest" / file.blake3
        try:
            ingest = Ingest(directory, file, lambda: self.ingests.pop(file.blake3, None))
        except EdgeError:
            self._discard(directory)
            raise
        except OSError as error:
            told = disk_error(error, f"begin {called(file)}")
            if told.reason is Reason.NO_SPACE:
                self._discard(directory)
            raise told from error
        self.ingests[file.blake3] = ingest
        return ingest

    def commit(self, ingest: Ingest) -> None:
        """A blob is whole and right: under its name at once, durable after `settle`.

        Who waits for it need not wait for the disk: what an unclean stop leaves is verified before use.
        """
        ingest.seal()
        try:
            ingest.data_path.rename(self.blob_path(ingest.file.blake3))
        except OSError as error:
            raise disk_error(error, f"commit {called(ingest.file)}") from error
        try:
            self._discard(ingest.directory)
        except OSError as error:
            # A start removes a journal without data.
            log.warning("%s is left over: %s", ingest.directory, error.strerror)

    def seals(self, digests: Iterable[str]) -> dict[str, int]:
        """When each of these blobs changed last: one that is as it was when it was verified is verified."""
        return seals_in(self.root, digests)

    def verify(self, digest: str) -> bool:
        """Does the blob hold what its name says? Reads all of it."""
        try:
            return file_digest(self.blob_path(digest)) == digest
        except OSError:
            return False

    def warm(self, digest: str) -> None:
        """Ask the kernel to read a blob into the page cache, ahead of the worker that maps it."""
        ask_for(self.blob_path(digest))

    def quarantine(self, key: str, digest: str) -> str:
        """Set a bad blob or unfinished blob aside, whole; returns its new key, "" if it is not there.

        One that lies there already stays: it may be mapped, and its bytes are in the book.
        """
        kept = f"quarantine/{digest}"
        for number in range(1, QUARANTINE_MAX_COPIES):
            if not (self.root / kept).exists():
                break
            kept = f"quarantine/{digest}~{number}"
        source = self.root / key
        data = source / "data" if source.is_dir() else source
        if _is_gone(data):
            return ""
        try:
            with self.reader.kept_off(data):
                data.rename(self.root / kept)
            if data != source:
                self._discard(source)
            keep_names(self.root / "quarantine")
        except OSError as error:
            raise disk_error(error, f"set {key} aside") from error
        return kept

    def quarantine_chunk(self, file: BlobFile, index: int) -> str:
        """Set aside the bytes that came for one chunk of an unfinished blob; returns the key of the copy."""
        kept = f"quarantine/{file.blake3}.{index}"
        try:
            with (self.root / "ingest" / file.blake3 / "data").open("rb") as data:
                data.seek(index * file.chunk_bytes)
                raw = data.read(min(file.chunk_bytes, file.size_bytes - index * file.chunk_bytes))
        except OSError as error:
            raise disk_error(error, f"read a bad chunk of {file.blake3}") from error
        self._write_small(kept, raw)
        return kept

    # --- going

    def changed(self) -> bool:
        """Has a blob, or what was set aside, come or gone since this was asked last? By anybody."""
        before = self._seen_ns
        self._seen_ns = _changed_ns(self.root / "blobs"), _changed_ns(self.root / "quarantine")
        return before != self._seen_ns

    def removed(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Those of these files that are not there."""
        return tuple(key for key in keys if _is_gone(self.root / key))

    def evict(self, keys: tuple[str, ...]) -> list[Evicted]:
        """Unlink files that nobody holds; never shortens one."""
        return [self._evict(key) for key in keys]

    def _evict(self, key: str) -> Evicted:
        try:
            # A worker may still map what was set aside under it.
            if shelf_of(key) in (Shelf.BLOBS, Shelf.QUARANTINE):
                with self.reader.kept_off(self.root / key):
                    return self.unlinked.unlink(key, self.root / key)
            self.remove(key)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s can't be evicted and stays: %s", key, error.strerror)
            return Evicted(key, Gone.IN_USE)
        return Evicted(key, Gone.FREED)

    def sweep(self) -> tuple[str, ...]:
        """Names of lingering bytes whose last user has gone since: they are free now."""
        return self.unlinked.sweep()

    def remove(self, key: str) -> None:
        """Remove a file or an unfinished blob that nobody uses; it may be gone already."""
        path = self.root / key
        if path.is_dir() and not path.is_symlink():
            self._discard(path)
        else:
            path.unlink(missing_ok=True)

    def _discard(self, directory: Path) -> None:
        for name in ("data", "journal"):
            with contextlib.suppress(FileNotFoundError):
                (directory / name).unlink()
        with contextlib.suppress(OSError):
            directory.rmdir()


def _changed_ns(shelf: Path) -> int:
    """When a shelf changed last; one that somebody removed whole is put up again."""
    with contextlib.suppress(OSError):
        if _is_gone(shelf):
            shelf.mkdir()
            shelf.chmod(0o755)
        return shelf.lstat().st_mtime_ns
    return 0


def _is_gone(path: Path) -> bool:
    """A disk that can't tell says no."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
