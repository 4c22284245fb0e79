"""When does this node attract traffic?

`after` reads the lease's state and one signal and returns the next state and what to do
with the address: the table below is the whole truth, tests/spec/test_lease.py its
specification. `read` turns what is known of the proxy into a signal. No I/O and no clock:
all times are monotonic milliseconds that the caller read.

A node that is drained, or on trial, announces all the same while its proxy is well and knows that
no other node does: somebody who refuses is better than nobody who answers. It takes a second of that
knowledge to begin, and the first word of another one to end; not to know does neither (policy/others.py).

While the parent lives it deletes the address itself when the time is over. A dead or stopped
parent is seen by guard.py, which does the same. The kernel, told the same lease with each
renewal, is the net below both: it is a second late at times (guard.py has the numbers).
"""

from enum import StrEnum
from typing import Final, NamedTuple

from edge.policy.others import Others


class State(StrEnum):
    """Where the lease stands."""

    NEVER = "never"
    ANNOUNCED = "announced"
    #: Not renewed, not deleted: a new heartbeat within the lease saves every connection.
    LAPSING = "lapsing"
    WITHDRAWN = "withdrawn"
    #: Withdrawn by the operator, until the operator says otherwise.
    HELD = "held"
    #: Withdrawn as long as another node announces, until the operator says otherwise.
    DRAINED = "drained"
    #: Announced because nobody else does, though drained or on trial.
    LAST = "last"
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
    DRAIN = "drained by the operator"
    NEEDED = "no other node announces"
    UNSURE = "another node may announce"
    ANNOUNCE = "waiting for the proxy"
    STOP = "the node stops"


class Do(StrEnum):
    """What to do with the address."""

    NOTHING = "nothing"
    RENEW = "renew"
    DELETE = "delete"


class Terms(NamedTuple):
    """The bounds, in milliseconds; `trial_ms` is both the window of two exits and the proof of health.

    `alone_ms`: another node that starts its proxy anew says for a moment that it does not announce.
    """

    lease_ms: float
    heartbeat_max_age_ms: float
    trial_ms: float = 10_000.0
    alone_ms: float = 1_000.0


class Proxy(NamedTuple):
    """What the parent knows of its proxy; `born_ms` is None while none runs.

    `others` is what it knows of them, `alone_since_ms` since when it knows that nobody announces.
    """

    born_ms: float | None = None
    beat_ms: float | None = None
    ready: bool = False
    exit_ms: float | None = None
    on_trial: bool = False
    others: Others = Others.UNKNOWN
    alone_since_ms: float | None = None


class Lease(NamedTuple):
    """The state and, while the address is away or about to be, why."""

    state: State = State.NEVER
    why: str = ""

    def __str__(self) -> str:
        """As the operator reads it."""
        if self.state in (State.NEVER, State.ANNOUNCED):
            return str(self.state)
        return f"{_SPOKEN.get(self.state, 'withdrawn')}: {self.why}"


_SPOKEN: Final = {State.LAPSING: "lapsing", State.LAST: "announced as the last one"}


def born(proxy: Proxy, now_ms: float) -> Proxy:
    """A proxy was started."""
    return proxy._replace(born_ms=now_ms, beat_ms=None, ready=False)


def beat(proxy: Proxy, now_ms: float, *, ready: bool, others: Others = Others.UNKNOWN) -> Proxy:
    """The running proxy spoke."""
    since_ms = now_ms if proxy.alone_since_ms is None else proxy.alone_since_ms
    alone_since_ms = since_ms if others is Others.NOBODY else None
    return proxy._replace(beat_ms=now_ms, ready=ready, others=others, alone_since_ms=alone_since_ms)


def replaced(proxy: Proxy, born_ms: float, now_ms: float) -> Proxy:
    """Another proxy, ready, took over as planned. Its age is its own: a trial goes on for it."""
    return proxy._replace(born_ms=born_ms, beat_ms=now_ms, ready=True)


def exited(proxy: Proxy, now_ms: float, terms: Terms) -> Proxy:
    """The proxy is gone. A second exit within the trial, or one during a trial, begins a trial anew."""
    again = proxy.exit_ms is not None and now_ms - proxy.exit_ms < terms.trial_ms
    young = proxy.born_ms is not None and now_ms - proxy.born_ms < terms.trial_ms
    on_trial = again or (proxy.on_trial and young)
    return Proxy(exit_ms=now_ms, on_trial=on_trial)


