"""What /proc and the interpreter tell: CPU time of a process tree, and on what this was measured."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PACKAGES: Final = ("edgepop", "aiohttp", "uvloop", "onnxruntime-gpu", "numpy", "msgspec")


def tree_cpu_s(root: int) -> float:
    """User and system seconds that `root` and its living descendants have used so far."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
            fields = stat.rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return sum(seconds for pid, seconds in used.items() if _descends(pid, root, parents))


def anonymous_bytes(pid: int) -> int:
    """Private memory of a process that is no file's."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no memory any more")


def _descends(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid != root:
        if pid not in parents:
            return False
        pid = parents[pid]
    return True


def facts() -> dict[str, Any]:
    """Cores, processor, kernel and versions."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    told = subprocess.run(["wrk", "-v"], capture_output=True, text=True, timeout=5, check=False)
    words = (told.stdout + told.stderr).split()
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **versions,
        "wrk": words[1] if len(words) > 1 else "unknown",
    }
