"""What a node needs before it starts: addresses, secrets, rights; and what it says when one is missing."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edge.clock import wall_s
from edge.config import Index, Mesh, NodeConfig, Public, Weights, Worker
from edge.parent import sockets
from edge.parent.boot import BootError, make_caches, plan_roles
from edge.proxy.app import ProxyBoot
from edge.weights.parts import WeightsBoot
from netlab.clock import wait_until
from tests.support.children import children_of, popctl, proc
from tests.support.node import ROOT, config_text, open_directory
from tests.support.ports import free_port
from tests.support.wait import wait_until as wait_until_async

NOBODY_HOME = "http://127.0.0.1:1/"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="dropping rights takes root")


REFUSALS = [
    (
        "a port below 1024 of an address that is not here",
        "mesh: {listen: '192.0.2.7:7443', ca: /x, certificate: /x, key: /x}\n",
        1,
        "mesh.listen: can't listen on 192.0.2.7:7443: no interface of this machine has it",
    ),
    (
        "a token that is too short",
        "admin: {listen: '127.0.0.1:%(port)s', token_file: %(tmp)s/token}\n",
        1,
        "admin.token_file: %(tmp)s/token holds 5 characters; write at least 16",
    ),
    (
        "a key that is not there",
        "mesh: {listen: '127.0.0.1:%(port)s', ca: %(tmp)s/no.pem, certificate: /x, key: /x}\n",
        1,
        "mesh.ca: can't read %(tmp)s/no.pem: No such file or directory",
    ),
    (
        "an interface that is not there",
        "announce: {interface: nowhere0, addresses: [127.0.0.1]}\n",
        3,
        "announce.interface: there is no interface 'nowhere0'; create it",
    ),
]


@pytest.mark.parametrize(
    ("sentence", "extra", "status", "problem"), REFUSALS, ids=[row[0] for row in REFUSALS]
)
def test_what_can_not_start_says_why(tmp_path, sentence, extra, status, problem):
    (tmp_path / "token").write_text("short\n")
    names = {"port": free_port(), "tmp": tmp_path}
    config = tmp_path / "node.yaml"
    config.write_text(config_text(tmp_path, "n", free_port(), origin=NOBODY_HOME, extra=extra % names))
    ended = popctl("serve", "-c", str(config))
    last = json.loads(ended.stderr.splitlines()[-1])
    assert (ended.returncode, last["event"]) == (status, "not started"), sentence
    assert last["problem"].startswith(problem % names), last
    assert ended.stdout == ""


@pytest.fixture
def busy(monkeypatch):
    monkeypatch.setattr(sockets, "BIND_PATIENCE_S", 0.5)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder


def _config(tmp_path: Path, port: int) -> NodeConfig:
    return NodeConfig(
        node="n",
        pop="p",
        region="r",
        run_dir=str(tmp_path / "run"),
        public=Public(listen=("[::1]:0", f"127.0.0.1:{port}")),
        weights=Weights(store=str(tmp_path), origin=NOBODY_HOME),
    )


async def test_a_busy_address_is_waited_for(tmp_path, busy, monkeypatch):
    port, tried, bind = busy.getsockname()[1], [], sockets._tcp

    def bind_and_tell(setting: str, address: str, *, free: bool) -> socket.socket:
        tried.extend([address] if address.endswith(f":{port}") else [])
        return bind(setting, address, free=free)

    monkeypatch.setattr(sockets, "_tcp", bind_and_tell)
    (tmp_path / "run").mkdir()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        opening = group.create_task(sockets.open_listeners(_config(tmp_path, port), root=False))
        await wait_until_async(lambda: tried)
        assert not opening.done()
        busy.close()
        listeners = await opening
    assert [listener.getsockname()[1] for listener in listeners.public][1] == port
    listeners.close()


async def test_a_busy_address_is_not_waited_for_for_ever(tmp_path, busy):
    port = busy.getsockname()[1]
    (tmp_path / "run").mkdir()
    with pytest.raises(
        sockets.ListenError, match=rf"public.listen.1: can't listen on 127.0.0.1:{port}: another"
    ):
        await sockets.open_listeners(_config(tmp_path, port), root=False)


@pytest.fixture
def joined(tmp_path) -> NodeConfig:
    """A node with mesh, index, blobs and keys, whose files are there."""
    texts = {"ca": "CA", "certificate": "CERT", "key": "KEY", "password": " s3cret\n", "keys": "clés"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "run").mkdir()
    papers = {name: str(tmp_path / name) for name in ("ca", "certificate", "key")}
    return NodeConfig(
        node="n",
        pop="p",
        region="eu",
        run_dir=str(tmp_path / "run"),
        public=Public(listen=("127.0.0.1:0",), keys_file=str(tmp_path / "keys")),
        mesh=Mesh(listen="127.0.0.1:0", **papers),
        weights=Weights(
            store=str(tmp_path / "store"),
            origin=NOBODY_HOME,
            blobs="127.0.0.1:0",
            index=Index(url="redis://127.0.0.1:1", user="n", password_file=str(tmp_path / "password")),
        ),
    )


async def test_the_children_are_told_all_they_need(joined):
    listeners = await sockets.open_listeners(joined, root=False)
    try:
        weights_role, proxy_role = plan_roles(joined, listeners, lambda: True)
        weights, again = (told(weights_role, WeightsBoot) for _ in range(2))
        proxy = told(proxy_role, ProxyBoot)
        assert listeners.blobs is not None
        assert weights.blobs_fd == listeners.blobs.fileno()
        assert weights.blobs_fd in weights_role.fds
    finally:
        listeners.close()
    assert (weights.region, weights.index_password) == ("eu", "s3cret")
    assert (weights.mesh_ca, weights.mesh_certificate, weights.mesh_key) == ("CA", "CERT", "KEY")
    assert weights.boot != again.boot, "each start has an id of its own"
    assert int(weights.boot, 16) >= 0
    assert (proxy.keys_text, proxy.mesh_key) == ("clés", "KEY")
    assert abs(proxy.boot_ms - wall_s() * 1000) < 60_000
    assert proxy_role.boot(3)["drained"] is True


def told(role, struct):
    """What the child makes of its boot data."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(role.boot(3)), type=struct)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("password", b" \n", "weights.index.password_file: {} is empty; write the password"),
        ("password", None, "weights.index.password_file: can't read {}: No such file"),
        ("keys", b"\xff", "public.keys_file: {} is not plain text"),
        ("key", b"\xc3\xa9", "mesh.key: {} is not plain text"),
        ("keys", b"k" * (1 << 20) + b"k", "public.keys_file: {} is larger than 1048576 bytes"),
    ],
)
async def test_a_secret_that_can_not_be_used_is_named(joined, tmp_path, name, content, problem):
    path = tmp_path / name
    path.unlink() if content is None else path.write_bytes(content)
    listeners = await sockets.open_listeners(joined, root=False)
    try:
        with pytest.raises(BootError) as raised:
            plan_roles(joined, listeners, lambda: False)
    finally:
        listeners.close()
    assert str(raised.value).startswith(problem.format(path))


