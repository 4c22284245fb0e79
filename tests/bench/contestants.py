"""The servers of the bench: started, checked, loaded, and gone afterwards.

Each is a real process with a log file of its own. They all run from the first round to the
last, since starting one between two points would heat the machine for its neighbour.
"""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edge.config import Users, Worker
from edge.limits import HttpLimits
from edge.parent.jail import Cell
from edge.weights import manifest as mf
from tests.bench import load_frames, workload, wrk
from tests.bench.wrk import Load
from tests.support.node import ROOT, STORE, running_node

_START_S: Final = 40
_STOP_S: Final = 15

#: (connections, seconds) -> what was seen.
Loader = Callable[[int, int], Load]
#: Raise WrongAnswer unless each of these is answered right; many are asked at once.
Asker = Callable[[Sequence[Sequence[float]]], None]


class Contestant(NamedTuple):
    """One server. `pid` is the root of its processes, None when the load is all there is."""

    name: str
    connections: tuple[int, ...]
    pid: int | None
    ask: Asker
    load: Loader


class Published(NamedTuple):
    """The identity model in models/store."""

    digest: str
    manifest: bytes
    graph: Path


def published() -> Published:
    """What `make models` left. Raises FileNotFoundError without it."""
    model = mf.decode_catalogue((STORE / "catalog.json").read_bytes()).models[workload.MODEL]
    digest = model.versions[model.current]
    raw = (STORE / "manifests" / f"{digest}.json").read_bytes()
    graph = mf.decode(raw, expect_digest=digest).file("graph").blake3
    return Published(digest, raw, STORE / "blobs" / graph)


# -- by name -----------------------------------------------------------------------------------


@contextlib.contextmanager
def direct(_directory: Path, model: Published) -> Iterator[Contestant]:
    """`session.run` in a process of its own per point."""

    def load(_connections: int, seconds: int) -> Load:
        return _child_load("load_direct", str(model.graph), str(seconds), seconds=seconds)

    yield Contestant("direct", (0,), None, lambda _: None, load)


@contextlib.contextmanager
def frames(directory: Path, model: Published, counts: tuple[int, ...]) -> Iterator[Contestant]:
    """The worker process as the node's parent starts it: own uid, no network, its socket handed over."""
    path = str(directory / "worker.sock")
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_UNIX) as listener, _log(directory, "frames") as log:
        listener.bind(path)
        listener.listen(64)
        process = _start_worker(listener.fileno(), theirs.fileno(), log)
        # Its heartbeats are read and forgotten, so that they never fill the pipe.
        threading.Thread(target=_swallow, args=(ours,), daemon=True).start()
        theirs.close()
        try:
            asyncio.run(load_frames.load_model(path, model.digest, model.manifest))

            def load(connections: int, seconds: int) -> Load:
                told = (path, model.digest, str(connections), str(seconds))
                return _child_load("load_frames", *told, seconds=seconds)

            def ask(many: Sequence[Sequence[float]]) -> None:
                asyncio.run(load_frames.ask(path, model.digest, many))

            yield Contestant("frames", counts, process.pid, ask, load)
        finally:
            _stop(process, signal.SIGTERM)


@contextlib.contextmanager
def door(directory: Path, counts: tuple[int, ...]) -> Iterator[Contestant]:
    """The front door with one answer for everything: only that one can be checked."""
    with _python_server(directory, "door", "tests.bench.serve_door") as (pid, port):

        def ask(many: Sequence[Sequence[float]]) -> None:
            _ask_http("door", port, [workload.FIXED for _ in many])

        yield _http("door", counts, pid, port, directory, ask)


@contextlib.contextmanager
def node(directory: Path, counts: tuple[int, ...]) -> Iterator[Contestant]:
    """`popctl serve` with one CPU worker and models/store as its origin."""
    with running_node() as running:
        # A second name for its log: the node takes its directory with it when it ends.
        (directory / "node.log").hardlink_to(running.directory / "log")
        yield _http("node", counts, running.process.pid, running.port, directory)


