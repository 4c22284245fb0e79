"""Three cold nodes of one region and a hundred users, some of them late: the origin gives each byte once."""

import concurrent.futures
import json
from typing import Any

import pytest

from netlab.clock import wait_until
from netlab.lab import Lab

pytestmark = pytest.mark.lab

NODES = ("iad-a", "ewr-a", "ord-a")
USERS = {"nyc": 40, "bos": 40}
LATE = {"chi": 20}
CHUNK_BYTES = 8 << 20


def weights(lab: Lab, node: str) -> dict[str, Any]:
    """What a node tells of its store."""
    told: dict[str, Any] = json.loads(lab.node(node).admin("GET", "/edge/weights").body)["weights"]
    return told


def test_a_hundred_cold_requests_at_three_nodes_cost_the_origin_one_copy(three: Lab) -> None:
    lab = three
    rows = json.loads(lab.node("iad-a").admin("GET", "/edge/models").body)["models"]
    size_bytes = next(row["bytes"] for row in rows if row["model"] == "minilm" and row["current"])
    wait_until(
        lambda: all(set(weights(lab, node)["index"].get("nodes", ())) == set(NODES) for node in NODES),
        "all nodes are in the region's index",
        within_s=10,
    )

    def ask(users: dict[str, int]) -> list[concurrent.futures.Future[Any]]:
        return [
            pool.submit(lab.city(city).post, "/run/minilm", b"How cold is it?", timeout_s=60.0)
            for city, count in users.items()
            for _ in range(count)
        ]

    before = {node: weights(lab, node)["disk_used_bytes"] for node in NODES}
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        asked = ask(USERS)
        # Room for it is booked: it is on its way.
        wait_until(
            lambda: any(weights(lab, n)["disk_used_bytes"] > before[n] + size_bytes // 2 for n in NODES),
            "one node fetches it",
            within_s=30,
        )
        asked += ask(LATE)
        answers = [one.result() for one in asked]
    assert [answer.status for answer in answers] == [200] * 100
    assert {answer.headers["edge-served-by"] for answer in answers} == {f"{node}/0" for node in NODES}
    sources = [weights(lab, node).get("sources", {}) for node in NODES]
    from_origin = sum(source.get("origin", 0) for source in sources)
    from_region = sum(source.get("region", 0) for source in sources)
    assert size_bytes <= from_origin <= size_bytes + CHUNK_BYTES, sources
    assert from_region >= 2 * size_bytes * 0.99 - CHUNK_BYTES, sources
