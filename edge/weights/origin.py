"""The object store of record, through obstore: the only file that knows that library.

Ranges of a plain HTTP origin come straight from the socket (`edge.weights.rawhttp`), unless it redirects.

Blocking calls, to be made from threads. Every failure to get or put the bytes, whatever the
store or the network calls it, is EdgeError(ORIGIN_DOWN): 503, worth another try. Knows paths and
byte ranges; what the bytes mean, and whether they are right, is checked by its callers. Nodes
only read; `put` and `replace` are for who publishes. The library obeys HTTP_PROXY and its kin,
for loopback too: whoever starts a node decides on those.
"""

import contextlib
import fcntl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    NotModifiedError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from edge.errors import EdgeError, Reason, Source
from edge.weights.rawhttp import RawHttp, Refused, Resized, serves
from edge.weights.refusal import code, cure, reason

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, PutMode, UpdateVersion
    from obstore.store import ObjectStore

CONNECT_TIMEOUT_MS: Final = 2_000
#: No byte for this long and the range is tried again; also what a clean stop may have to wait for.
READ_TIMEOUT_MS: Final = 2_000
RETRY_AFTER_S: Final = 2
#: What S3 answers where AWS_ENDPOINT has no such bucket.
_NO_BUCKET: Final = "NoSuchBucket"
_NO_RIGHTS: Final = "AccessDenied"
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_FILE_BUFFER_BYTES: Final = 1024 * 1024
_COMPARED_BYTES: Final = 16 * 1024 * 1024
#: S3 takes no part below 5 MiB, and 10,000 of them.
PART_BYTES: Final = 5 * 1024 * 1024
MAX_PARTS: Final = 9_000
#: As many parts at a time as the library sends by itself, and no more than this of them in memory.
_PARTS_AT_ONCE: Final = 12
_PARTS_BYTES: Final = 256 * 1024 * 1024


class OriginError(EdgeError):
    """ORIGIN_DOWN; `missing`: it answers, but has no such object; `lasting`: don't ask again at once."""

    def __init__(self, message: str, *, missing: bool = False, lasting: bool = False) -> None:
        super().__init__(
            Reason.ORIGIN_DOWN, message, source=Source.UPSTREAM, retryable=True, retry_after_s=RETRY_AFTER_S
        )
        self.missing = missing
        self.lasting = missing or lasting


