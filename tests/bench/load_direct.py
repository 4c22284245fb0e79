"""`session.run` in a loop: what the model costs when nobody serves it.

    python -m tests.bench.load_direct GRAPH SECONDS

Prints one JSON object. Timed in blocks, since reading a clock is not much cheaper than the model.
"""

import json
import resource
import sys
from statistics import median
from typing import Final

import numpy as np
import onnxruntime as ort

from edge import clock
from tests.bench.workload import FIXED, WIDTH

_BLOCK: Final = 200


def hammer(graph: str, seconds: float) -> dict[str, float]:
    """Runs per second, the median of the blocks' means in microseconds, and the CPU seconds it took."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    x = np.array(FIXED, np.float32).reshape(1, WIDTH)
    blocks: list[float] = []
    cpu_before_s, started_s = _cpu_s(), clock.now_s()
    ended_s = started_s
    while ended_s - started_s < seconds:
        at_s = ended_s
        for _ in range(_BLOCK):
            (y,) = session.run(["y"], {"x": x})
        ended_s = clock.now_s()
        blocks.append((ended_s - at_s) / _BLOCK * 1e6)
        if not np.array_equal(x, y):
            raise SystemExit(f"the model answered {y}")
    return {
        "answers": len(blocks) * _BLOCK,
        "seconds": ended_s - started_s,
        "p50_us": median(blocks),
        "cpu_s": _cpu_s() - cpu_before_s,
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    print(json.dumps(hammer(sys.argv[1], float(sys.argv[2]))))
