"""Two worker nodes of one region, cold, with fifty users each: the origin gives each byte once."""

import concurrent.futures
import json

import pytest

from netlab.clock import wait_until
from netlab.lab import Lab

pytestmark = pytest.mark.lab

USERS = 50
CHUNK_BYTES = 8 << 20


def stored(lab: Lab, node: str) -> dict[str, int]:
    """Bytes that a node fetched, by where they came from."""
    weights = json.loads(lab.node(node).admin("GET", "/edge/weights").body)["weights"]
    return dict(weights.get("sources", {}))


def test_fifty_cold_requests_at_each_node_cost_the_origin_one_copy(two_workers: Lab) -> None:
    lab = two_workers
    rows = json.loads(lab.node("iad-a").admin("GET", "/edge/models").body)["models"]
    size_bytes = next(row["bytes"] for row in rows if row["model"] == "minilm" and row["current"])
    wait_until(
        lambda: all(
            len(
                json.loads(lab.node(n).admin("GET", "/edge/weights").body)["weights"]["index"].get(
                    "nodes", ()
                )
            )
            == 2
            for n in ("iad-a", "ewr-a")
        ),
        "both nodes are in the region's index",
        within_s=10,
    )
    users = [lab.city("nyc"), lab.city("bos")]
    with concurrent.futures.ThreadPoolExecutor(2 * USERS) as pool:
        asked = [
            pool.submit(user.post, "/run/minilm", b"How cold is it?", timeout_s=60.0)
            for user in users
            for _ in range(USERS)
        ]
        answers = [one.result() for one in asked]
    assert [answer.status for answer in answers] == [200] * (2 * USERS)
    assert {answer.headers["edge-served-by"] for answer in answers} == {"iad-a/0", "ewr-a/0"}
    sources = [stored(lab, node) for node in ("iad-a", "ewr-a")]
    from_origin = sum(source.get("origin", 0) for source in sources)
    from_region = sum(source.get("region", 0) for source in sources)
    assert size_bytes <= from_origin <= size_bytes + CHUNK_BYTES, sources
    assert from_region >= size_bytes * 0.99, sources
