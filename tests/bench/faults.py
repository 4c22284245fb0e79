"""A server's log -> the lines that spoil a run. Pure.

A server can answer 200 to everything and raise at each request; its throughput is then a
number about logging. So whatever is not understood to be harmless counts.
"""

import json
import re
from typing import Final

#: ONNX Runtime's own remarks; its errors ([E: and [F:) are none.
_REMARK: Final = re.compile(r"\[[VIW]:onnxruntime")
_BAD_LEVELS: Final = frozenset({"error", "critical"})


def faults(log: str) -> list[str]:
    """Errors, tracebacks, and lines that are neither a log record nor a known remark."""
    return [line for line in log.splitlines() if line.strip() and not _is_harmless(line)]


def _is_harmless(line: str) -> bool:
    if _REMARK.search(line):
        return True
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and record.get("level") not in _BAD_LEVELS and "exception" not in record
