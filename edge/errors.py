"""What went wrong, whose fault it was, and whether it may be tried again.

`Reason` is the one word that travels from where a thing failed to the client's header,
the log record, the metric's label and the test's name. `STATUS` is the only map from a
reason to an HTTP status. Nothing else in the tree chooses a status for a failure.
"""

from enum import StrEnum
from typing import Final


class Source(StrEnum):
    """Whose fault: the client's, the side towards the GPU, or our own."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    INTERNAL = "internal"


class Reason(StrEnum):
    """Why a request was refused or failed; one token for header, metric, log and test."""

    # the client's request
    BAD_REQUEST = "bad-request"
    BAD_INPUT = "bad-input"
    UNKNOWN_MODEL = "unknown-model"
    UNKNOWN_OBJECT = "unknown-object"
    UNKNOWN_PATH = "unknown-path"
    BAD_METHOD = "bad-method"
    MISDIRECTED = "misdirected"
    TIMEOUT_REQUEST = "request-timeout"
    TOO_LARGE = "too-large"
    URI_TOO_LONG = "uri-too-long"
    HEADERS_TOO_LARGE = "headers-too-large"
    BAD_MEDIA_TYPE = "bad-media-type"
    BAD_EXPECTATION = "bad-expectation"
    NOT_IMPLEMENTED = "not-implemented"
    BAD_VERSION = "bad-version"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    CLIENT_GONE = "client-gone"
    # capacity: it exists but is contended
    SATURATED = "saturated"
    QUEUE_FULL = "queue-full"
    QUEUE_TIMEOUT = "queue-timeout"
    BUSY = "busy"
    RATE_LIMITED = "rate-limited"
    CONNECTIONS = "too-many-connections"
    # none can serve now
    NO_ENDPOINT = "no-endpoint"
    CONFINED = "confined"
    REGION = "region-unavailable"
    COLD_REFUSED = "cold-refused"
    DRAINING = "draining"
    LAST_ONE = "last-one"
    NO_CATALOGUE = "no-catalogue"
    NO_MEMORY = "no-memory"
    NO_SPACE = "no-space"
    ORIGIN_DOWN = "origin-down"
    BLOB_CORRUPT = "blob-corrupt"
    LOAD_FAILED = "load-failed"
    WORKER_LOST = "worker-lost"
    LINK_LOST = "link-lost"
    # time and loops
    DEADLINE = "deadline"
    LOOP = "loop"
    # ours
    INFER_FAILED = "infer-failed"
    PROTOCOL = "protocol"
    INTERNAL = "internal"


STATUS: Final[dict[Reason, int]] = {
    Reason.BAD_REQUEST: 400,
    Reason.BAD_INPUT: 400,
    Reason.UNAUTHENTICATED: 401,
    Reason.FORBIDDEN: 403,
    Reason.UNKNOWN_MODEL: 404,
    Reason.UNKNOWN_OBJECT: 404,
    Reason.UNKNOWN_PATH: 404,
    Reason.BAD_METHOD: 405,
    Reason.TIMEOUT_REQUEST: 408,
    Reason.TOO_LARGE: 413,
    Reason.URI_TOO_LONG: 414,
    Reason.BAD_MEDIA_TYPE: 415,
    Reason.BAD_EXPECTATION: 417,
    Reason.MISDIRECTED: 421,
    Reason.SATURATED: 429,
    Reason.QUEUE_FULL: 429,
    Reason.QUEUE_TIMEOUT: 429,
    Reason.BUSY: 429,
    Reason.RATE_LIMITED: 429,
    Reason.HEADERS_TOO_LARGE: 431,
    Reason.CLIENT_GONE: 499,
    Reason.INFER_FAILED: 500,
    Reason.PROTOCOL: 502,
    Reason.INTERNAL: 500,
    Reason.NOT_IMPLEMENTED: 501,
    Reason.CONNECTIONS: 503,
    Reason.NO_ENDPOINT: 503,
    Reason.CONFINED: 503,
    Reason.REGION: 503,
    Reason.COLD_REFUSED: 503,
    Reason.DRAINING: 503,
    Reason.LAST_ONE: 503,
    Reason.NO_CATALOGUE: 503,
    Reason.NO_MEMORY: 503,
    Reason.NO_SPACE: 503,
    Reason.ORIGIN_DOWN: 503,
    Reason.BLOB_CORRUPT: 503,
    Reason.LOAD_FAILED: 503,
    Reason.WORKER_LOST: 503,
    Reason.LINK_LOST: 503,
    Reason.DEADLINE: 504,
    Reason.BAD_VERSION: 505,
    Reason.LOOP: 508,
}


class EdgeError(Exception):
    """A failure that knows its reason, its source and its answer to "again?".

    `retryable` is True only where repeating can change the outcome and the failed
    attempt is known not to have produced an answer.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        source: Source = Source.INTERNAL,
        retryable: bool = False,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.source = source
        self.retryable = retryable
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """The HTTP status this error is answered with."""
        return STATUS[self.reason]

    def __repr__(self) -> str:
        return f"EdgeError({self.reason}, {self.message!r}, {self.source}, retryable={self.retryable})"


def bad_input(message: str) -> EdgeError:
    """The client's body or tensors are wrong: 400, never tried again."""
    return EdgeError(Reason.BAD_INPUT, message, source=Source.DOWNSTREAM)
