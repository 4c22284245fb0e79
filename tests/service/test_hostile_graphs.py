"""Models that mean harm, given to a real worker: each ends in an error that names it, its neighbour answers on."""

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator

import pytest

from edge import clock
from edge.config import Worker
from edge.errors import EdgeError, Reason
from edge.weights import manifest as mf
from tests.support import hostile, tiny
from tests.support.hostile import external, operator_of, with_graph
from tests.support.wait import wait_until
from tests.support.worker import _START, Client, Process, connected

MIB = 1 << 20
CAP_BYTES = 1024 * MIB
#: A load that hangs is given a minute; these tests have less.
IMPATIENT = "from edge.worker import engine; engine.LOAD_GRACE_MS = 300.0;" + _START
NEIGHBOUR = [1.5] * 16


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Process]:
    """One worker for all tests that can't end it."""
    process = Process(tmp_path_factory.mktemp("worker"), Worker(device_bytes="256MiB"))
    yield process
    process.close()


@pytest.fixture
async def client(shared) -> AsyncIterator[Client]:
    """The neighbour is loaded before a test and answers after it; the worker's memory is capped."""
    async with connected(shared) as made:
        neighbour = tiny.identity(shared.folder)
        await made.load(neighbour)
        resource.prlimit(shared.popen.pid, resource.RLIMIT_DATA, (CAP_BYTES, CAP_BYTES))
        yield made
        assert (await made.infer(neighbour, NEIGHBOUR)).outputs == {"y": NEIGHBOUR}
        assert shared.popen.poll() is None


async def refused(awaitable) -> EdgeError:
    with pytest.raises(EdgeError) as caught:
        await awaitable
    return caught.value


#: What is done to the graph, and what is said of it.
GRAPHS = [
    ("a path that climbs", external(location="../outside"), "lies in '../outside', which is no weights blob"),
    ("an absolute path", external(location="/etc/passwd"), "lies in '/etc/passwd', which is no weights blob"),
    ("a device", external(location="/dev/zero"), "lies in '/dev/zero', which is no weights blob"),
    ("the blob by a longer way", external(location="./w"), "lies in './w', which is no weights blob"),
    ("memory of the process", external(location="*/_ORT_MEM_ADDR_/*"), "which is no weights blob"),
    ("a key nobody asked for", external(checksum="0"), "has keys ['checksum', 'length', 'location', 'offset']"),
    ("a base path", external(basepath="/etc"), "has keys ['basepath', "),
    ("a negative offset", external(offset="-4096"), "offset or length '-4096', which is no number"),
    ("a negative length", external(length="-1"), "offset or length '-1', which is no number"),
    ("an offset beyond the end", external(offset="4096"), "a tensor ends at 4198400, its blob has 4194304"),
    ("an offset that wraps around", external(offset=str((1 << 64) - 4096)), "which is no number"),
    ("a length that is not the shape's", external(length="4096"), "ONNX Runtime says: "),
    ("tensors that overlap", hostile.overlapping, "two tensors overlap in "),
    ("an operator from nowhere", operator_of("evil.example"), "'Neg' is of domain 'evil.example'"),
    ("an operator of a library that is not named", operator_of("ai.onnx.contrib"), "of domain 'ai.onnx.contrib'"),
    ("a compiled file", operator_of("com.microsoft", "EPContext"), "EPContext stands for a compiled file"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "change", "says"), GRAPHS, ids=[case[0] for case in GRAPHS])
async def test_a_graph_that_reaches_out_is_named(shared, client, sentence, change, says):
    model = with_graph(shared.folder, change)
    error = await refused(client.load(model))
    assert error.reason is Reason.LOAD_FAILED
    graph = model.file("graph").blake3
    assert error.message.startswith(f"hostile version 1 can't be loaded: blob {graph} (graph graph): ")
    assert says in error.message
    assert (await client.state()).used_bytes == tiny.identity(shared.folder).size_bytes


BLOBS = [
    ("a second name", hostile.linked, "has 2 links; it must have one"),
    ("a symlink", hostile.symlinked, "is no regular file"),
    ("a pipe", hostile.a_pipe, "is no regular file"),
    ("a device", hostile.a_device, "is no regular file"),
    ("a folder", hostile.a_folder, "is no regular file"),
    ("one byte short", hostile.truncated, "the manifest says"),
]


