"""A worker's engine on a real CUDA device: it runs there, not beside it, and gives what a CPU gives."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from edge.config import Worker
from edge.errors import EdgeError
from edge.worker import tasks
from edge.worker.engine import Device, Model
from tests.support import tiny

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def devices() -> int:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        pytest.skip("no NVIDIA driver on this machine")
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or count.value == 0:
        pytest.skip("no CUDA device on this machine")
    return count.value


def load(folder: Path, device: str) -> Model:
    made = tiny.heavy(folder)
    return Model(Device(Worker(device=device), folder), made, tasks.signatures(made))


def test_a_model_runs_on_the_device_that_was_asked_for(devices, tmp_path):
    on_gpu, on_cpu = load(tmp_path, f"cuda:{devices - 1}"), load(tmp_path, "cpu")
    assert on_gpu.prepacked, "there is nothing to prepack on a GPU"
    x = np.random.default_rng(3).standard_normal((5, 2048), dtype=np.float32)
    (got,), (expected,) = (model.begin().call("graph", {"x": x}) for model in (on_gpu, on_cpu))
    assert got.shape == (5, 2048)
    # TF32 multiplies with 10 bits of mantissa; 2048 products of a standard deviation of 45 are added.
    np.testing.assert_allclose(got, expected, rtol=1e-2, atol=0.5)


def test_runs_in_a_row_do_not_see_each_others_tensors(devices, tmp_path):
    model = load(tmp_path, "cuda:0")
    x = np.random.default_rng(4).standard_normal((3, 2048), dtype=np.float32)
    first = model.begin().call("graph", {"x": x})[0].copy()
    zero = model.begin().call("graph", {"x": np.zeros((7, 2048), np.float32)})[0]
    assert not zero.any()
    np.testing.assert_allclose(model.begin().call("graph", {"x": x})[0], first, rtol=1e-3, atol=1e-2)


def test_a_device_beyond_the_last_is_an_error_that_counts(devices, tmp_path):
    with pytest.raises(EdgeError, match=f"this machine has {devices} CUDA devices"):
        Device(Worker(device=f"cuda:{devices}"), tmp_path)


@pytest.fixture(scope="module")
def with_tensorrt(devices) -> int:
    try:
        ctypes.CDLL("libnvinfer.so.10")
    except OSError:
        pytest.skip("no TensorRT 10 (libnvinfer.so.10) on this machine")
    return devices


def load_tensorrt(folder: Path, cache: Path) -> Model:
    made = tiny.heavy(folder)
    config = Worker(device="cuda:0", provider="tensorrt")
    return Model(Device(config, folder, cache), made, tasks.signatures(made))


def test_tensorrt_builds_an_engine_once_and_the_next_load_finds_it(with_tensorrt, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    x = np.random.default_rng(5).standard_normal((16, 2048), dtype=np.float32)
    (expected,) = load(tmp_path, "cpu").begin().call("graph", {"x": x})
    answers = []
    for _ in range(2):
        model = load_tensorrt(tmp_path, cache)
        answers.append(model.begin().call("graph", {"x": x})[0])
        answers.append(model.begin().call("graph", {"x": x[:1]})[0])
        model.close()
        (folder,) = cache.glob("trt-*")
        engines = {path: path.stat().st_mtime_ns for path in folder.glob("*.engine")}
        assert len(engines) == 1
        answers.append(engines)
    first, first_row, engines, again, again_row, engines_again = answers
    assert engines == engines_again, "the second load built nothing"
    np.testing.assert_allclose(first, expected, rtol=1e-2, atol=0.5)
    np.testing.assert_allclose(again, first, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(again_row, first_row, rtol=1e-3, atol=1e-2)


def test_without_tensorrt_the_worker_says_what_is_missing(devices, tmp_path):
    try:
        ctypes.CDLL("libnvinfer.so.10")
    except OSError:
        pass
    else:
        pytest.skip("this machine has TensorRT")
    with pytest.raises(EdgeError, match=r"there is no libnvinfer\.so\.10; install TensorRT 10"):
        Device(Worker(device="cuda:0", provider="tensorrt"), tmp_path)