@contextlib.contextmanager
def plain(directory: Path, model: Published, counts: tuple[int, ...], loop: str) -> Iterator[Contestant]:
    """`aiohttp.web` with the model inline, on asyncio's loop or uvloop's."""
    name = "aiohttp" if loop == "asyncio" else f"aiohttp-{loop}"
    with _python_server(directory, name, "tests.bench.serve_plain", str(model.graph), loop) as (pid, port):
        yield _http(name, counts, pid, port, directory)


# -- parts -------------------------------------------------------------------------------------


def _http(
    name: str, counts: tuple[int, ...], pid: int, port: int, directory: Path, ask: Asker | None = None
) -> Contestant:
    """A server on loopback, loaded by wrk with the bytes it gave to a question that was checked."""
    question = workload.question(workload.FIXED)
    expected = _ask_http(name, port, [workload.FIXED])[0]
    script = directory / f"{name}.lua"
    script.write_text(wrk.script(question, expected))
    url = f"http://127.0.0.1:{port}{workload.PATH}"

    def ask_many(many: Sequence[Sequence[float]]) -> None:
        _ask_http(name, port, many)

    return Contestant(
        name, counts, pid, ask or ask_many, lambda c, seconds: wrk.run(name, url, script, c, seconds)
    )


def _ask_http(name: str, port: int, many: Sequence[Sequence[float]]) -> list[bytes]:
    """Each question on a connection of its own, all at once; the bodies, checked."""

    def one(values: Sequence[float]) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=wrk.TIMEOUT_S)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", workload.PATH, workload.question(values), headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        workload.check(name, answer.status, body, values)
        return body

    with ThreadPoolExecutor(min(len(many), load_frames.AT_ONCE)) as pool:
        return list(pool.map(one, many))


def _child_load(module: str, *arguments: str, seconds: int) -> Load:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{module}", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=seconds + _START_S,
        check=False,
    )
    if done.returncode != 0:
        raise workload.WrongAnswer(f"{module} failed: {done.stderr[-2000:]}")
    told = json.loads(done.stdout)
    return Load(told["answers"], told["seconds"], told["p50_us"], told["cpu_s"])


@contextlib.contextmanager
def _log(directory: Path, name: str) -> Iterator[int]:
    with (directory / f"{name}.log").open("wb") as file:
        yield file.fileno()


@contextlib.contextmanager
def _python_server(directory: Path, name: str, module: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """A server module of this package: pid and port; it ends when its stdin does."""
    with _log(directory, name) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            told = process.stdout.readline()
            if not told:
                raise RuntimeError(
                    f"{name} did not start:\n{(directory / f'{name}.log').read_text()[-2000:]}"
                )
            yield process.pid, int(told)
        finally:
            process.stdin.close()
            _stop(process, None)
            process.stdout.close()


def _start_worker(listen_fd: int, parent_fd: int, log: int) -> subprocess.Popen[bytes]:
    cell = Cell(Users().worker, network=False, readable=(str(STORE),))
    told = {
        "index": 0,
        "worker": Worker(),
        "blobs_dir": str(STORE / "blobs"),
        "listen_fd": listen_fd,
        "parent_fd": parent_fd,
        "max_body_bytes": HttpLimits().max_body_bytes,
        "served_by": "bench/0",
    }
    envelope = msgspec.msgpack.encode({"cell": cell, "log_level": "info", "boot": told})
    boot = os.memfd_create("boot")
    try:
        os.write(boot, envelope)
        return subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "edge.parent.child",
                "worker",
                "--boot-fd",
                str(boot),
                "--of",
                "bench",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=(boot, listen_fd, parent_fd),
            start_new_session=True,
        )
    finally:
        os.close(boot)


def _swallow(pipe: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while pipe.recv(65_536):
            pass


def _stop(process: subprocess.Popen[bytes], number: signal.Signals | None) -> None:
    """Ask, wait, and kill what does not go."""
    if number is not None and process.poll() is None:
        process.send_signal(number)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
