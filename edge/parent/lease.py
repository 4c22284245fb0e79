"""When does this node attract traffic?

`after` reads the lease's state and one signal and returns the next state and what to do
with the address: the table below is the whole truth, tests/spec/test_lease.py its
specification. `read` turns what is known of the proxy into a signal. No I/O and no clock:
all times are monotonic milliseconds that the caller read.

While the parent lives it deletes the address itself when the time is over. A dead or stopped
parent is seen by guard.py, which does the same. The kernel, told the same lease with each
renewal, is the net below both: it is a second late at times (guard.py has the numbers).
"""

from enum import StrEnum
from typing import Final, NamedTuple


class State(StrEnum):
    """Where the lease stands."""

    NEVER = "never"
    ANNOUNCED = "announced"
    #: Not renewed, not deleted: a new heartbeat within the lease saves every connection.
    LAPSING = "lapsing"
    WITHDRAWN = "withdrawn"
    #: Withdrawn by the operator, until the operator says otherwise.
    HELD = "held"
    STOPPED = "stopped"


class Signal(StrEnum):
    """What was seen of the proxy, or what was ordered; the value says why an address is away."""

    FRESH = "the proxy is well"
    DOWN = "no heartbeat from a running proxy"
    STALE = "the proxy's heartbeat is late"
    UNREADY = "the proxy says that it is not ready"
    OVERDUE = "no heartbeat within the lease"
    ON_TRIAL = "the proxy exited twice within its trial"
    WITHDRAW = "by the operator"
    ANNOUNCE = "waiting for the proxy"
    STOP = "the node stops"


class Do(StrEnum):
    """What to do with the address."""

    NOTHING = "nothing"
    RENEW = "renew"
    DELETE = "delete"


class Terms(NamedTuple):
    """The bounds, in milliseconds; `trial_ms` is both the window of two exits and the proof of health."""

    lease_ms: float
    heartbeat_max_age_ms: float
    trial_ms: float = 10_000.0


class Proxy(NamedTuple):
    """What the parent knows of its proxy; `born_ms` is None while none runs."""

    born_ms: float | None = None
    beat_ms: float | None = None
    ready: bool = False
    exit_ms: float | None = None
    on_trial: bool = False


class Lease(NamedTuple):
    """The state and, while the address is away or about to be, why."""

    state: State = State.NEVER
    why: str = ""

    def __str__(self) -> str:
        """As the operator reads it."""
        if self.state in (State.NEVER, State.ANNOUNCED):
            return str(self.state)
        return f"{'lapsing' if self.state is State.LAPSING else 'withdrawn'}: {self.why}"


def born(proxy: Proxy, now_ms: float) -> Proxy:
    """A proxy was started."""
    return proxy._replace(born_ms=now_ms, beat_ms=None, ready=False)


def beat(proxy: Proxy, now_ms: float, *, ready: bool) -> Proxy:
    """The running proxy spoke."""
    return proxy._replace(beat_ms=now_ms, ready=ready)


def replaced(proxy: Proxy, born_ms: float, now_ms: float) -> Proxy:
    """Another proxy, ready, took over as planned. Its age is its own: a trial goes on for it."""
    return proxy._replace(born_ms=born_ms, beat_ms=now_ms, ready=True)


def exited(proxy: Proxy, now_ms: float, terms: Terms) -> Proxy:
    """The proxy is gone. A second exit within the trial, or one during a trial, begins a trial anew."""
    again = proxy.exit_ms is not None and now_ms - proxy.exit_ms < terms.trial_ms
    young = proxy.born_ms is not None and now_ms - proxy.born_ms < terms.trial_ms
    on_trial = again or (proxy.on_trial and young)
    return Proxy(exit_ms=now_ms, on_trial=on_trial)


def read(proxy: Proxy, terms: Terms, renewed_ms: float | None, now_ms: float) -> Signal:
    """The most serious thing that is true now; `renewed_ms` is the last renewal of the address."""
    if proxy.on_trial and (proxy.born_ms is None or now_ms - proxy.born_ms < terms.trial_ms):
        return Signal.ON_TRIAL
    age_ms = None if proxy.born_ms is None or proxy.beat_ms is None else now_ms - proxy.beat_ms
    if age_ms is not None and age_ms <= terms.heartbeat_max_age_ms and proxy.ready:
        return Signal.FRESH
    silent = age_ms is not None and age_ms >= terms.lease_ms
    if silent or (renewed_ms is not None and now_ms - renewed_ms >= terms.lease_ms):
        return Signal.OVERDUE
    if age_ms is None:
        return Signal.DOWN
    return Signal.STALE if age_ms > terms.heartbeat_max_age_ms else Signal.UNREADY


#: What is not listed changes nothing.
TABLE: Final[dict[State, dict[Signal, tuple[State, Do]]]] = {
    State.NEVER: {
        Signal.FRESH: (State.ANNOUNCED, Do.RENEW),
        Signal.ON_TRIAL: (State.WITHDRAWN, Do.DELETE),
        Signal.WITHDRAW: (State.HELD, Do.DELETE),
        Signal.STOP: (State.STOPPED, Do.DELETE),
    },
    State.ANNOUNCED: {
        Signal.FRESH: (State.ANNOUNCED, Do.RENEW),
        Signal.DOWN: (State.LAPSING, Do.NOTHING),
        Signal.STALE: (State.LAPSING, Do.NOTHING),
        Signal.UNREADY: (State.LAPSING, Do.NOTHING),
        Signal.OVERDUE: (State.WITHDRAWN, Do.DELETE),
        Signal.ON_TRIAL: (State.WITHDRAWN, Do.DELETE),
        Signal.WITHDRAW: (State.HELD, Do.DELETE),
        Signal.STOP: (State.STOPPED, Do.DELETE),
    },
    State.LAPSING: {
        Signal.FRESH: (State.ANNOUNCED, Do.RENEW),
        Signal.OVERDUE: (State.WITHDRAWN, Do.DELETE),
        Signal.ON_TRIAL: (State.WITHDRAWN, Do.DELETE),
        Signal.WITHDRAW: (State.HELD, Do.DELETE),
        Signal.STOP: (State.STOPPED, Do.DELETE),
    },
    State.WITHDRAWN: {
        Signal.FRESH: (State.ANNOUNCED, Do.RENEW),
        Signal.WITHDRAW: (State.HELD, Do.DELETE),
        Signal.STOP: (State.STOPPED, Do.DELETE),
    },
    State.HELD: {
        Signal.WITHDRAW: (State.HELD, Do.DELETE),
        Signal.ANNOUNCE: (State.WITHDRAWN, Do.NOTHING),
        Signal.STOP: (State.STOPPED, Do.DELETE),
    },
    State.STOPPED: {},
}


def after(lease: Lease, signal: Signal) -> tuple[Lease, Do]:
    """The next state, and what to do with the address now."""
    found = TABLE[lease.state].get(signal)
    if found is None:
        return lease, Do.NOTHING
    state, do = found
    why = "" if state is State.ANNOUNCED else str(signal)
    return Lease(state, why), do
