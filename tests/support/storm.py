"""Fetches under seeded faults: sources over real sockets that do everything wrong, and a disk that lies.

What goes wrong depends on the seed, the source, the chunk and how often it was asked for there: the same
seed brings the same faults, whatever the threads do. `storm` fails if a wrong byte is committed, or
if more than what went wrong is fetched again.
"""

import contextlib
import random
import re
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from edge.errors import EdgeError
from edge.policy.fetch_plan import HEDGES
from edge.weights.fetch import Choice, Limits, Meter, fetch_blob
from edge.weights.ingest import Ingest
from edge.weights.manifest import BlobFile
from edge.weights.origin import Origin
from edge.weights.sources import ORIGIN, Kind, Site
from edge.weights.store import Store
from tests.support.blobs import blob_file, content_digest

#: As long as a rate can be measured with.
CHUNK: Final = 64 * 1024
CHUNKS: Final = 128
SITES: Final = (*(Site(Kind.REGION, name) for name in "abcd"), ORIGIN)
AT_A_TIME: Final = 5
LIMITS: Final = Limits(parallel=16, min_bytes_per_s=1, watch_ms=20_000)
#: kind -> how likely in one answer. What takes time is rare, so that a thousand fit into seconds.
WIRE: Final = {
    "flip": 0.09,
    "swapped": 0.06,
    "short": 0.06,
    "whole": 0.05,
    "5xx": 0.06,
    "other-range": 0.04,
    "no-answer": 0.04,
    "stall": 0.008,
    "drip": 0.008,
}
#: Of one write to the disk: it says that all was well.
DISK: Final = {"disk-flip": 0.01, "torn": 0.01}
_RANGE: Final = re.compile(rb"Range: bytes=([0-9]+)-([0-9]+)")


