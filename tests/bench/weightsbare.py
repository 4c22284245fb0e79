"""The same bytes without us: `python -m tests.bench.weightsbare transfer|naive URL BYTES FILE [GRAPH]`.

`transfer` is what a link allows: parallel ranges straight into a preallocated map, nothing checked, nothing
loaded. `naive` is what most do: the same transfer, then a hash of the whole file, then a session with ONNX
Runtime's defaults and its first run. One JSON line tells the seconds of each part, imports not counted.
Knows nothing of edge.
"""

import hashlib
import json
import mmap
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import onnxruntime

from netlab.clock import now_s

CONNECTIONS: Final = 4
RANGE_BYTES: Final = 8 << 20


def _range(at: socket.socket, host: str, path: str, start: int, into: memoryview) -> None:
    """One range into its place. Raises ConnectionError unless it is a 206 of exactly these bytes."""
    end = start + len(into) - 1
    at.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nRange: bytes={start}-{end}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = at.recv(65_536)
        if not piece:
            raise ConnectionError("the origin closed")
        head += piece
    head, _, body = head.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 206 "):
        raise ConnectionError(f"the origin answered {head[:60]!r}")
    into[: len(body)] = body
    got = len(body)
    while got < len(into):
        count = at.recv_into(into[got:])
        if not count:
            raise ConnectionError("the origin closed")
        got += count


def transfer(url: str, size: int, path: Path) -> None:
    """`size` bytes of `url` lie in `path`, in the page cache."""
    parts = urlsplit(url)
    address, host = (parts.hostname or "", parts.port or 80), parts.netloc
    starts = iter(range(0, size, RANGE_BYTES))
    lock = threading.Lock()
    failed: list[Exception] = []
    with path.open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        with mmap.mmap(file.fileno(), size) as mapped, memoryview(mapped) as whole:

            def work() -> None:
                try:
                    with socket.create_connection(address) as at:
                        while True:
                            with lock:
                                start = next(starts, None)
                            if start is None:
                                return
                            with whole[start : min(start + RANGE_BYTES, size)] as into:
                                _range(at, host, parts.path, start, into)
                except (OSError, ValueError) as error:
                    failed.append(error)

            threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    if failed:
        raise failed[0]


def hashed(path: Path) -> str:
    """SHA-256 of a file, as registries name their files."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def answered(graph: Path, folder: Path, question: list[float]) -> Any:
    """A session with all defaults beside its weights, and its first answer."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = onnxruntime.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])
    (first,) = session.run(None, {"x": np.array([question], np.float32)})
    return first


def main(arguments: list[str]) -> None:
    """Measure one way and print it."""
    way, url, size, path = arguments[0], arguments[1], int(arguments[2]), Path(arguments[3])
    question = json.load(sys.stdin) if way == "naive" else []
    told: dict[str, Any] = {}
    began_s = now_s()
    transfer(url, size, path)
    told["transfer_s"] = now_s() - began_s
    if way == "naive":
        at_s = now_s()
        told["sha256"] = hashed(path)
        told["hash_s"] = now_s() - at_s
        at_s = now_s()
        first = answered(Path(arguments[4]), path.parent, question)
        told["session_s"] = now_s() - at_s
        told["answer"] = first.ravel().tolist()
    told["total_s"] = now_s() - began_s
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:])
