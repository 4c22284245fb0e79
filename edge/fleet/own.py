"""A worker of this node in the fleet's books: what is on its device, and how much work is in it.

The worker's link reports here, the request path counts here; `edge.fleet.snapshot` reads it
for decisions and for this node's beacon. No I/O, no opinion.
"""

import math
from collections.abc import Callable
from typing import Final

from edge import clock
from edge.policy.facts import Live, OnDevice, State

#: Weight of a new sample in a learned time.
EWMA: Final = 0.1
ARRIVALS_TAU_MS: Final = 2_000.0
#: Models whose times are remembered; a catalogue has fewer that are in use.
MAX_LEARNED: Final = 4_096


class Rate:
    """Events per second, each forgotten with the time constant `tau_ms`."""

    __slots__ = ("_at_ms", "_tau_ms", "_value")

    def __init__(self, tau_ms: float) -> None:
        self._tau_ms = tau_ms
        self._value = 0.0
        self._at_ms = 0.0

    def add(self, now_ms: float) -> None:
        """One more."""
        self._value = self._value * math.exp((self._at_ms - now_ms) / self._tau_ms) + 1000.0 / self._tau_ms
        self._at_ms = now_ms

    def per_s(self, now_ms: float) -> float:
        """How many per second lately."""
        return self._value * math.exp((self._at_ms - now_ms) / self._tau_ms)


class OwnWorker:
    """One worker of this node."""

    def __init__(
        self,
        name: str,
        *,
        device: str,
        device_bytes: int,
        soft_limit: int,
        hard_limit: int,
        capacity_freed: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        self.device = device
        self.device_bytes = device_bytes
        self.soft_limit = soft_limit
        self.hard_limit = hard_limit
        self.state = State.DOWN
        self.models: dict[str, OnDevice] = {}
        self.used_bytes = 0
        self.live = Live()
        self.version = 0
        self._arrivals = Rate(ARRIVALS_TAU_MS)
        self._ready_at_ms: dict[str, float] = {}
        self._loader_free_at_ms = 0.0
        self._learned: dict[str, OnDevice] = {}
        self._capacity_freed = capacity_freed
        self._changed = changed

    # --- what the worker's link tells

    def set_state(self, state: State) -> None:
        """It came up, is starting, or went down; then nothing is on its device."""
        self.state = state
        if state is not State.UP:
            self.models = {}
            self._ready_at_ms.clear()
        self._touch()

    def loading(self, digest: str, ready_at_ms: float) -> None:
        """It is on its way to the device, ready at about that time of this node's clock."""
        self._ready_at_ms[digest] = ready_at_ms
        self._put(digest, OnDevice(eta_ms=max(1.0, ready_at_ms - clock.now_ms())))

    def resident(self, digest: str, load_ms: float = 0.0, device_bytes: int = 0) -> None:
        """It is on the device and takes so much there; loading it took `load_ms`. 0: not known."""
        self._ready_at_ms.pop(digest, None)
        known = self._learned.get(digest, OnDevice())
        learned = OnDevice(
            0.0,
            known.service_ms,
            known.cost_ms,
            load_ms or known.load_ms,
            device_bytes or known.device_bytes,
        )
        if len(self._learned) >= MAX_LEARNED:
            self._learned.clear()
        self._learned[digest] = learned
        self._put(digest, learned)

    def gone(self, digest: str) -> None:
        """It is not on the device, nor on its way."""
        self._ready_at_ms.pop(digest, None)
        if digest in self.models:
            self.models = {key: known for key, known in self.models.items() if key != digest}
            self._touch()

    def loader_wait(self, wait_ms: float) -> None:
        """Another load could begin after so long."""
        self._loader_free_at_ms = clock.now_ms() + wait_ms
        self._touch()

    @property
    def loader_wait_ms(self) -> float:
        """Until another load could begin."""
        return max(0.0, self._loader_free_at_ms - clock.now_ms())

    def loader_left_ms(self, now_ms: float) -> float:
        """Like `loader_wait_ms`, at a given time."""
        return max(0.0, self._loader_free_at_ms - now_ms)

    def refresh_etas(self, now_ms: float) -> None:
        """Count the ETAs of loads under way from now."""
        for digest, ready_at_ms in self._ready_at_ms.items():
            self._put(digest, OnDevice(eta_ms=max(1.0, ready_at_ms - now_ms)))

    # --- what the request path counts

    def begin(self, cost_ms: float) -> None:
        """A request was sent there; it keeps the device for about `cost_ms`."""
        live = self.live
        live.in_flight += 1
        live.unseen += 1
        live.unseen_ms += cost_ms
        self._arrivals.add(clock.now_ms())

    def end(self, cost_ms: float) -> None:
        """It ended, however; `cost_ms` as it was given to `begin`."""
        live = self.live
        live.in_flight -= 1
        live.unseen -= 1
        live.unseen_ms = max(0.0, live.unseen_ms - cost_ms) if live.in_flight else 0.0
        self._capacity_freed()

    def learn(self, digest: str, infer_ms: float, batch: int) -> None:
        """One answer: its time on the device, shared with `batch` requests in all."""
        known = self._learned.get(digest)
        if known is None:
            learned = OnDevice(0.0, infer_ms, infer_ms / batch)
        elif known.service_ms <= 0.0:
            learned = OnDevice(0.0, infer_ms, infer_ms / batch, known.load_ms, known.device_bytes)
        else:
            learned = OnDevice(
                0.0,
                known.service_ms + (infer_ms - known.service_ms) * EWMA,
                known.cost_ms + (infer_ms / batch - known.cost_ms) * EWMA,
                known.load_ms,
                known.device_bytes,
            )
        self._learned[digest] = learned
        if digest in self.models and self.models[digest].eta_ms <= 0.0:
            # In place: a time that moves by a tenth is no news, and this runs for every request.
            self.models[digest] = learned

    def cost_ms(self, digest: str, otherwise_ms: float) -> float:
        """What one request of this model keeps the device for."""
        known = self._learned.get(digest)
        return known.cost_ms if known is not None and known.cost_ms > 0.0 else otherwise_ms

    def arrivals_per_s(self, now_ms: float) -> float:
        """Requests per second lately."""
        return self._arrivals.per_s(now_ms)

    def _put(self, digest: str, known: OnDevice) -> None:
        self.models = {**self.models, digest: known}
        self._touch()

    def _touch(self) -> None:
        self.version += 1
        self._changed()