class Weather:
    """What goes wrong, and how often it did. Shared by threads."""

    def __init__(self, seed: str) -> None:
        self.done: Counter[str] = Counter()
        #: Answers that were as they should be.
        self.right = 0
        self.over = threading.Event()
        self._seed = seed
        self._asked: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()

    def fault(self, where: str, at: int, kinds: dict[str, float]) -> tuple[str, random.Random]:
        """What happens there now; '' for nothing. It is counted."""
        with self._lock:
            self._asked[where, at] += 1
            dice = random.Random(f"{self._seed}/{where}/{at}/{self._asked[where, at]}")
            throw = dice.random()
            for kind, share in kinds.items():
                throw -= share
                if throw < 0.0:
                    self.done[kind] += 1
                    return kind, dice
            if where != "disk":
                self.right += 1
            return "", dice


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, site: Site, content: bytes, weather: Weather) -> None:
        self.site = site
        self.content = content
        self.weather = weather
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while self._one():
                pass

    def _one(self) -> bool:
        """Answer one request; False ends the connection."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline(4096)
            if not line:
                return False
            head += line
        wanted = _RANGE.search(head)
        assert wanted is not None
        start, end = int(wanted[1]), int(wanted[2]) + 1
        content, weather = self.server.content, self.server.weather
        kind, dice = weather.fault(self.server.site.name, start, WIRE)
        body, span = bytearray(content[start:end]), (start, end - 1)
        if kind == "flip":
            body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
        elif kind == "swapped":
            other = dice.randrange(CHUNKS) * CHUNK
            body = bytearray(content[other : other + len(body)].ljust(len(body), b"?"))
            if other == start:
                body.reverse()
        elif kind == "other-range":
            span = (start + 1, end)
        match kind:
            case "no-answer":
                return False
            case "5xx":
                self._send("503 Busy", b"", "")
            case "whole":
                self._send("200 OK", content, "")
                return False
            case "short" | "stall" | "drip":
                cut = dice.randrange(len(body))
                self._send("206 Partial Content", body[:cut], self._span(span), len(body))
                if kind == "stall":
                    weather.over.wait(20.0)
                elif kind == "drip":
                    while not weather.over.wait(0.05):
                        self.wfile.write(body[cut : cut + 1])
                        cut += 1
                return False
            case _:
                self._send("206 Partial Content", body, self._span(span))
        return True

    def _span(self, span: tuple[int, int]) -> str:
        return f"Content-Range: bytes {span[0]}-{span[1]}/{len(self.server.content)}\r\n"

    def _send(self, status: str, body: bytes | bytearray, more: str, length: int | None = None) -> None:
        length = len(body) if length is None else length
        self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n".encode() + body)


@contextlib.contextmanager
def _serving(content: bytes, weather: Weather) -> Iterator[dict[Site, str]]:
    """All sources; their URLs."""
    with contextlib.ExitStack() as stack:
        urls = {}
        for site in SITES:
            server = stack.enter_context(_Server(site, content, weather))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            urls[site] = f"http://127.0.0.1:{server.server_address[1]}/"
        stack.callback(weather.over.set)
        yield urls


class BadDisk(Store):
    """A store whose disk now and then keeps something else than what was written, and says nothing."""

    weather: Weather

    def open_ingest(self, file: BlobFile) -> Ingest:
        ingest = super().open_ingest(file)
        write: Callable[[int, Any], None] = ingest.write

        def badly(at: int, buffer: bytes | memoryview) -> None:
            kind, dice = self.weather.fault("disk", at, DISK)
            if kind == "disk-flip":
                changed = bytearray(buffer)
                changed[dice.randrange(len(changed))] ^= 1
                buffer = bytes(changed)
            elif kind == "torn":
                buffer = memoryview(buffer)[: len(buffer) // 2]
            if buffer:
                write(at, buffer)

        ingest.write = badly  # type: ignore[method-assign] # the disk of this store
        return ingest


def trial(root: Path, seed: str) -> Counter[str]:
    """One blob; what went wrong by kind. Fails if it is not right in the end, or cost too much."""
    content = random.Random(seed).randbytes(CHUNKS * CHUNK - 17)
    file = blob_file("weights", content, chunk_bytes=CHUNK)
    weather = Weather(seed)
    store = BadDisk(root, "n")
    store.weather = weather
    store.open()
    choice, stop = Choice(), threading.Event()
    try:
        with _serving(content, weather) as urls:
            feeds = {site: Origin(url, request_timeout_ms=20_000, stop=stop) for site, url in urls.items()}
            # One through the library, as from an object store.
            feeds[SITES[1]]._raw = None
            gave_up = _until_here(file, store, feeds, choice, stop)
        assert content_digest(store.blob_path(file.blake3)) == file.blake3, seed
        done = weather.done
        disk = done["disk-flip"] + done["torn"]
        # Each right answer was needed, but for those that overtook another.
        spare = disk + done["stall"] + done["drip"] + HEDGES * (1 + gave_up)
        assert weather.right <= CHUNKS + spare, (seed, weather.right, done)
        return done
    finally:
        stop.set()
        choice.close()
        store.close(clean=True)


def _until_here(
    file: BlobFile, store: Store, feeds: dict[Site, Origin], choice: Choice, stop: threading.Event
) -> int:
    """Attempts that gave up first: one chunk had met too much; what was good is not fetched again."""
    for attempt in range(5):
        try:
            fetch_blob(file, store, feeds, choice, LIMITS, Meter(), stop)
        except EdgeError:
            assert not store.blob_path(file.blake3).exists()
        else:
            return attempt
    raise AssertionError("five attempts gave up")


def storm(directory: Path, seed: int, faults: int) -> Counter[str]:
    """So many faults, in as many fetches as it takes, a few at a time: they mostly wait."""
    done: Counter[str] = Counter()
    number = 0
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        while done.total() < faults:
            seeds = [f"{seed}-{number + ahead}" for ahead in range(AT_A_TIME)]
            number += AT_A_TIME
            for one in pool.map(lambda name: trial(directory / name, name), seeds):
                done += one
    assert set(done) == {*WIRE, *DISK}, "each kind of fault came"
    return done
