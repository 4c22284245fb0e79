"""The world as this node sees it, kept so that a decision reads it in one look.

`Fleet` counts what this node sends where and which endpoints are up; `current` freezes it
for one decision. No I/O: links and workers report here, the handler reads here.
"""

from collections.abc import Callable
from typing import Final

from edge.policy.facts import Endpoint, Snapshot, State

#: Weight of a new sample in the service time of an endpoint.
EWMA: Final = 0.1


class EndpointState:
    """The running state of one endpoint; frozen into `Endpoint` for each decision."""

    __slots__ = (
        "_capacity_freed",
        "_changed",
        "hard_limit",
        "home",
        "in_flight",
        "name",
        "service_ms",
        "soft_limit",
        "state",
        "warm",
    )

    def __init__(
        self,
        name: str,
        *,
        home: bool,
        soft_limit: int,
        hard_limit: int,
        capacity_freed: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        self.home = home
        self.state = State.DOWN
        self.in_flight = 0
        self.soft_limit = soft_limit
        self.hard_limit = hard_limit
        self.warm: set[str] = set()
        self.service_ms = 0.0
        self._capacity_freed = capacity_freed
        self._changed = changed

    def begin(self) -> None:
        """One more request was sent there."""
        self.in_flight += 1

    def end(self, service_ms: float | None) -> None:
        """It ended; `service_ms` is its time there, None when it failed."""
        self.in_flight -= 1
        if service_ms is not None:
            self.service_ms += (service_ms - self.service_ms) * (EWMA if self.service_ms else 1.0)
        self._capacity_freed()

    def set_state(self, state: State) -> None:
        """It came up, is starting, or went down."""
        self.state = state
        if state is not State.UP:
            self.warm.clear()
        self._changed()


class Fleet:
    """Every endpoint this node may choose, and the bounds of its queue."""

    def __init__(self, *, max_waiting: int, max_wait_ms: float, max_cold_wait_ms: float) -> None:
        self.endpoints: dict[str, EndpointState] = {}
        self.waiting = 0
        self._max_waiting = max_waiting
        self._max_wait_ms = max_wait_ms
        self._max_cold_wait_ms = max_cold_wait_ms

    def add(self, endpoint: EndpointState) -> None:
        """Names are unique; a second one of the same name is a fault of the configuration."""
        if endpoint.name in self.endpoints:
            raise ValueError(f"endpoint {endpoint.name} exists")
        self.endpoints[endpoint.name] = endpoint

    def current(self, digest: str) -> Snapshot:
        """The world for a request of the model with this manifest digest."""
        return Snapshot(
            tuple(
                [
                    Endpoint(
                        e.name,
                        e.home,
                        e.state,
                        e.in_flight,
                        e.soft_limit,
                        e.hard_limit,
                        digest in e.warm,
                        e.service_ms,
                    )
                    for e in self.endpoints.values()
                ]
            ),
            self.waiting,
            self._max_waiting,
            self._max_wait_ms,
            self._max_cold_wait_ms,
        )

    def __repr__(self) -> str:
        parts = [f"{e.name} {e.state} {e.in_flight}/{e.hard_limit}" for e in self.endpoints.values()]
        return f"<Fleet {', '.join(parts) or 'no endpoints'}; {self.waiting} waiting>"
