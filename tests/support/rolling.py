"""Restart every node of a fleet, one after another, while people use it; what became of their requests.

What is counted is what the ingresses themselves say: how often a request was run is in its
explanation, which lives in the ring of the proxy that answered it. The ring of a proxy that is
replaced is gone, so explanations are read while the load runs. Nothing is judged here.
"""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from netlab.clock import wait_until
from tests.support.fleet import wait_until_joined
from tests.support.node import Node
from tests.support.openloop import OpenLoop

ROW: Final = json.dumps({"input": [[1.0] * 16]})
EXPECT: Final = b'"y":[[1.0,'
#: Of so many requests one is explained: an explanation costs the node about as much as the request.
EXPLAIN_EVERY: Final = 8
LOOK_S: Final = 0.1


class Rolled(NamedTuple):
    """`executions` are those of the requests that were explained, whether answered or lost on the way."""

    outcomes: Counter[str]
    explained: int
    executions: int


class Explained:
    """Asks an ingress about every EXPLAIN_EVERY-th request that it answered, until the `with` block ends."""

    def __init__(self, node: Node, load: OpenLoop) -> None:
        self.count = 0
        self.executions = 0
        self._node = node
        self._load = load
        self._at = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            while self._at < len(self._load.answered):
                # While two proxies live either may answer; a third look finds the one that was asked.
                found = next(filter(None, (self._ask(self._load.answered[self._at]) for _ in range(3))), None)
                if found is not None:
                    self.count += 1
                    self.executions += found["executions"]
                self._at += EXPLAIN_EVERY

    def _ask(self, request_id: str) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, ValueError):
            answer = self._node.admin(f"/edge/explain/{request_id}")
            if answer.status == 200:
                found: dict[str, Any] = answer.json
                return found
        return None


def restart(node: Node) -> None:
    """Every child of a node, one after another, as `popctl restart --wait` does."""
    before = _pids(node.state["tree"])
    assert node.admin("/edge/restart", method="POST").status == 200

    def over() -> bool:
        try:
            tree = node.state["tree"]
        except (OSError, ValueError, KeyError):
            return False
        after = _pids(tree)
        return (
            not tree.get("restarting")
            and all(child["up"] and child["ready"] for child in tree["children"])
            and all(after[role] != pid for role, pid in before.items())
        )

    wait_until(over, f"{node.name} was restarted", within_s=60)
    assert not node.state["tree"].get("restart_problem")


def _pids(tree: Any) -> dict[str, int]:
    return {child["role"]: child["pid"] for child in tree["children"]}


def roll(fleet: Mapping[str, Node], ingresses: tuple[str, str], *, per_s: float, requests: int) -> Rolled:
    """Restart the whole fleet, again and again until `requests` were answered at two ingresses."""
    first, second = (fleet[name] for name in ingresses)
    with (
        OpenLoop(first.port, "/run/identity", ROW.encode(), per_s=per_s, expect=EXPECT) as one,
        OpenLoop(second.port, "/run/identity", ROW.encode(), per_s=per_s, expect=EXPECT) as two,
        Explained(first, one) as of_one,
        Explained(second, two) as of_two,
    ):
        wait_until(lambda: one.asked > 50 and two.asked > 50, "both are asked", within_s=10)
        rounds = 0
        while not rounds or one.asked + two.asked < requests:
            for node in fleet.values():
                restart(node)
                for other in fleet.values():
                    wait_until_joined(other, len(fleet) - 1, within_s=20)
            rounds += 1
    return Rolled(
        one.outcomes + two.outcomes, of_one.count + of_two.count, of_one.executions + of_two.executions
    )
