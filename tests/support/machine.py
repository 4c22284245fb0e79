"""What a machine's network looks like, for comparing before and after."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

#: Counters and clocks: they move by themselves.
RESTLESS = re.compile(r"conntrack_count|/random/|tcp_mem|udp_mem|/flush$")
#: Whoever makes the first namespace mounts it, `ip netns` too; it stays.
KEPT_MOUNTS = {"/run/netns"}
VOLATILE = {"valid_life_time", "preferred_life_time", "expires", "stats", "stats64", "ifindex", "used", "age"}


def _ip(*arguments: str) -> Any:
    text = subprocess.run(["ip", "-json", *arguments], capture_output=True, text=True, check=True).stdout
    return _calm(json.loads(text or "[]"))


def _calm(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _calm(inner) for key, inner in value.items() if key not in VOLATILE}
    return [_calm(inner) for inner in value] if isinstance(value, list) else value


def _sysctls() -> dict[str, str]:
    found = {}
    for path in Path("/proc/sys/net").rglob("*"):
        if path.is_file() and not RESTLESS.search(str(path)):
            try:
                found[str(path)] = path.read_text()
            except OSError:
                continue
    return found


def _mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


def snapshot() -> dict[str, Any]:
    """Links, addresses, routes and rules of both families, sysctls, nft rules, namespaces, mounts."""
    seen: dict[str, Any] = {
        "addresses": _ip("address", "show"),
        "routes4": _ip("route", "show", "table", "all"),
        "routes6": sorted(
            json.dumps(route, sort_keys=True) for route in _ip("-6", "route", "show", "table", "all")
        ),
        "rules": [_ip("rule", "show"), _ip("-6", "rule", "show")],
        "sysctls": _sysctls(),
        "namespaces": sorted(path.name for path in Path("/run/netns").glob("*")),
        "mounts": sorted(line for line in _mounts() if line.split()[1] not in KEPT_MOUNTS),
        "state": Path("/run/edgepop-lab").exists(),
    }
    if shutil.which("nft"):
        seen["nft"] = subprocess.run(
            ["nft", "list", "ruleset"], capture_output=True, text=True, check=True
        ).stdout
    return seen
