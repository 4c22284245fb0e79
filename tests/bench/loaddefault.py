"""A default ONNX Runtime session of a graph's path, in a process of its own.

    python -m tests.bench.loaddefault GRAPH QUESTION

QUESTION is a .npy of one row. Prints one JSON object: seconds from the path to the first answer, private
memory that this took, what is left of it once the session is gone, and the answer.
"""

import gc
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edge import clock
from tests.bench.machine import anonymous_bytes


def once(graph: str, question: Path) -> dict[str, object]:
    """Load, ask once, unload."""
    x = np.load(question)
    ort.set_default_logger_severity(3)
    before = anonymous_bytes(os.getpid())
    started_s = clock.now_s()
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    created_s = clock.now_s()
    (y,) = session.run(["y"], {"x": x})
    answered_s = clock.now_s()
    loaded = anonymous_bytes(os.getpid())
    del session
    gc.collect()
    return {
        "total_s": answered_s - started_s,
        "load_s": created_s - started_s,
        "private_bytes": loaded - before,
        "left_bytes": anonymous_bytes(os.getpid()) - before,
        "answer": y.ravel().tolist(),
    }


if __name__ == "__main__":
    print(json.dumps(once(sys.argv[1], Path(sys.argv[2]))))