JAIL = """
import os, sys
from pathlib import Path
from edge.parent.child import code_paths
from edge.parent.jail import Cell, JailError, enter
closed = Path(sys.argv[1])
try:
    enter(Cell(uid=64005, network=True, readable=(*code_paths(), *sys.argv[2:])))
except JailError as error:
    print(error)
    sys.exit()
import colorsys  # a module that nothing has imported yet: the code is still in reach
print(os.getuid(), *sorted(str(path.relative_to(closed)) for path in closed.rglob("*")))
try:
    (closed / "new").write_text("")
except OSError as error:
    print(error.strerror)
"""


@root_only
def test_a_child_sees_what_it_needs_below_a_closed_directory_and_nothing_else(tmp_path):
    closed = tmp_path / "home"
    for name in ("wanted/deep", "secret"):
        (closed / name).mkdir(parents=True)
        (closed / name / "file").write_text("")
    tmp_path.chmod(0o755)
    closed.chmod(0o700)
    seen = jailed(closed, closed / "wanted/deep").splitlines()
    assert seen == ["64005 wanted wanted/deep wanted/deep/file", "Read-only file system"]
    assert (closed.stat().st_mode & 0o777, (closed / "secret/file").exists()) == (0o700, True)


@root_only
def test_a_path_that_stays_closed_is_named_with_the_remedy(tmp_path):
    store = tmp_path / "store"
    store.mkdir(mode=0o700)
    problem = jailed(tmp_path, store)
    assert f"uid 64005 can't read {store}: {store} is closed to it; chmod a+rx {store}" in problem


def jailed(*arguments: Path) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", JAIL, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


@root_only
def test_without_root_a_node_runs_with_a_notice(tmp_path):
    """The jail itself makes the other uid: it then runs `popctl serve` as an ordinary user would."""
    port, uid = free_port(), 64005
    (tmp_path / "node.yaml").write_text(config_text(tmp_path, "plain", port, origin=NOBODY_HOME))
    os.chown(tmp_path, uid, uid)
    script = (
        "import os, sys; from edge.parent.jail import Cell, enter; from edge.parent.child import code_paths\n"
        f"enter(Cell(uid={uid}, network=True, readable=(*code_paths(), {str(tmp_path)!r})))\n"
        f"os.execv(sys.executable, [sys.executable, '-m', 'edge.cli', 'serve', '-c', {str(tmp_path / 'node.yaml')!r}])"
    )
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=sink
        )
    try:
        ready = tmp_path / "run" / "ready"
        wait_until(lambda: ready.exists() or process.poll() is not None, "the node is ready", within_s=40)
        assert process.poll() is None, log.read_text()
        assert {tuple(proc(pid)["Uid"]) for pid in children_of(process.pid)} == {(str(uid),) * 4}
        assert "not root: children keep this uid" in log.read_text()
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_a_child_that_can_not_run_here_ends_the_node_with_one_sentence_and_no_traceback():
    with open_directory() as directory:
        store = directory / "store"
        store.mkdir()
        (store / "node.json").mkdir()
        config = directory / "node.yaml"
        config.write_text(config_text(directory, "one-a", free_port(), origin=f"file://{directory}/"))
        popctl = Path(sys.executable).with_name("popctl")
        ran = subprocess.run(
            [str(popctl), "serve", "-c", str(config)], capture_output=True, text=True, timeout=30, check=False
        )
    events = [json.loads(line) for line in ran.stderr.splitlines()]
    assert ran.returncode == 3, ran.stderr
    assert any("the weight store can't begin" in line["event"] for line in events), ran.stderr
    assert "weights can't run here" in events[-1]["problem"]


@root_only
def test_a_workers_cache_is_no_link_to_elsewhere(tmp_path):
    config = msgspec.structs.replace(_config(tmp_path, 0), run_dir=str(tmp_path), workers=(Worker(),))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "worker-0.cache").symlink_to(elsewhere)
    with pytest.raises(BootError, match="is no directory; remove it"):
        make_caches(config, root=True)
    assert elsewhere.stat().st_uid == 0