class ChangedError(OriginError):
    """Somebody else wrote the object since it was read."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} in the origin was changed by somebody else meanwhile", lasting=True)


class Object(NamedTuple):
    """A small object whole, its ETag if the store has them, and its version where the store counts."""

    raw: bytes
    etag: str | None
    version: str | None = None


class Origin:
    """One origin by URL: `http(s)://`, `s3://`, `gs://`, `az://` or `file://`.

    `request_timeout_ms` bounds one request; `stop` ends all of them within `read_timeout_ms`, which
    must also be enough to send a part of an upload.
    """

    def __init__(
        self,
        url: str,
        *,
        request_timeout_ms: int,
        stop: threading.Event,
        read_timeout_ms: int = READ_TIMEOUT_MS,
    ) -> None:
        self.url = url.rstrip("/")
        self._read_timeout_ms = read_timeout_ms
        self._timeout_ms = request_timeout_ms
        self._stop = stop
        self._store: ObjectStore | None = None
        self._raw = (
            RawHttp(
                url, read_timeout_s=read_timeout_ms / 1000.0, request_timeout_s=request_timeout_ms / 1000.0
            )
            if serves(url)
            else None
        )
        # A stream yields what has arrived as soon as it has this many bytes. From a network that is
        # 1, so that a slow sender can be watched (buffers of ~350 KB all the same, measured); a local
        # file would come in 8 KiB pieces.
        self._buffer_bytes = _FILE_BUFFER_BYTES if url.startswith("file:") else 1

    def small(self, path: str, max_bytes: int, etag: str | None = None) -> Object | None:
        """A whole object of at most `max_bytes`; None if it still is the one with that `etag`.

        Raises OriginError, also for an object that is larger.
        """
        options: GetOptions = {"if_none_match": etag} if etag else {}
        try:
            result = self._get(path, options)
            raw = bytearray()
            for buffer in result.stream(min_chunk_size=self._buffer_bytes):
                raw += buffer
                self._check_stop(path)
                if len(raw) > max_bytes:
                    raise OriginError(f"{path} in the origin exceeds {max_bytes} bytes")
            return Object(bytes(raw), result.meta["e_tag"], result.meta["version"])
        except NotModifiedError:
            return None
        except (BaseError, OSError, ValueError) as error:
            raise _down(path, error, self.url) from error

    def range(self, path: str, start: int, end: int, *, object_bytes: int) -> Iterator[bytes | memoryview]:
        """Bytes `start` up to `end` of an object of `object_bytes`, in buffers as they arrive.

        Each buffer is good until the next one. Raises OriginError: no answer, another size, another
        range, fewer bytes than promised.
        """
        if self._raw is not None:
            return self._raw_range(self._raw, path, start, end, object_bytes)
        return self._library_range(path, start, end, object_bytes)

    def _raw_range(
        self, raw: RawHttp, path: str, start: int, end: int, object_bytes: int
    ) -> Iterator[bytes | memoryview]:
        self._check_stop(path)
        try:
            for buffer in raw.range(path, start, end, object_bytes):
                self._check_stop(path)
                if buffer:
                    yield buffer
        except Resized as error:
            raise _resized(path, error.size_bytes, object_bytes) from error
        except Refused as error:
            if error.status not in _REDIRECTS:
                raise _refused(path, error.status) from error
            # It redirects: the library follows, from here on.
            self._raw = None
            yield from self._library_range(path, start, end, object_bytes)
        except OSError as error:
            raise _down(path, error, self.url) from error

    def _library_range(self, path: str, start: int, end: int, object_bytes: int) -> Iterator[bytes]:
        try:
            result = self._get(path, {"range": (start, end)})
            size = result.meta["size"]
            if size != object_bytes:
                raise _resized(path, size, object_bytes)
            at = start
            for buffer in result.stream(min_chunk_size=self._buffer_bytes):
                at += len(buffer)
                self._check_stop(path)
                if at > end:
                    raise OriginError(f"the origin sent more of {path} than bytes {start} to {end}")
                yield buffer
            if at != end:
                raise OriginError(f"the origin sent {at - start} of {end - start} bytes of {path}")
        except (BaseError, OSError, ValueError) as error:
            raise _down(path, error, self.url) from error

    def size_bytes(self, path: str) -> int | None:
        """How large an object is; None if it is not there. Raises OriginError."""
        self._check_stop(path)
        try:
            return obstore.head(self._open(), path)["size"]
        except (FileNotFoundError, NotFoundError):
            return None
        except (BaseError, OSError, ValueError) as error:
            raise _down(path, error, self.url) from error

    def put(self, path: str, content: bytes | Iterator[bytes], size_bytes: int = 0) -> None:
        """Write an object whole: readers see the old one or the new one. Raises OriginError.

        What the iterator raises passes through, and nothing is written then. `size_bytes` is how much it
        will give: what is large goes in larger parts.
        """
        self._put(path, content, None, part_bytes(size_bytes))

    def replace(self, path: str, raw: bytes, before: Object | None) -> None:
        """Write a small object if it still is what `before` says (None: not there).

        Raises ChangedError when it is not; OriginError. A folder can't compare and write in one step:
        there the lock is taken that `python -m models` takes too.
        """
        if self.url.startswith("file:"):
            with self._folder_lock():
                self._replace_unless_changed(path, raw, before)
            return
        try:
            if before is None:
                self._put(path, raw, "create")
            elif before.etag is not None or before.version is not None:
                unchanged: UpdateVersion = {}
                if before.etag is not None:
                    unchanged["e_tag"] = before.etag
                if before.version is not None:
                    unchanged["version"] = before.version
                self._put(path, raw, unchanged)
            else:
                self._replace_unless_changed(path, raw, before)
        except NotImplementedError:
            self._replace_unless_changed(path, raw, before)

    def _replace_unless_changed(self, path: str, raw: bytes, before: Object | None) -> None:
        try:
            held = self.small(path, _COMPARED_BYTES)
        except OriginError as error:
            if not error.missing:
                raise
            held = None
        if (held and held.raw) != (before and before.raw):
            raise ChangedError(path)
        self._put(path, raw, None)

    @contextlib.contextmanager
    def _folder_lock(self) -> Iterator[None]:
        root = Path(unquote(urlsplit(self.url).path))
        try:
            with (root / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield
        except BlockingIOError as error:
            raise OriginError(f"somebody else publishes into {root} now; wait until that is done") from error
        except OSError as error:
            raise _unwritten(f"{root}/.lock", error, self.url) from error

    def _put(
        self, path: str, content: bytes | Iterator[bytes], mode: "PutMode | None", part: int = PART_BYTES
    ) -> None:
        self._check_stop(path)
        at_once = max(1, min(_PARTS_AT_ONCE, _PARTS_BYTES // part))
        try:
            obstore.put(self._open(), path, content, mode=mode, chunk_size=part, max_concurrency=at_once)
        except (AlreadyExistsError, PreconditionError) as error:
            raise ChangedError(path) from error
        except NotImplementedError:
            raise
        except (BaseError, OSError, ValueError) as error:
            raise _unwritten(path, error, self.url) from error

    def _get(self, path: str, options: "GetOptions") -> "GetResult":
        self._check_stop(path)
        return obstore.get(self._open(), path, options=options)

    def _open(self) -> "ObjectStore":
        if self._store is None:
            # Made on first use, as a file:// origin may not be there yet. Two threads may both make
            # one; either is as good. No retries in the library: ours see `stop` and count.
            self._store = from_url(
                self.url,
                client_options={
                    "allow_http": True,
                    "http1_only": True,
                    "connect_timeout": timedelta(milliseconds=CONNECT_TIMEOUT_MS),
                    "read_timeout": timedelta(milliseconds=self._read_timeout_ms),
                    "timeout": timedelta(milliseconds=self._timeout_ms),
                },
                retry_config={"max_retries": 0},
            )
        return self._store

    def _check_stop(self, path: str) -> None:
        if self._stop.is_set():
            raise OriginError(f"{path} was not fetched: the node stops")


def part_bytes(size_bytes: int) -> int:
    """How large the parts of an object are, so that they are not too many."""
    return max(PART_BYTES, -(-size_bytes // MAX_PARTS))


def _no_bucket(url: str) -> OriginError:
    text = f"{url} is not there: make that bucket or folder first, or correct the origin's URL"
    return OriginError(text, lasting=True)


def _resized(path: str, size_bytes: int, object_bytes: int) -> OriginError:
    return OriginError(
        f"{path} in the origin has {size_bytes} bytes, its manifest says {object_bytes}; publish it again",
        lasting=True,
    )


def _refused(path: str, status: int) -> OriginError:
    match status:
        case 404 | 410:
            return OriginError(f"{path} is not in the origin", missing=True)
        case 200:
            return OriginError(f"the origin answers a Range request for {path} with the whole object")
        case 401 | 403:
            return OriginError(f"the origin refuses {path}: check its credentials", lasting=True)
        case _:
            return OriginError(f"{path} could not be fetched from the origin: it answers {status}")


def _down(path: str, error: Exception, url: str) -> OriginError:
    if _NO_BUCKET in str(error):
        return _no_bucket(url)
    if isinstance(error, FileNotFoundError | NotFoundError):
        return OriginError(f"{path} is not in the origin", missing=True)
    if isinstance(error, NotSupportedError):
        return OriginError(f"the origin answers a Range request for {path} with the whole object")
    helps = cure(str(error))
    if helps or isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return OriginError(f"the origin refuses {path}: {helps or 'check its credentials'}", lasting=True)
    return OriginError(f"{path} could not be fetched from the origin: {reason(str(error))}")


def _unwritten(path: str, error: Exception, url: str) -> OriginError:
    helps, why = cure(str(error)), reason(str(error))
    if helps or isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        rights = helps if helps and code(str(error)) != _NO_RIGHTS else "check the rights of who publishes"
        return OriginError(f"the origin refuses to take {path}: {rights}", lasting=True)
    if url.startswith(("http:", "https:")):
        return OriginError(
            f"{url} does not take {path}: {why}; most HTTP origins can only be read: give the URL of "
            "the store behind it (s3://, gs://, az:// or file://)",
            lasting=True,
        )
    if isinstance(error, FileNotFoundError | NotFoundError):
        return _no_bucket(url)
    return OriginError(f"{path} could not be written to the origin: {why}")
