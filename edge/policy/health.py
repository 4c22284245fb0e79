"""What is known of one node's health, and what that says about choosing it. Pure.

Two things are watched apart: silence (nothing heard of it: `heard`) and failing exchanges
(the breaker). `TRANSITIONS` is the whole breaker. It opens after 3 failures in a row or
half of the last 20, for 1 s that double up to 30 s; then one request may try, and its
outcome decides. Where none comes, since others are nearer, a node that speaks for 10 s more is on
probation like one that was tried. What a failure is, the caller says with `blamed`: a refusal that came with
fresh state is none. Nothing here knows links, beacons or how long a request may take.

Numbers: facts of Envoy, HAProxy and Finagle; the slow start is HAProxy's `slowstart`.
"""

import math
from enum import StrEnum
from typing import Final

import msgspec

from edge.errors import Reason
from edge.policy.facts import Standing

CONSECUTIVE: Final = 3
WINDOW: Final = 20
WINDOW_FAILURES: Final = 10
OPEN_MIN_MS: Final = 1_000.0
OPEN_MAX_MS: Final = 30_000.0
#: Nobody has tried it for so long since its wait ended, and it goes on speaking.
UNTRIED_MS: Final = 10_000.0
#: The one request that tries a node again may end without an outcome (its client left): then another may.
PROBE_MS: Final = 5_000.0
#: After the breaker closed: so long the node is suspect, and one failure opens it again.
SLOW_START_MS: Final = 10_000.0
NEVER_MS: Final = -math.inf

_MASK: Final = (1 << WINDOW) - 1

#: Failures that say something about the node. Not here: a refusal (it told its state), a lost worker
#: (its beacon tells), a deadline (the client chose it), a load or an input that is wrong everywhere.
BLAMED: Final = frozenset({Reason.LINK_LOST, Reason.PROTOCOL, Reason.INTERNAL, Reason.INFER_FAILED})


class Breaker(StrEnum):
    """Exchanges go there; none may; one may; one is on its way."""

    CLOSED = "closed"
    OPEN = "open"
    READY = "ready"
    PROBING = "probing"


class Event(StrEnum):
    """What the breaker reacts to. `TRIPPED` is a failure that reached a bound, `RESTED` the end of a wait,
    `VOUCHED` that nobody tried the node, which speaks.
    """

    SENT = "sent"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TRIPPED = "tripped"
    RESTED = "rested"
    VOUCHED = "vouched"


TRANSITIONS: Final[dict[tuple[Breaker, Event], Breaker]] = {
    (Breaker.CLOSED, Event.SENT): Breaker.CLOSED,
    (Breaker.CLOSED, Event.SUCCEEDED): Breaker.CLOSED,
    (Breaker.CLOSED, Event.FAILED): Breaker.CLOSED,
    (Breaker.CLOSED, Event.TRIPPED): Breaker.OPEN,
    (Breaker.CLOSED, Event.RESTED): Breaker.CLOSED,
    # Outcomes while open belong to exchanges that began before: they neither close nor prolong it.
    (Breaker.OPEN, Event.SENT): Breaker.OPEN,
    (Breaker.OPEN, Event.SUCCEEDED): Breaker.OPEN,
    (Breaker.OPEN, Event.FAILED): Breaker.OPEN,
    (Breaker.OPEN, Event.TRIPPED): Breaker.OPEN,
    (Breaker.OPEN, Event.RESTED): Breaker.READY,
    (Breaker.READY, Event.SENT): Breaker.PROBING,
    (Breaker.READY, Event.SUCCEEDED): Breaker.CLOSED,
    (Breaker.READY, Event.FAILED): Breaker.OPEN,
    (Breaker.READY, Event.TRIPPED): Breaker.OPEN,
    (Breaker.READY, Event.RESTED): Breaker.READY,
    (Breaker.PROBING, Event.SENT): Breaker.PROBING,
    (Breaker.PROBING, Event.SUCCEEDED): Breaker.CLOSED,
    (Breaker.PROBING, Event.FAILED): Breaker.OPEN,
    (Breaker.PROBING, Event.TRIPPED): Breaker.OPEN,
    (Breaker.PROBING, Event.RESTED): Breaker.READY,
    (Breaker.CLOSED, Event.VOUCHED): Breaker.CLOSED,
    (Breaker.OPEN, Event.VOUCHED): Breaker.OPEN,
    (Breaker.READY, Event.VOUCHED): Breaker.CLOSED,
    (Breaker.PROBING, Event.VOUCHED): Breaker.PROBING,
}


class Limits(msgspec.Struct, frozen=True, gc=False):
    """Silence after which a node is suspect, unroutable, forgotten (config `mesh.*_ms`)."""

    suspect_ms: float
    unroutable_ms: float
    forget_ms: float