@pytest.mark.parametrize("role", ["weights", "graph"])
@pytest.mark.parametrize(("sentence", "spoil", "says"), BLOBS, ids=[case[0] for case in BLOBS])
async def test_a_file_that_is_no_blob_is_named(shared, client, sentence, spoil, says, role):
    case = [case[0] for case in BLOBS].index(sentence) * 2 + (role == "graph")
    model = tiny.heavy(shared.folder, side=500 + case)
    file = model.file(role)
    spoil(shared.folder / file.blake3)
    error = await refused(client.load(model, deadline_ms=5_000))
    (shared.folder / "second-name").unlink(missing_ok=True)
    assert error.reason is Reason.BLOB_CORRUPT
    assert f"heavy version 1 can't be loaded: blob {file.blake3} ({role} {role}) " in error.message
    assert says in error.message


async def answered_during(client: Client, shared: Process, load) -> int:
    """How often the neighbour answers until `load` is done; its last word is left in the future."""
    neighbour, answers = tiny.identity(shared.folder), 0
    while not load.done():
        assert (await client.infer(neighbour, NEIGHBOUR)).outputs == {"y": NEIGHBOUR}
        answers += 1
        await asyncio.wait({load}, timeout=0.01)
    return answers


@pytest.mark.parametrize("side", [40_000, 1_000_000_000])
async def test_a_tensor_larger_than_the_memory_fails_alone(shared, client, side):
    model = hostile.giant(shared.folder, side)
    await client.load(model)
    for _ in range(3):
        error = await refused(client.infer(model, 1.0, deadline_ms=10_000))
        assert error.reason is Reason.INFER_FAILED
        assert "giant version 1 failed in its graph: " in error.message
        assert "Failed to allocate memory" in error.message or "ConstantOfShape" in error.message
    await client.unload(model)


async def test_a_constant_larger_than_the_memory_fails_alone(shared, client):
    model = hostile.folded(shared.folder, 20_000)

    async def load_and_ask() -> None:
        await client.load(model)
        await client.infer(model, 1.0, deadline_ms=10_000)

    error = await refused(load_and_ask())
    assert error.reason in (Reason.LOAD_FAILED, Reason.INFER_FAILED), "folded at the load, or left to the run"
    assert "folded version 1" in error.message
    await client.unload(model)


async def test_a_loop_without_end_does_not_load_and_nobody_waits_for_it(shared, client):
    model = hostile.endless(shared.folder)
    started_ms = clock.now_ms()
    load = asyncio.ensure_future(client.load(model, deadline_ms=500))  # noqa: TID251 -- awaited below
    assert await answered_during(client, shared, load) > 3
    error = await refused(load)
    assert "endless" in error.message
    assert clock.now_ms() - started_ms < 10_000
    said = "endless was loaded on cpu, but its first run failed"
    await wait_until(lambda: said in shared.log.read_text(), within_s=10)
    assert (await client.state()).used_bytes == tiny.identity(shared.folder).size_bytes


async def test_a_load_that_nothing_can_end_ends_the_worker_and_the_next_one_serves(tmp_path):
    process = Process(tmp_path, Worker(), program=IMPATIENT)
    model: mf.Manifest = hostile.folded(tmp_path, 9_000)
    async with connected(process) as client:
        neighbour = tiny.identity(tmp_path)
        await client.load(neighbour)
        load = asyncio.ensure_future(client.load(model, deadline_ms=300))  # noqa: TID251 -- awaited below
        assert await answered_during(client, process, load) > 3, "until the end it serves"
        assert "folded did not load within the deadline" in (await refused(load)).message
        await wait_until(lambda: process.popen.poll() is not None, within_s=30)
    process.close()
    assert process.popen.returncode == 70
    assert "a run of folded (load) for 1 requests took" in process.log.read_text()
    (tmp_path / "worker.sock").unlink()
    again = Process(tmp_path, Worker())
    async with connected(again) as client:
        await client.load(neighbour)
        assert (await client.infer(neighbour, NEIGHBOUR)).outputs == {"y": NEIGHBOUR}
    await asyncio.to_thread(again.close)
