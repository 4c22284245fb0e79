"""Real nodes on loopback: `popctl serve` as a user starts it, a file origin, plain HTTP requests.

Nothing is replaced: a node made here is the whole process tree with its own rights, when
the tests run as root, and without them otherwise.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge.weights.manifest import Catalogue, encode_catalogue
from netlab.clock import DeadlineMissed, wait_until
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / "models" / "store"


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Node:
    """One running node."""

    def __init__(
        self, directory: Path, name: str, port: int, process: subprocess.Popen[bytes], log: Path
    ) -> None:
        self.directory = directory
        self.name = name
        self.port = port
        self.process = process
        self._log = log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every line of the node's log that is JSON."""
        lines = []
        for line in self._log.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                lines.append(json.loads(line))
        return lines

    @property
    def log_text(self) -> str:
        return self._log.read_text()

    def request(
        self,
        path: str,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        *,
        method: str | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        """GET, or POST when there is a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, fields, answer.read())
        finally:
            connection.close()

    def admin(self, path: str, *, method: str = "GET") -> Answer:
        """One request to the node's admin UNIX socket."""
        connection = http.client.HTTPConnection("admin", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self.directory / "run" / "admin.sock"))
            connection.request(method, path)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    @property
    def state(self) -> Any:
        return self.admin("/edge/state").json

    def child(self, role: str) -> int:
        """The pid of a child of the tree, as in "proxy" or "worker-0"."""
        found = [child for child in self.state["tree"]["children"] if child["role"] == role]
        assert found, f"no child {role} in {self.state['tree']}"
        return int(found[0]["pid"])

    def kill(self, role: str) -> int:
        """kill -9 of a child; its pid."""
        pid = self.child(role)
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop(self) -> int:
        """SIGTERM to the parent, and its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(20)


def config_text(
    directory: Path,
    name: str,
    port: int,
    *,
    origin: str,
    workers: Sequence[str] = ("device: cpu",),
    extra: str = "",
    pop: str = "one",
    region: str = "us",
) -> str:
    """A node.yaml; `extra` are further top-level sections, `workers` the lines of each worker."""
    listed = "".join(f"\n  - {textwrap.indent(worker, '    ').strip()}" for worker in workers)
    return (
        textwrap.dedent(f"""\
        node: {name}
        pop: {pop}
        region: {region}
        run_dir: {directory}/run
        weights:
          store: {directory}/store
          origin: {origin}
        """)
        + (f"workers:{listed}\n" if listed else "")
        + (extra if "public:" in extra else f'public:\n  listen: ["127.0.0.1:{port}"]\n{extra}')
    )


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that the uids of a node's children can reach; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="edgepop-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@contextlib.contextmanager
def empty_origin() -> Iterator[str]:
    """One that publishes nothing: a node that can read this much is ready, and does not wait for more."""
    with open_directory() as directory:
        (directory / "catalog.json").write_bytes(encode_catalogue(Catalogue(epoch=1, models={})))
        yield f"file://{directory}/"


@contextlib.contextmanager
def running_node(
    *,
    name: str = "one-a",
    origin: str | None = None,
    workers: Sequence[str] = ("device: cpu",),
    extra: str = "",
    pop: str = "one",
    region: str = "us",
    port: int | None = None,
    wait_ready: bool = True,
) -> Iterator[Node]:
    """A node that is ready, in a directory of its own; afterwards its processes and files are gone."""
    if origin is None and not (STORE / "catalog.json").exists():
        pytest.skip("models/store is empty: run `make models`")
    with (
        open_directory() as directory,
        _running(
            directory,
            name,
            origin or f"file://{STORE}/",
            workers,
            extra,
            pop,
            region,
            port or free_port(),
            wait_ready=wait_ready,
        ) as node,
    ):
        yield node


@contextlib.contextmanager
def _running(
    directory: Path,
    name: str,
    origin: str,
    workers: Sequence[str],
    extra: str,
    pop: str,
    region: str,
    port: int,
    *,
    wait_ready: bool,
) -> Iterator[Node]:
    config = directory / "node.yaml"
    config.write_text(
        config_text(
            directory, name, port, origin=origin, workers=workers, extra=extra, pop=pop, region=region
        )
    )
    log = directory / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("popctl")), "serve", "-c", str(config)],
            stdout=sink,
            stderr=sink,
            cwd=ROOT,
            start_new_session=True,
        )
    node = Node(directory, name, port, process, log)
    try:
        if wait_ready:
            ready = directory / "run" / "ready"
            try:
                wait_until(
                    lambda: ready.exists() or process.poll() is not None, f"{name} is ready", within_s=40
                )
            except DeadlineMissed as missed:
                pytest.fail(f"{missed}; its log:\n{node.log_text[-3000:]}")
            assert process.poll() is None, f"{name} ended:\n{node.log_text[-3000:]}"
        yield node
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
                raise
