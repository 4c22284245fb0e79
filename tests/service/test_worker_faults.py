"""A worker whose device or memory gives out: it ends only when no run can succeed any more."""

import json
import resource
import signal
from collections.abc import Iterator

import pytest

from edge.config import Worker
from edge.errors import EdgeError, Reason
from tests.support import tiny
from tests.support.wait import wait_until
from tests.support.worker import _START, Client, Process, connected, infer_head

MIB = 1 << 20
#: From SIGUSR1 on every run raises what ONNX Runtime raises when CUDA's context is gone.
LOSES_ITS_DEVICE = (
    """
import signal
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException
from edge.worker import engine

def lost(session, feeds, options):
    raise RuntimeException("CUDA failure 719: unspecified launch failure ; GPU=0")

signal.signal(signal.SIGUSR1, lambda *_: setattr(engine._Session, "run", lost))
"""
    + _START
)


@pytest.fixture
def worker(tmp_path) -> Iterator[Process]:
    process = Process(tmp_path, Worker(device_bytes="256MiB"), program=LOSES_ITS_DEVICE)
    yield process
    process.close()


async def refused(client: Client, model, side: int) -> EdgeError:
    tensor = {"name": "x", "datatype": "INT64", "shape": [1], "data": [side]}
    body = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(EdgeError) as caught:
        await client.link.request(infer_head(model, deadline_ms=5_000), body, timeout_s=20)
    return caught.value


async def test_a_worker_whose_device_is_lost_exits_so_that_others_are_asked(worker):
    model = tiny.identity(worker.folder)
    async with connected(worker) as client:
        await client.load(model)
        await client.infer(model, [1.0] * 16)
        worker.popen.send_signal(signal.SIGUSR1)
        reasons = []
        while Reason.LINK_LOST not in reasons:
            with pytest.raises(EdgeError) as caught:
                await client.infer(model, [1.0] * 16)
            reasons.append(caught.value.reason)
            assert len(reasons) < 6, reasons
    assert reasons == [Reason.INFER_FAILED] * 2 + [Reason.LINK_LOST], (
        "who is third is not told something wrong"
    )
    await wait_until(lambda: worker.popen.poll() is not None)
    assert worker.popen.returncode == 70
    assert "the device is lost" in worker.log.read_text()
    assert "CUDA failure 719" in worker.log.read_text()


async def test_requests_for_more_memory_than_there_is_fail_alone(worker):
    """Dozens of them: the worker's own limit holds, and a neighbour is answered between any two."""
    hungry, neighbour = tiny.deaf(worker.folder), tiny.identity(worker.folder)
    async with connected(worker) as client:
        await client.load(hungry)
        await client.load(neighbour)
        resource.prlimit(worker.popen.pid, resource.RLIMIT_DATA, (2048 * MIB, 2048 * MIB))
        for _ in range(20):
            error = await refused(client, hungry, 40_000)  # 6.4 GB
            assert error.reason is Reason.INFER_FAILED
            answer = await client.infer(neighbour, [2.0] * 16)
            assert answer.outputs["y"] == [2.0] * 16
        for _ in range(6):
            assert (await refused(client, hungry, 40_000)).reason is Reason.INFER_FAILED
        assert (await client.infer(neighbour, [3.0] * 16)).outputs["y"] == [3.0] * 16
    assert worker.popen.poll() is None
