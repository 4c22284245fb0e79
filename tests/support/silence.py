"""A machine that falls silent: whatever arrives is dropped before any rule of the kernel's sees it.

Both ends have to, or the one that still hears would answer; drops on the way out would tell local
senders. It knows no labs, only places (namespaces) and interfaces.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from netlab import netns

TABLE = "silence"
RULE = "table inet {} {{ chain in {{ type filter hook prerouting priority -300; {} drop; }}; }}"


def _nft(place: str, rule: str) -> None:
    netns.inside(place, lambda: subprocess.run(["nft", rule], check=True, timeout=10))


@contextmanager
def silence(ends: Sequence[tuple[str, str]]) -> Iterator[None]:
    """`ends` are (namespace, what is dropped there in nft's words, as `iifname "eth0"`)."""
    done = []
    try:
        for place, match in ends:
            _nft(place, RULE.format(TABLE, match))
            done.append(place)
        yield
    finally:
        for place in done:
            _nft(place, f"delete table inet {TABLE}")