def read(
    proxy: Proxy, terms: Terms, renewed_ms: float | None, now_ms: float, *, drained: bool = False
) -> Signal:
    """The most serious thing that is true now; `renewed_ms` is the last renewal of the address."""
    age_ms = None if proxy.born_ms is None or proxy.beat_ms is None else now_ms - proxy.beat_ms
    well = age_ms is not None and age_ms <= terms.heartbeat_max_age_ms and proxy.ready
    on_trial = proxy.on_trial and (proxy.born_ms is None or now_ms - proxy.born_ms < terms.trial_ms)
    if on_trial or drained:
        if well and proxy.others is not Others.SOMEBODY:
            since_ms = proxy.alone_since_ms
            alone = since_ms is not None and now_ms - since_ms >= terms.alone_ms
            return Signal.NEEDED if alone else Signal.UNSURE
        if on_trial or well:
            return Signal.DRAIN if drained else Signal.ON_TRIAL
    elif well:
        return Signal.FRESH
    silent = age_ms is not None and age_ms >= terms.lease_ms
    if silent or (renewed_ms is not None and now_ms - renewed_ms >= terms.lease_ms):
        return Signal.DRAIN if drained else Signal.OVERDUE
    if age_ms is None:
        return Signal.DOWN
    return Signal.STALE if age_ms > terms.heartbeat_max_age_ms else Signal.UNREADY


#: What is not listed changes nothing.
TABLE: Final[dict[State, dict[Signal, tuple[State, Do]]]] = {
    State.NEVER: {
        Signal.FRESH: (State.ANNOUNCED, Do.RENEW),
        Signal.ON_TRIAL: (State.WITHDRAWN, Do.DELETE),
        Signal.DRAIN: (State.DRAINED, Do.DELETE),
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
        Signal.DRAIN: (State.DRAINED, Do.DELETE),
        Signal.WITHDRAW: (State.HELD, Do.DELETE),
        Signal.STOP: (State.STOPPED, Do.DELETE),
    },
    State.LAPSING: {
        Signal.FRESH: (State.ANNOUNCED, Do.RENEW),
        Signal.OVERDUE: (State.WITHDRAWN, Do.DELETE),
        Signal.ON_TRIAL: (State.WITHDRAWN, Do.DELETE),
        Signal.DRAIN: (State.DRAINED, Do.DELETE),
        Signal.WITHDRAW: (State.HELD, Do.DELETE),
        Signal.STOP: (State.STOPPED, Do.DELETE),
    },
    State.WITHDRAWN: {
        Signal.FRESH: (State.ANNOUNCED, Do.RENEW),
        Signal.NEEDED: (State.LAST, Do.RENEW),
        Signal.DRAIN: (State.DRAINED, Do.DELETE),
        Signal.WITHDRAW: (State.HELD, Do.DELETE),
        Signal.STOP: (State.STOPPED, Do.DELETE),
    },
    State.HELD: {
        Signal.WITHDRAW: (State.HELD, Do.DELETE),
        Signal.ANNOUNCE: (State.WITHDRAWN, Do.NOTHING),
        Signal.STOP: (State.STOPPED, Do.DELETE),
    },
    State.DRAINED: {
        Signal.NEEDED: (State.LAST, Do.RENEW),
        Signal.WITHDRAW: (State.HELD, Do.DELETE),
        Signal.ANNOUNCE: (State.WITHDRAWN, Do.NOTHING),
        Signal.STOP: (State.STOPPED, Do.DELETE),
    },
    State.LAST: {
        Signal.FRESH: (State.ANNOUNCED, Do.RENEW),
        Signal.NEEDED: (State.LAST, Do.RENEW),
        Signal.UNSURE: (State.LAST, Do.RENEW),
        Signal.OVERDUE: (State.WITHDRAWN, Do.DELETE),
        Signal.ON_TRIAL: (State.WITHDRAWN, Do.DELETE),
        Signal.DRAIN: (State.DRAINED, Do.DELETE),
        Signal.WITHDRAW: (State.HELD, Do.DELETE),
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
