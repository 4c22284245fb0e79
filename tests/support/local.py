"""A weight store and a worker as real processes on sockets that outlive them, and a LocalWorker over both."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.background import Background
from edge.config import Weights, Worker
from edge.errors import EdgeError
from edge.fleet.own import OwnWorker
from edge.policy.facts import Rates, Tier
from edge.proxy.estimates import Estimates
from edge.proxy.models import Models
from edge.proxy.worker import LocalWorker
from edge.weights import manifest as mf
from edge.wire import calls, states
from edge.wire.dial import Dialer
from edge.wire.link import Link
from tests.support.wait import wait_until
from tests.support.weights import PROGRAM as WEIGHTS
from tests.support.worker import digest_of, infer_head, oip_body

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import logging, sys
import msgspec
from edge.worker.app import WorkerBoot, main
logging.basicConfig(level="INFO", stream=sys.stderr)
main(msgspec.json.decode(sys.argv[1], type=WorkerBoot))
"""


MIB = 1 << 20
CONFIG = Worker(device_bytes="100MiB", hard_limit=8)


class Child:
    """One program on one listening socket: started, killed, started again; clients wait in the backlog."""

    def __init__(self, folder: Path, name: str, program: str) -> None:
        self.path = str(folder / f"{name}.sock")
        self.log = folder / f"{name}.log"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.process: subprocess.Popen[bytes] | None = None
        self._program = program
        self._parent: socket.socket | None = None

    def start(self, **boot: Any) -> None:
        self._parent, theirs = socket.socketpair()
        fds = {"listen_fd": self.listener.fileno(), "parent_fd": theirs.fileno()}
        with theirs, self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", self._program, msgspec.json.encode({**boot, **fds}).decode()],
                pass_fds=tuple(fds.values()),
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """As a machine does it: no goodbye."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self._parent is not None:
            self._parent.close()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        self.listener.close()


class Children:
    """One store and one worker for all tests of a module; a test that killed one has the next start it."""

    def __init__(self, folder: Path, config: Worker) -> None:
        self.folder = folder
        self.config = config
        self.origin = folder / "origin"
        for name in ("blobs", "manifests"):
            (self.origin / name).mkdir(parents=True)
        self.store = Child(folder, "weights", WEIGHTS)
        self.worker = Child(folder, "worker", WORKER)

    def start(self) -> None:
        """What does not run."""
        if not self.store.running:
            self.start_store()
        if not self.worker.running:
            self.start_worker()

    def start_store(self, **settings: Any) -> None:
        weights = Weights(**{"store": str(self.folder / "store"), "origin": self.origin.as_uri(), **settings})
        self.store.start(node="n", weights=weights)

    def start_worker(self) -> None:
        self.worker.start(
            index=0,
            worker=self.config,
            blobs_dir=str(self.folder / "store" / "blobs"),
            max_body_bytes=16 * 1024 * 1024,
            served_by="n/0",
        )

    def close(self) -> None:
        self.worker.close()
        self.store.close()


class Local:
    """The node: `publish` models, then claim them on `worker`."""

    def __init__(self, children: Children) -> None:
        self.children = children
        self.config = children.config
        self.background = Background()
        self.hydrated: list[tuple[str, str, int]] = []
        self.store = Dialer(
            "n/weights",
            unix_path=children.store.path,
            greet=self._greet,
            on_lost=lambda: None,
            connect_timeout_s=5.0,
        )
        self.models = Models(self.store)
        self.endpoint = own(self.config)
        self.worker = self.local_worker(self.endpoint)

    def local_worker(self, endpoint: OwnWorker, path: str = "", **more: Any) -> LocalWorker:
        return LocalWorker(
            "n/0",
            self.config,
            path or self.children.worker.path,
            endpoint=endpoint,
            store=self.store,
            models=self.models,
            spawn=self.background.spawn,
            on_hydrated=lambda model, source, moved, _: self.hydrated.append((model, source, moved)),
            nearest=lambda digest: (Tier.ORIGIN, 0),
            estimates=Estimates(Rates, dict),
            max_body_bytes=16 * 1024 * 1024,
            **more,
        )

    async def _greet(self, link: Link) -> None:
        await link.request(calls.Status(), timeout_s=30.0)
        self.worker.hold_all_again()

    def publish(self, manifest: mf.Manifest) -> str:
        """Its blobs are in the origin already, see tests.support.tiny; the digest."""
        raw = mf.encode(manifest)
        digest = mf.digest(raw)
        (self.children.origin / "manifests" / f"{digest}.json").write_bytes(raw)
        return digest

    def published(
        self, make: Callable[..., mf.Manifest], needs_mib: int = 0, **options: Any
    ) -> tuple[mf.Manifest, str]:
        """A model of `tests.support.tiny` that says it needs so much of the device, and its digest."""
        manifest = make(self.blobs, **options)
        if needs_mib:
            manifest = msgspec.structs.replace(manifest, device_bytes=needs_mib * MIB)
        return manifest, self.publish(manifest)

    @property
    def blobs(self) -> Path:
        return self.children.origin / "blobs"

    async def load(self, manifest: mf.Manifest) -> None:
        """On the device, and used by nobody."""
        entry = self.worker.claim(digest_of(manifest), manifest.name)
        try:
            await self.worker.ensure(entry, 30_000)
        finally:
            self.worker.unclaim(entry)

    async def infer(self, manifest: mf.Manifest, *rows: Any) -> Any:
        link = self.worker.dialer.shared()
        reply = await link.request(infer_head(manifest), oip_body(manifest, rows), timeout_s=30)
        return reply.head

    async def on_device(self) -> dict[str, int]:
        """digest -> bytes, as the worker itself says."""
        reply = await self.worker.dialer.shared().request(calls.Status(), timeout_s=5)
        state = states.worker_state(reply.head, await reply.whole())
        return {model.digest: model.device_bytes for model in state.models}

    async def held(self) -> dict[str, int]:
        """digest -> holds, as the store itself says; models without any are left out."""
        reply = await self.store.shared().request(calls.Status(), timeout_s=5)
        state = states.weights_state(reply.head, await reply.whole())
        return {model.digest: model.holds for model in state.models if model.holds}

    async def wait_until_held(self, *digests: str) -> None:
        """Exactly one hold on each, and none besides."""
        wanted = dict.fromkeys(digests, 1)

        async def agreed() -> bool:
            try:
                return await self.held() == wanted
            except EdgeError:
                # The store is on its way back.
                return False

        await wait_until(agreed)


async def refused(awaitable: Awaitable[object]) -> EdgeError:
    """The error that it ends with."""
    with pytest.raises(EdgeError) as caught:
        await awaitable
    return caught.value


def own(config: Worker, changed: Callable[[], None] = lambda: None) -> OwnWorker:
    """The fleet's side of the worker."""
    return OwnWorker(
        "n/0",
        device="cpu",
        device_bytes=0,
        soft_limit=config.soft_limit,
        hard_limit=config.hard_limit,
        capacity_freed=lambda: None,
        changed=changed,
    )


@contextlib.asynccontextmanager
async def tasks(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """`work` runs for the length of the block."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one) for one in work]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


@contextlib.asynccontextmanager
async def local(children: Children) -> AsyncIterator[Local]:
    """A node whose store and worker are up; nothing is on the device before and after."""
    children.start()
    node = Local(children)
    async with tasks(node.store.run(), node.worker.run()):
        try:
            await wait_until(lambda: node.worker.was_up.is_set() and not node.store.last_error, within_s=30)
            yield node
        finally:
            await node.background.close()
            children.store.thaw()
            children.worker.thaw()
            if children.worker.running and node.worker.dialer.link is not None:
                for digest in await node.on_device():
                    await node.worker.dialer.shared().request(calls.Unload(digest=digest), timeout_s=10)