class Health(msgspec.Struct, frozen=True, gc=False):
    """One node; times are this node's clock. A fresh one was never heard of.

    `failures` in a row; `window` has a 1 bit for each failure of the last `seen` <= 20 outcomes;
    `open_until_ms` ends the present wait, `open_for_ms` is how long the breaker was opened last
    (0: not lately); `since_ms` is when it closed again.
    """

    breaker: Breaker = Breaker.CLOSED
    failures: int = 0
    window: int = 0
    seen: int = 0
    open_until_ms: float = NEVER_MS
    open_for_ms: float = 0.0
    heard_ms: float = NEVER_MS
    since_ms: float = NEVER_MS


def blamed(reason: Reason) -> bool:
    """Does a failure with this reason count against the node that it came from?"""
    return reason in BLAMED


def heard(h: Health, now_ms: float, *, new_boot: bool = False) -> Health:
    """Fresh state of it arrived. `new_boot`: of a process that has just started.

    Failures of the process before do not count any more; an open breaker becomes ready at once.
    """
    heard_ms = max(h.heard_ms, now_ms)
    if not new_boot:
        before = at(h, now_ms)
        untried = before is not Breaker.CLOSED and now_ms - h.open_until_ms >= UNTRIED_MS
        if untried and TRANSITIONS[before, Event.VOUCHED] is Breaker.CLOSED:
            return Health(open_for_ms=h.open_for_ms, heard_ms=heard_ms, since_ms=now_ms)
        return msgspec.structs.replace(h, heard_ms=heard_ms)
    open_until_ms = min(h.open_until_ms, now_ms)
    return msgspec.structs.replace(
        h, heard_ms=heard_ms, failures=0, window=0, seen=0, open_until_ms=open_until_ms
    )


def sent(h: Health, now_ms: float) -> Health:
    """A request goes there: when the breaker is ready, this is the one that tries."""
    if h.breaker is Breaker.CLOSED:
        return h
    before = at(h, now_ms)
    after = TRANSITIONS[before, Event.SENT]
    if after is before:
        return h
    return msgspec.structs.replace(h, breaker=after, open_until_ms=now_ms + PROBE_MS)


def succeeded(h: Health, now_ms: float) -> Health:
    """An exchange ended with an answer."""
    before = at(h, now_ms)
    if before is Breaker.CLOSED:
        if h.seen == WINDOW and not h.window and not h.open_for_ms:
            return h
        return msgspec.structs.replace(
            h,
            failures=0,
            window=h.window << 1 & _MASK,
            seen=min(WINDOW, h.seen + 1),
            open_for_ms=h.open_for_ms if _on_probation(h, now_ms) else 0.0,
        )
    if TRANSITIONS[before, Event.SUCCEEDED] is not Breaker.CLOSED:
        return h
    return Health(open_for_ms=h.open_for_ms, heard_ms=h.heard_ms, since_ms=now_ms)


def failed(h: Health, now_ms: float) -> Health:
    """An exchange ended with a failure that is `blamed`."""
    before = at(h, now_ms)
    if before is Breaker.OPEN:
        return h
    failures = h.failures + 1
    window = (h.window << 1 | 1) & _MASK
    seen = min(WINDOW, h.seen + 1)
    tripped = (
        failures >= CONSECUTIVE
        or (seen == WINDOW and window.bit_count() >= WINDOW_FAILURES)
        or _on_probation(h, now_ms)
    )
    after = TRANSITIONS[before, Event.TRIPPED if tripped else Event.FAILED]
    if after is not Breaker.OPEN:
        return msgspec.structs.replace(h, failures=failures, window=window, seen=seen)
    open_for_ms = min(OPEN_MAX_MS, max(OPEN_MIN_MS, 2.0 * h.open_for_ms))
    return msgspec.structs.replace(
        h,
        breaker=Breaker.OPEN,
        failures=failures,
        window=window,
        seen=seen,
        open_until_ms=now_ms + open_for_ms,
        open_for_ms=open_for_ms,
    )


def at(h: Health, now_ms: float) -> Breaker:
    """The breaker now: waits that are over have ended."""
    if h.breaker is Breaker.CLOSED or now_ms < h.open_until_ms:
        return h.breaker
    return TRANSITIONS[h.breaker, Event.RESTED]


def standing(h: Health, now_ms: float, limits: Limits, *, draining: bool) -> Standing:
    """Whether it may be chosen. `draining` is what it says of itself."""
    silent_ms = now_ms - h.heard_ms
    breaker = at(h, now_ms)
    if silent_ms >= limits.unroutable_ms or breaker in (Breaker.OPEN, Breaker.PROBING):
        return Standing.OUT
    if draining:
        return Standing.DRAINING
    if silent_ms >= limits.suspect_ms or breaker is Breaker.READY or _on_probation(h, now_ms):
        return Standing.SUSPECT
    return Standing.GOOD


def forgotten(h: Health, now_ms: float, limits: Limits) -> bool:
    """Was it heard of once, and then not for so long that it is taken to be gone for good?"""
    return h.heard_ms != NEVER_MS and now_ms - h.heard_ms >= limits.forget_ms


def _on_probation(h: Health, now_ms: float) -> bool:
    return h.breaker is Breaker.CLOSED and now_ms - h.since_ms < SLOW_START_MS
