"""When a node may say that nobody else attracts clients, and when it does not know."""

import pytest

from edge.policy.others import Others, Seen, who_announces

FRESH_MS, GONE_MS = 1_500.0, 30_000.0
SOMEBODY, NOBODY, UNKNOWN = Others.SOMEBODY, Others.NOBODY, Others.UNKNOWN
YES, NO = Seen(200.0, announced=True), Seen(200.0)
WORKER = Seen(200.0, ingress=False)
LATE_YES, LATE_NO = Seen(1_501.0, announced=True), Seen(1_501.0)

CASES: list[tuple[str, list[Seen], Others]] = [
    ("a node without others knows nothing of others", [], UNKNOWN),
    ("one that announces is somebody", [YES], SOMEBODY),
    ("one of many is enough", [NO, LATE_NO, YES], SOMEBODY),
    ("all say that they do not", [NO, NO], NOBODY),
    ("a word at the limit is fresh", [Seen(1_500.0)], NOBODY),
    ("who has no door can tell that the mesh works", [WORKER], NOBODY),
    ("a late yes is no yes", [LATE_YES], UNKNOWN),
    ("a late no is no no", [LATE_NO], UNKNOWN),
    ("one that is heard late may have begun meanwhile", [NO, LATE_NO], UNKNOWN),
    ("a late word of one that has no door asks nothing", [NO, Seen(9_000.0, ingress=False)], NOBODY),
    ("and says nothing", [Seen(9_000.0, ingress=False)], UNKNOWN),
    ("one that was not heard yet may announce", [NO, Seen(100.0, heard=False)], UNKNOWN),
    ("one that is forgotten does not count", [NO, Seen(30_000.0, heard=False)], NOBODY),
    ("all are forgotten: dead, or this node is cut off", [Seen(60_000.0, heard=False)], UNKNOWN),
]


@pytest.mark.parametrize(("sentence", "nodes", "others"), CASES, ids=[row[0] for row in CASES])
def test_who_announces(sentence: str, nodes: list[Seen], others: Others) -> None:
    assert who_announces(nodes, fresh_ms=FRESH_MS, gone_ms=GONE_MS) is others, sentence
