"""A real worker process for tests, as the parent starts one but with the test's own rights."""

import asyncio
import contextlib
import gzip
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edge.config import Worker
from edge.weights import manifest as mf
from edge.wire import calls, states
from edge.wire.exchange import Reply
from edge.wire.link import Link
from edge.worker.app import WorkerBoot

_START = (
    "import logging, sys, msgspec; logging.basicConfig(level='INFO');"
    "from edge.worker.app import WorkerBoot, main;"
    "main(msgspec.json.decode(sys.argv[1], type=WorkerBoot))"
)
ROOT = Path(__file__).resolve().parents[2]


class Process:
    """One worker; `parent` is the parent's end of its socket, whose end it must notice."""

    def __init__(
        self, folder: Path, config: Worker, *, program: str = _START, blobs: Path | None = None
    ) -> None:
        """Socket and log lie in `folder`, and the blobs too unless they are elsewhere."""
        self.folder = folder
        self.path = str(folder / "worker.sock")
        self.log = folder / "worker.log"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(16)
        self.parent, child = socket.socketpair()
        boot = WorkerBoot(
            index=0,
            worker=config,
            blobs_dir=str(blobs or folder),
            listen_fd=listener.fileno(),
            parent_fd=child.fileno(),
            max_body_bytes=16 * 1024 * 1024,
            served_by="iad-b/0",
        )
        with listener, child, self.log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-c", program, msgspec.json.encode(boot).decode()],
                pass_fds=(listener.fileno(), child.fileno()),
                stderr=log,
                cwd=ROOT,
            )

    def close(self) -> None:
        self.parent.close()
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.send_signal(signal.SIGKILL)
            self.popen.wait()
            raise AssertionError(f"the worker outlived its parent:\n{self.log.read_text()}") from None

    def anonymous_bytes(self) -> int:
        """Private memory that is no file's."""
        rollup = Path(f"/proc/{self.popen.pid}/smaps_rollup").read_text()
        line = next(line for line in rollup.splitlines() if line.startswith("Anonymous:"))
        return int(line.split()[1]) * 1024


class Client:
    """A proxy's side of a link."""

    def __init__(self, link: Link) -> None:
        self.link = link

    async def load(self, manifest: mf.Manifest, *, deadline_ms: float = 30_000) -> Any:
        raw = mf.encode(manifest)
        head = calls.Load(mf.digest(raw), deadline_ms=deadline_ms)
        return (await self.link.request(head, raw, timeout_s=30)).head

    async def unload(self, manifest: mf.Manifest) -> Any:
        return (await self.link.request(calls.Unload(digest_of(manifest)), timeout_s=30)).head

    async def state(self) -> Any:
        reply = await self.link.request(calls.Status(), timeout_s=5)
        return states.worker_state(reply.head, await reply.whole())

    async def infer(self, manifest: mf.Manifest, *rows: Any, **head: Any) -> "Answer":
        """Ask over OIP JSON; one row per item."""
        return Answer.of(
            await self.link.request(infer_head(manifest, **head), oip_body(manifest, rows), timeout_s=30)
        )


class Answer(NamedTuple):
    """A decoded reply: its head and the outputs by name."""

    head: Any
    outputs: dict[str, Any]

    @classmethod
    def of(cls, reply: Reply) -> "Answer":
        assert isinstance(reply.head, calls.Inferred)
        body = gzip.decompress(reply.body) if reply.head.content_encoding == "gzip" else reply.body
        return cls(reply.head, {output["name"]: output["data"] for output in json.loads(body)["outputs"]})


def digest_of(manifest: mf.Manifest) -> str:
    return mf.digest(mf.encode(manifest))


def infer_head(manifest: mf.Manifest, **fields: Any) -> calls.Infer:
    return calls.Infer(manifest.name, manifest.version, digest_of(manifest), **fields)


def oip_body(manifest: mf.Manifest, rows: Sequence[Any]) -> bytes:
    (spec,) = manifest.inputs
    shape = [len(rows), *spec.shape[1:]] if spec.shape else []
    document = {"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": list(rows)}
    return json.dumps({"inputs": [document]}).encode()


@contextlib.asynccontextmanager
async def connected(process: Process, *, exclusive: bool = False) -> AsyncIterator[Client]:
    """A link to the worker, which may still be starting."""
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(lambda: Link(exclusive=exclusive), process.path)
    try:
        yield Client(link)
    finally:
        link.close()
