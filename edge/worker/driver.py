"""Is the GPU there, and TensorRT? Asked of their own libraries: ONNX Runtime lists both on machines without.

Knows no sessions and no models.
"""

import ctypes
from pathlib import Path
from typing import Final

from edge.errors import EdgeError, Reason

_NVINFER: Final = "libnvinfer.so.10"
_NAME_BYTES: Final = 256
_MAJOR, _MINOR = 75, 76


def require_driver(index: int) -> None:
    """Ask the NVIDIA driver itself: ONNX Runtime lists CUDA on machines that have none."""
    advice = "install the NVIDIA driver or set device: cpu"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise _no_device(f"cuda:{index}: there is no NVIDIA driver (libcuda.so.1); {advice}") from error
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0:
        raise _no_device(f"cuda:{index}: the NVIDIA driver answers with error {status}; {advice}")
    if index >= count.value:
        raise _no_device(f"cuda:{index}: this machine has {count.value} CUDA devices, counted from 0")


def require_tensorrt(index: int) -> tuple[str, ...]:
    """What an engine of this GPU depends on: its name, compute capability, driver and TensorRT's version.

    Raises EdgeError(LOAD_FAILED) if TensorRT is not there. Call `require_driver` first.
    """
    try:
        library = ctypes.CDLL(_NVINFER)
    except OSError as error:
        raise _no_device(
            f"cuda:{index}: provider tensorrt: there is no {_NVINFER}; install TensorRT 10 for CUDA 13 where "
            "LD_LIBRARY_PATH finds it, or leave provider empty"
        ) from error
    library.getInferLibVersion.restype = ctypes.c_int32
    driver = ctypes.CDLL("libcuda.so.1")
    device, version, numbers = ctypes.c_int(0), ctypes.c_int(0), []
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDriverGetVersion(ctypes.byref(version))
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int(0)
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        numbers.append(str(number.value))
    kernel = Path("/proc/driver/nvidia/version")
    return (
        name.value.decode("utf-8", "replace"),
        ".".join(numbers),
        str(version.value),
        kernel.read_text().split("\n", 1)[0] if kernel.exists() else "",
        str(library.getInferLibVersion()),
    )


def _no_device(message: str) -> EdgeError:
    return EdgeError(Reason.LOAD_FAILED, message)
