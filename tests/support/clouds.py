"""As much of Google's and Azure's object stores as a publisher and a node use: a stand-in of the tests' own.

GET, HEAD, ranges, and PUT under a condition, as their documents say; no signatures, no uploads in parts. No
emulator of either is installed with the tests, so what a real one does beside this is not known here.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from tests.support.s3 import Answering

CONTAINER = "models"
ACCOUNT = "devstoreaccount1"


class Cloud(NamedTuple):
    """A running one: the origin's URL, what a node finds in its environment, and objects by key."""

    url: str
    environment: dict[str, str]
    objects: dict[str, bytes]
    #: Status and word that everything is answered with, if any.
    says: list[tuple[int, str]]


class _Handler(Answering):
    objects: dict[str, bytes]
    says: list[tuple[int, str]]

    def _refuse(self, status: int, word: str) -> None:
        self._answer(status, f"<Error><Code>{word}</Code><Message>no</Message></Error>".encode())

    def _key(self) -> str:
        path = unquote(urlsplit(self.path).path)
        return path.removeprefix(f"/{ACCOUNT}").removeprefix(f"/{CONTAINER}/")

    def _marks(self, raw: bytes) -> dict[str, str]:
        tag = hashlib.sha256(raw).hexdigest()[:16]
        return {
            "ETag": f'"{tag}"',
            "x-goog-generation": str(int(tag[:12], 16) + 1),
            "Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT",
        }

    def do_GET(self) -> None:  # noqa: N802 -- http.server calls it so
        if self.says:
            return self._refuse(*self.says[0])
        raw = self.objects.get(self._key())
        if raw is None:
            return self._refuse(404, "NoSuchKey")
        marks = self._marks(raw)
        if self.headers.get("If-None-Match") == marks["ETag"]:
            return self._answer(304, **marks)
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2]), len(raw) - 1)
            told = f"bytes {first}-{last}/{len(raw)}"
            return self._answer(206, raw[first : last + 1], Content_Range=told, **marks)
        return self._answer(200, raw, **marks)

    do_HEAD = do_GET  # noqa: N815 -- http.server calls it so

    def do_PUT(self) -> None:  # noqa: N802 -- http.server calls it so
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.says:
            return self._refuse(*self.says[0])
        held = self.objects.get(self._key())
        marks = self._marks(held) if held is not None else {"ETag": "", "x-goog-generation": "0"}
        wanted = self.headers.get("x-goog-if-generation-match")
        changed = wanted is not None and wanted != marks["x-goog-generation"]
        changed |= "If-Match" in self.headers and self.headers["If-Match"] != marks["ETag"]
        if changed:
            return self._refuse(412, "ConditionNotMet")
        if "If-None-Match" in self.headers and held is not None:
            return self._refuse(409, "BlobAlreadyExists")
        self.objects[self._key()] = body
        return self._answer(201, **self._marks(body))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server calls it so
        """Say nothing."""


@contextmanager
def cloud(kind: str, directory: Path) -> Iterator[Cloud]:
    """`gs` or `az`."""
    objects: dict[str, bytes] = {}
    says: list[tuple[int, str]] = []
    handler = type("Handler", (_Handler,), {"objects": objects, "says": says})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    if kind == "gs":
        account = directory / "account.json"
        who = {"client_email": "tests", "private_key": "", "private_key_id": ""}
        account.write_text(json.dumps({"gcs_base_url": endpoint, "disable_oauth": True, **who}))
        environment = {"GOOGLE_SERVICE_ACCOUNT": str(account)}
    else:
        environment = {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(b"tests").decode(),
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": endpoint,
        }
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Cloud(f"{kind}://{CONTAINER}/lab", environment, objects, says)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
