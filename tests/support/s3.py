"""As much of S3 as a publisher and a node use, in memory: objects, ranges, conditions, multipart.

Signatures are not looked at. `refuse` makes it answer writes with a status, `says` everything with
a status and a word; `meanwhile` runs once before the next conditional write, as a second publisher would.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "models"


class S3:
    """One bucket; `objects` by key."""

    def __init__(self, port: int) -> None:
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.writes: list[str] = []
        #: Bytes of the parts of each upload.
        self.uploads: list[list[int]] = []
        self.refuse: int | None = None
        self.says: tuple[int, str] | None = None
        self.meanwhile: Callable[[], None] | None = None
        self.url = f"s3://{BUCKET}"
        self.environment = {
            "AWS_ENDPOINT": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
        }


def _etag(raw: bytes) -> str:
    return f'"{hashlib.sha256(raw).hexdigest()[:32]}"'


class Answering(BaseHTTPRequestHandler):
    """Answers with a whole body, and keeps the connection."""

    protocol_version = "HTTP/1.1"

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Handler(Answering):
    store: S3

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        url = urlsplit(self.path)
        return unquote(url.path).removeprefix(f"/{BUCKET}/"), parse_qs(url.query, keep_blank_values=True)

    def do_GET(self) -> None:
        key, _ = self._asked()
        if self._refused():
            return None
        raw = self.store.objects.get(key)
        if raw is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        headers = {"ETag": _etag(raw), "Last_Modified": "Tue, 24 Nov 2026 00:00:00 GMT"}
        if self.headers.get("If-None-Match") == headers["ETag"]:
            return self._answer(304, **headers)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and self.command == "GET":
            first, last = int(wanted[1]), min(int(wanted[2]), len(raw) - 1)
            told = f"bytes {first}-{last}/{len(raw)}"
            return self._answer(206, raw[first : last + 1], Content_Range=told, **headers)
        return self._answer(200, raw, **headers)

    do_HEAD = do_GET  # noqa: N815 -- http.server calls it so

    def _refused(self) -> bool:
        if self.store.says is not None:
            status, word = self.store.says
            self._answer(status, f"<Error><Code>{word}</Code><Message>no</Message></Error>".encode())
            return True
        if self.store.refuse is None or self.command in ("GET", "HEAD"):
            return False
        self._answer(self.store.refuse, b"<Error><Code>Refused</Code><Message>no</Message></Error>")
        return True

    def do_PUT(self) -> None:
        key, query = self._asked()
        body = self._body()
        if self._refused():
            return None
        if "partNumber" in query:
            self.store.parts[query["uploadId"][0]][int(query["partNumber"][0])] = body
            return self._answer(200, ETag=_etag(body))
        match, none_match = self.headers.get("If-Match"), self.headers.get("If-None-Match")
        if (match or none_match) and self.store.meanwhile is not None:
            meanwhile, self.store.meanwhile = self.store.meanwhile, None
            meanwhile()
        held = self.store.objects.get(key)
        if none_match == "*" and held is not None:
            return self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        if match is not None and (held is None or _etag(held) != match):
            return self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        self.store.objects[key] = body
        self.store.writes.append(key)
        return self._answer(200, ETag=_etag(body))

    def do_POST(self) -> None:
        key, query = self._asked()
        self._body()
        if self._refused():
            return None
        if "uploads" in query:
            upload = f"u{len(self.store.parts)}"
            self.store.parts[upload] = {}
            told = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return self._answer(200, told.encode())
        parts = self.store.parts.pop(query["uploadId"][0])
        self.store.objects[key] = b"".join(part for _, part in sorted(parts.items()))
        self.store.uploads.append([len(part) for _, part in sorted(parts.items())])
        self.store.writes.append(key)
        told = (
            f"<CompleteMultipartUploadResult><Location>/</Location><Bucket>{BUCKET}</Bucket><Key>{key}</Key>"
            f"<ETag>{_etag(self.store.objects[key])}</ETag></CompleteMultipartUploadResult>"
        )
        return self._answer(200, told.encode())

    def do_DELETE(self) -> None:
        _, query = self._asked()
        self.store.parts.pop(query.get("uploadId", [""])[0], None)
        self._answer(204)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            raw = b""
            while size := int(self.rfile.readline(), 16):
                raw += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return raw
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server calls it so
        """Say nothing."""


@contextmanager
def running_s3() -> Iterator[S3]:
    """An empty bucket on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    store = S3(server.server_address[1])
    server.RequestHandlerClass = type("Handler", (_Handler,), {"store": store})
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
