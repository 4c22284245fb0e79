"""A node's processes as the kernel tells of them, and `popctl` as an operator runs it."""

import subprocess
import sys
from pathlib import Path


def proc(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: line.split(":")[1].split() for line in lines}


def alive(pid: int) -> bool:
    try:
        return proc(pid)["State"][0] != "Z"
    except FileNotFoundError:
        return False


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def popctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("popctl"))
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30, check=False)
