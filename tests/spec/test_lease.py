"""The lease, row by row: which state and signal lead where, and how the proxy's life is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.parent.keeper import next_backoff_ms
from edge.parent.lease import (
    TABLE,
    Do,
    Lease,
    Proxy,
    Signal,
    State,
    Terms,
    after,
    beat,
    born,
    exited,
    read,
    replaced,
)
from edge.policy.others import Others

TERMS = Terms(lease_ms=2000.0, heartbeat_max_age_ms=700.0, trial_ms=10_000.0)
NEVER, ANNOUNCED, LAPSING = State.NEVER, State.ANNOUNCED, State.LAPSING
WITHDRAWN, HELD, STOPPED = State.WITHDRAWN, State.HELD, State.STOPPED
DRAINED, LAST = State.DRAINED, State.LAST
SOMEBODY, NOBODY, UNKNOWN = Others.SOMEBODY, Others.NOBODY, Others.UNKNOWN
WELL = Proxy(born_ms=0.0, beat_ms=100_000.0, ready=True)

MOVES = [
    ("the first good heartbeat announces", NEVER, Signal.FRESH, ANNOUNCED, Do.RENEW),
    ("a proxy that does not come up attracts nobody", NEVER, Signal.DOWN, NEVER, Do.NOTHING),
    ("a proxy that is not ready attracts nobody", NEVER, Signal.UNREADY, NEVER, Do.NOTHING),
    ("a late first heartbeat waits", NEVER, Signal.STALE, NEVER, Do.NOTHING),
    ("nothing to withdraw before the first announcement", NEVER, Signal.OVERDUE, NEVER, Do.NOTHING),
    ("crashing from the start is a trial", NEVER, Signal.ON_TRIAL, WITHDRAWN, Do.DELETE),
    ("the operator may withdraw before the first announcement", NEVER, Signal.WITHDRAW, HELD, Do.DELETE),
    ("announcing before the first heartbeat waits for it", NEVER, Signal.ANNOUNCE, NEVER, Do.NOTHING),
    ("each good look renews", ANNOUNCED, Signal.FRESH, ANNOUNCED, Do.RENEW),
    ("a dead proxy has the lease's time to come back", ANNOUNCED, Signal.DOWN, LAPSING, Do.NOTHING),
    ("a silent proxy is not renewed", ANNOUNCED, Signal.STALE, LAPSING, Do.NOTHING),
    ("a proxy that says it is not ready is not renewed", ANNOUNCED, Signal.UNREADY, LAPSING, Do.NOTHING),
    ("a parent that slept through the lease deletes", ANNOUNCED, Signal.OVERDUE, WITHDRAWN, Do.DELETE),
    ("a second exit deletes at once", ANNOUNCED, Signal.ON_TRIAL, WITHDRAWN, Do.DELETE),
    ("the operator withdraws at once", ANNOUNCED, Signal.WITHDRAW, HELD, Do.DELETE),
    ("announcing what is announced changes nothing", ANNOUNCED, Signal.ANNOUNCE, ANNOUNCED, Do.NOTHING),
    ("a stop deletes first", ANNOUNCED, Signal.STOP, STOPPED, Do.DELETE),
    ("back within the lease, nothing was lost", LAPSING, Signal.FRESH, ANNOUNCED, Do.RENEW),
    ("still down, still lapsing", LAPSING, Signal.DOWN, LAPSING, Do.NOTHING),
    ("up again but not ready, still lapsing", LAPSING, Signal.UNREADY, LAPSING, Do.NOTHING),
    ("still silent, still lapsing", LAPSING, Signal.STALE, LAPSING, Do.NOTHING),
    ("the lease is over: delete, the kernel may lag", LAPSING, Signal.OVERDUE, WITHDRAWN, Do.DELETE),
    ("a second exit while lapsing deletes at once", LAPSING, Signal.ON_TRIAL, WITHDRAWN, Do.DELETE),
    ("the operator withdraws while lapsing", LAPSING, Signal.WITHDRAW, HELD, Do.DELETE),
    ("a stop while lapsing deletes", LAPSING, Signal.STOP, STOPPED, Do.DELETE),
    ("withdrawn for sickness ends with health", WITHDRAWN, Signal.FRESH, ANNOUNCED, Do.RENEW),
    ("a trial goes on", WITHDRAWN, Signal.ON_TRIAL, WITHDRAWN, Do.NOTHING),
    ("withdrawn and still down", WITHDRAWN, Signal.DOWN, WITHDRAWN, Do.NOTHING),
    ("the operator may hold what is withdrawn", WITHDRAWN, Signal.WITHDRAW, HELD, Do.DELETE),
    ("a stop deletes even what should be gone", WITHDRAWN, Signal.STOP, STOPPED, Do.DELETE),
    ("health does not overrule the operator", HELD, Signal.FRESH, HELD, Do.NOTHING),
    ("a crash does not overrule the operator", HELD, Signal.ON_TRIAL, HELD, Do.NOTHING),
    ("the operator withdraws twice", HELD, Signal.WITHDRAW, HELD, Do.DELETE),
    ("the operator lets go, health decides", HELD, Signal.ANNOUNCE, WITHDRAWN, Do.NOTHING),
    ("a stop while held", HELD, Signal.STOP, STOPPED, Do.DELETE),
    ("a drain before the first announcement", NEVER, Signal.DRAIN, DRAINED, Do.DELETE),
    ("a drain deletes at once", ANNOUNCED, Signal.DRAIN, DRAINED, Do.DELETE),
    ("a drain while lapsing", LAPSING, Signal.DRAIN, DRAINED, Do.DELETE),
    ("a sick node is drained", WITHDRAWN, Signal.DRAIN, DRAINED, Do.DELETE),
    ("a drain does not loosen a withdrawal", HELD, Signal.DRAIN, HELD, Do.NOTHING),
    ("health does not end a drain", DRAINED, Signal.FRESH, DRAINED, Do.NOTHING),
    ("drained, and others announce", DRAINED, Signal.DRAIN, DRAINED, Do.NOTHING),
    ("drained, and others may announce", DRAINED, Signal.UNSURE, DRAINED, Do.NOTHING),
    ("drained, and nobody is left", DRAINED, Signal.NEEDED, LAST, Do.RENEW),
    ("on trial, and nobody is left", WITHDRAWN, Signal.NEEDED, LAST, Do.RENEW),
    ("on trial, and others may announce", WITHDRAWN, Signal.UNSURE, WITHDRAWN, Do.NOTHING),
    ("who is withdrawn by order is not asked", HELD, Signal.NEEDED, HELD, Do.NOTHING),
    ("a withdrawal on top of a drain", DRAINED, Signal.WITHDRAW, HELD, Do.DELETE),
    ("the end of a drain: health decides", DRAINED, Signal.ANNOUNCE, WITHDRAWN, Do.NOTHING),
    ("a stop while drained", DRAINED, Signal.STOP, STOPPED, Do.DELETE),
    ("the last one renews", LAST, Signal.NEEDED, LAST, Do.RENEW),
    ("and stays when it hears nobody any more", LAST, Signal.UNSURE, LAST, Do.RENEW),
    ("another one announces: drained again", LAST, Signal.DRAIN, DRAINED, Do.DELETE),
    ("another one announces: on trial again", LAST, Signal.ON_TRIAL, WITHDRAWN, Do.DELETE),
    ("the last one is taken back, or its trial is over", LAST, Signal.FRESH, ANNOUNCED, Do.RENEW),
    ("its proxy may come back within the lease", LAST, Signal.DOWN, LAST, Do.NOTHING),
    ("its heartbeat is late", LAST, Signal.STALE, LAST, Do.NOTHING),
    ("and does not come", LAST, Signal.OVERDUE, WITHDRAWN, Do.DELETE),
    ("the operator withdraws even the last one", LAST, Signal.WITHDRAW, HELD, Do.DELETE),
    ("a stop of the last one", LAST, Signal.STOP, STOPPED, Do.DELETE),
    ("nothing starts a stopped lease", STOPPED, Signal.FRESH, STOPPED, Do.NOTHING),
    ("not even the operator", STOPPED, Signal.ANNOUNCE, STOPPED, Do.NOTHING),
]


@pytest.mark.parametrize(("sentence", "state", "signal", "then", "do"), MOVES, ids=[row[0] for row in MOVES])
def test_the_table(sentence, state, signal, then, do):
    lease, done = after(Lease(state, "before"), signal)
    assert (lease.state, done) == (then, do), sentence


READINGS = [
    ("no proxy was ever started", Proxy(), None, 0.0, Signal.DOWN),
    ("started, silent so far", born(Proxy(), 0.0), None, 500.0, Signal.DOWN),
    ("spoke just now", WELL, 99_900.0, 100_000.0, Signal.FRESH),
    ("a heartbeat at the limit is fresh", WELL, 100_600.0, 100_700.0, Signal.FRESH),
    ("a heartbeat beyond it is stale", WELL, 100_600.0, 100_701.0, Signal.STALE),
    ("silent for the whole lease", WELL, 100_600.0, 102_000.0, Signal.OVERDUE),
    ("silent for the lease, never announced", WELL, None, 102_000.0, Signal.OVERDUE),
    ("alive and not ready", WELL._replace(ready=False), 99_900.0, 100_000.0, Signal.UNREADY),
    ("not ready for the whole lease", WELL._replace(ready=False), 98_000.0, 100_000.0, Signal.OVERDUE),
    ("dead, lease still runs", exited(WELL, 100_100.0, TERMS), 100_000.0, 101_000.0, Signal.DOWN),
    ("dead for the whole lease", exited(WELL, 100_100.0, TERMS), 100_000.0, 102_000.0, Signal.OVERDUE),
    ("a renewal that is old does not hide health", WELL, 0.0, 100_000.0, Signal.FRESH),
]


@pytest.mark.parametrize(
    ("sentence", "proxy", "renewed", "now", "signal"), READINGS, ids=[r[0] for r in READINGS]
)
def test_reading_a_proxy(sentence, proxy, renewed, now, signal):
    assert read(proxy, TERMS, renewed, now) is signal, sentence


def _lives(*steps: tuple[str, float]) -> Proxy:
    proxy = Proxy()
    for what, now in steps:
        if what == "born":
            proxy = born(proxy, now)
        elif what == "beat":
            proxy = beat(proxy, now, ready=True, others=SOMEBODY)
        else:
            proxy = exited(proxy, now, TERMS)
    return proxy


TRIALS = [
    (
        "one exit is no trial",
        [("born", 0), ("beat", 50_000), ("exit", 50_001), ("born", 50_051), ("beat", 51_000)],
        51_000.0,
        Signal.FRESH,
    ),
    (
        "two exits within ten seconds are one",
        [("born", 0), ("exit", 50_000), ("born", 50_050), ("exit", 59_000)],
        59_000.0,
        Signal.ON_TRIAL,
    ),
    (
        "two exits eleven seconds apart are not",
        [
            ("born", 0),
            ("exit", 50_000),
            ("born", 50_050),
            ("exit", 61_050),
            ("born", 61_100),
            ("beat", 62_000),
        ],
        62_000.0,
        Signal.FRESH,
    ),
    (
        "health on trial is not believed yet",
        [("born", 0), ("exit", 1000), ("born", 1050), ("exit", 2000), ("born", 2100), ("beat", 12_000)],
        12_050.0,
        Signal.ON_TRIAL,
    ),
    (
        "ten seconds of life end the trial",
        [("born", 0), ("exit", 1000), ("born", 1050), ("exit", 2000), ("born", 2100), ("beat", 12_050)],
        12_100.0,
        Signal.FRESH,
    ),
    (
        "an exit during a trial begins it anew, however slow the restarts",
        [
            ("born", 0),
            ("exit", 1),
            ("born", 51),
            ("exit", 100),
            ("born", 5100),
            ("exit", 15_000),
            ("born", 20_000),
        ],
        20_001.0,
        Signal.ON_TRIAL,
    ),
    (
        "an exit long after a trial is a first one",
        [("born", 0), ("exit", 1), ("born", 51), ("exit", 100), ("born", 200), ("exit", 60_000)],
        60_000.0,
        Signal.DOWN,
    ),
]


@pytest.mark.parametrize(("sentence", "steps", "now", "signal"), TRIALS, ids=[row[0] for row in TRIALS])
def test_trials(sentence, steps, now, signal):
    assert read(_lives(*steps), TERMS, None, now) is signal, sentence


ON_TRIAL = WELL._replace(on_trial=True, born_ms=95_000.0, others=SOMEBODY)
ALONE = {"others": NOBODY, "alone_since_ms": 98_900.0}
#: At 100 000 ms, renewed 300 ms ago.
ALONE_OR_NOT = [
    ("drained, somebody else announces", WELL._replace(others=SOMEBODY), True, Signal.DRAIN),
    ("drained, and nothing is known of others", WELL, True, Signal.UNSURE),
    ("drained, and nobody for a second", WELL._replace(**ALONE), True, Signal.NEEDED),
    (
        "a proxy of another node may only be starting",
        WELL._replace(others=NOBODY, alone_since_ms=99_001.0),
        True,
        Signal.UNSURE,
    ),
    ("who is not ready is no help", WELL._replace(ready=False, **ALONE), True, Signal.UNREADY),
    ("nor who is late", WELL._replace(beat_ms=99_000.0, **ALONE), True, Signal.STALE),
    ("drained and dead", exited(WELL, 99_900.0, TERMS), True, Signal.DOWN),
    ("drained and silent for the whole lease", WELL._replace(beat_ms=98_000.0), True, Signal.DRAIN),
    ("a healthy one does not ask", WELL._replace(**ALONE), False, Signal.FRESH),
    ("on trial, somebody else announces", ON_TRIAL, False, Signal.ON_TRIAL),
    ("on trial, and nobody for a second", ON_TRIAL._replace(**ALONE), False, Signal.NEEDED),
    ("on trial and not ready", ON_TRIAL._replace(ready=False, **ALONE), False, Signal.ON_TRIAL),
    ("drained and on trial", ON_TRIAL, True, Signal.DRAIN),
]


@pytest.mark.parametrize(
    ("sentence", "proxy", "drained", "signal"), ALONE_OR_NOT, ids=[row[0] for row in ALONE_OR_NOT]
)
def test_reading_one_that_should_be_away(sentence, proxy, drained, signal):
    assert read(proxy, TERMS, 99_700.0, 100_000.0, drained=drained) is signal, sentence


SINCE = [
    ("since the first word of nobody", [NOBODY, NOBODY], 1_000.0),
    ("not since a word of somebody", [NOBODY, SOMEBODY], None),
    ("nor since one does not know", [NOBODY, UNKNOWN], None),
    ("then it counts anew", [NOBODY, UNKNOWN, NOBODY], 3_000.0),
]


@pytest.mark.parametrize(("sentence", "words", "since"), SINCE, ids=[row[0] for row in SINCE])
def test_since_when_nobody_else_announces(sentence, words, since):
    proxy = born(Proxy(), 0.0)
    for number, others in enumerate(words, 1):
        proxy = beat(proxy, number * 1_000.0, ready=True, others=others)
    assert proxy.alone_since_ms == since, sentence
    assert exited(proxy, 9_000.0, TERMS).alone_since_ms is None, "the next one asks for itself"


REPLACEMENTS = [
    (
        "a planned replacement is fresh at once",
        _lives(("born", 0), ("beat", 50_000)),
        (49_000.0, 50_100.0),
        50_700.0,
        Signal.FRESH,
    ),
    ("and not for longer than its own heartbeat", WELL, (99_000.0, 100_100.0), 100_900.0, Signal.STALE),
    (
        "it does not end a trial by being new",
        _lives(("born", 0), ("exit", 1000), ("born", 1050), ("exit", 2000), ("born", 2100), ("beat", 9000)),
        (11_000.0, 12_050.0),
        12_200.0,
        Signal.ON_TRIAL,
    ),
    (
        "the end of the old one is no exit: one crash after it is a first one",
        exited(replaced(WELL, 99_000.0, 100_100.0), 100_500.0, TERMS),
        None,
        100_600.0,
        Signal.DOWN,
    ),
]


@pytest.mark.parametrize(
    ("sentence", "proxy", "times", "now", "signal"), REPLACEMENTS, ids=[row[0] for row in REPLACEMENTS]
)
def test_a_planned_replacement(sentence, proxy, times, now, signal):
    if times is not None:
        proxy = replaced(proxy, *times)
    assert read(proxy, TERMS, now - 300.0, now) is signal, sentence


def test_a_successor_is_judged_by_its_own_heartbeat():
    proxy = _lives(("born", 0), ("beat", 50_000), ("exit", 50_010), ("born", 50_060))
    assert read(proxy, TERMS, 50_000.0, 50_100.0) is Signal.DOWN


WELL_SIGNALS = (Signal.FRESH, Signal.NEEDED, Signal.UNSURE)
WORDS = [
    (Lease(), "never"),
    (Lease(ANNOUNCED), "announced"),
    (Lease(LAPSING, str(Signal.DOWN)), "lapsing: no heartbeat from a running proxy"),
    (Lease(HELD, str(Signal.WITHDRAW)), "withdrawn: by the operator"),
    (Lease(WITHDRAWN, str(Signal.ON_TRIAL)), "withdrawn: the proxy exited twice within its trial"),
    (Lease(DRAINED, str(Signal.DRAIN)), "withdrawn: drained by the operator"),
    (Lease(LAST, str(Signal.NEEDED)), "announced as the last one: no other node announces"),
]


@pytest.mark.parametrize(("lease", "words"), WORDS)
def test_the_operators_words(lease, words):
    assert str(lease) == words


@given(st.lists(st.sampled_from(list(Signal)), max_size=40))
def test_only_health_announces_and_withdrawals_hold(signals):
    """Whatever comes in whatever order: RENEW only for one that is well; after WITHDRAW none until ANNOUNCE."""
    lease, held = Lease(), False
    for signal in signals:
        lease, do = after(lease, signal)
        held = {Signal.WITHDRAW: True, Signal.ANNOUNCE: False}.get(signal, held)
        assert do is not Do.RENEW or (signal in WELL_SIGNALS and not held)
        assert (lease.state is ANNOUNCED) <= (lease.why == "")


def test_every_state_but_the_last_can_stop():
    assert all(TABLE[state][Signal.STOP] == (STOPPED, Do.DELETE) for state in State if state is not STOPPED)


BACKOFFS = [
    ("the first exit is answered at once", 0.0, 10.0, 50.0),
    ("each further one waits twice as long", 50.0, 10.0, 100.0),
    ("up to five seconds", 4_000.0, 10.0, 5_000.0),
    ("ten seconds of life begin anew", 5_000.0, 10_000.0, 50.0),
]


@pytest.mark.parametrize(
    ("sentence", "previous", "lived", "wait"), BACKOFFS, ids=[row[0] for row in BACKOFFS]
)
def test_backoff(sentence, previous, lived, wait):
    assert next_backoff_ms(previous, lived) == wait, sentence
