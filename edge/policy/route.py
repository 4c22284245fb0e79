"""Where should this request run?

`decide` reads one Ask and one Snapshot and returns one Decision. No I/O, no clock, no
state: tests/spec/test_route.py is its whole specification. The order of the rules is the
order of preference. What an endpoint would cost is `edge.policy.score`'s formula.
"""

import itertools
import math
import operator
import zlib
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from edge.errors import Reason
from edge.policy.admission import Refuse, Wait, predicted_wait_ms, retry_after_s, verdict
from edge.policy.candidates import Scored, Scoring, below_soft, is_full, why_excluded
from edge.policy.decision import Chosen, Decision, Hydrate, Queue, Serve, Shed, Spill
from edge.policy.facts import Ask, Cold, Endpoint, Mode, Snapshot
from edge.policy.score import LOAD_FIXED_MS, Terms

RETRY_AFTER_S: Final = 2
#: Candidates within this of the best are as good as it.
BAND_MS: Final = 5.0
BAND: Final = 0.05
#: A session stays where it was unless that is so much worse.
SESSION_BAND_MS: Final = 50.0
SESSION_BAND: Final = 0.5
#: Another POP must be better by so much before a request leaves this one.
LEAVE_MS: Final = 10.0
LEAVE: Final = 0.15
#: A cold start that is farther away than so many others is not the best one.
STRANGERS: Final = 8


class Row(NamedTuple):
    """One endpoint in an explanation: its terms, and why it was not a candidate ("" if it was one)."""

    endpoint: Endpoint
    terms: Terms
    excluded: str


def decide(ask: Ask, world: Snapshot, draw: float) -> Decision:
    """Choose where `ask` runs. `draw` in [0, 1) settles what is equal.

    Candidates are those that can be waited for within the budgets, and that need not drive others
    from their device while a warm copy would do.

    1. Only the first preferred region or POP that has a candidate.
    2. This POP's best worker, as long as one is warm and below its soft limit.
    3. The best of all POPs, if it is clearly better than this POP's best; back home as soon as
       home is no worse.
    4. Nobody can take it now: wait if that is bounded and predicted to fit, else refuse with 429
       when there is capacity and with 503 when there is none.
    5. Only nodes that were given up are left: the least bad of them.
    """
    for place in ask.prefer:
        there = tuple([e for e in world.endpoints if place in (e.region, e.pop)])
        if any(not why_excluded(endpoint, ask) for endpoint in there):
            decision = _choose(ask, msgspec.structs.replace(world, endpoints=there), draw, world)
            if isinstance(decision, Chosen):
                return decision
    return _choose(ask, world, draw)


def _choose(ask: Ask, world: Snapshot, draw: float, whole: Snapshot | None = None) -> Decision:
    scoring = Scoring(ask, world, whole)
    if world.mode is Mode.WATERFALL or world.mode is Mode.NEAREST:
        return _nearest(scoring)
    home = [e for e in itertools.takewhile(_is_home, world.endpoints) if not why_excluded(e, ask)]
    if ask.hops:
        home = [endpoint for endpoint in home if endpoint.name == ask.worker] or home
    unfit: list[Scored] = []
    at_home = _fit(scoring.rows(home), scoring, unfit)
    best_home = min(at_home, key=_total) if at_home else None
    stay = world.mode is Mode.NEVER or ask.hops > 0
    if best_home is not None:
        comfortable = best_home[2].cold <= 0.0 and below_soft(best_home[1])
        if comfortable or stay or ask.cold is Cold.WAIT:
            return _decision(_pick(at_home, best_home, ask, draw), at_home, scoring, "")
    elif stay:
        return _refused(unfit, scoring)
    limit_ms = math.inf if best_home is None else _worth_leaving_below_ms(best_home[0], ask)
    left = at_home or unfit.copy()
    rows = _scan(scoring, limit_ms, unfit)
    best_far = min(rows, key=_total) if rows else None
    if best_far is not None and best_far[0] < limit_ms:
        picked = _pick(rows, best_far, ask, draw)
        return _decision(picked, at_home + rows, scoring, _why_left(scoring, left))
    if best_home is None:
        return _refused(unfit, scoring)
    return _decision(_pick(at_home, best_home, ask, draw), at_home + rows, scoring, "")


def _fit(rows: Iterable[Scored], scoring: Scoring, unfit: list[Scored]) -> list[Scored]:
    """Those that may be chosen; the others go to `unfit`."""
    fitting: list[Scored] = []
    for row in rows:
        (unfit if scoring.why_unfit(row) else fitting).append(row)
    return fitting


def _nearest(scoring: Scoring) -> Decision:
    """The modes that are blind to what a model costs where: the nearest, or the nearest with room."""
    ask, world = scoring.ask, scoring.world
    usable = [e for e in world.endpoints if not why_excluded(e, ask)]
    if not usable:
        return _nobody(scoring)
    wanted = usable if world.mode is Mode.NEAREST else [e for e in usable if below_soft(e)] or usable
    rows = scoring.rows(wanted[:1])
    return _decision(rows[0], rows, scoring, str(world.mode))


def _worth_leaving_below_ms(home_ms: float, ask: Ask) -> float:
    """Another POP is taken below this: at once better when already away, clearly better when not."""
    return home_ms if ask.away else home_ms - max(LEAVE_MS, LEAVE * home_ms)


def _scan(scoring: Scoring, limit_ms: float, unfit: list[Scored]) -> list[Scored]:
    """Other POPs' endpoints that may be chosen, nearest first, until they must be too late.

    First those that have it, then those that would load it, as long as the round trip and the
    least that a load takes leave them a chance. What is left out could neither be chosen nor be as
    good as what is; of those that would have to fetch the weights first, only the nearest
    STRANGERS are looked at. What does not fit bounds nothing, and goes to `unfit`.
    """
    ask, digest = scoring.ask, scoring.ask.digest
    rows: list[Scored] = []
    bound_ms = limit_ms
    for endpoint in scoring.having():
        if endpoint.home or why_excluded(endpoint, ask):
            continue
        if endpoint.rtt_ms >= bound_ms:
            break
        bound_ms = _looked_at(endpoint, scoring, bound_ms, rows, unfit)
    strangers = 0
    for endpoint in scoring.world.endpoints:
        if endpoint.home:
            continue
        if endpoint.rtt_ms + LOAD_FIXED_MS >= bound_ms:
            break
        stranger = digest not in endpoint.held
        if stranger and strangers >= STRANGERS:
            if not scoring.holding():
                break
            continue
        if digest in endpoint.models or why_excluded(endpoint, ask):
            continue
        strangers += stranger
        bound_ms = _looked_at(endpoint, scoring, bound_ms, rows, unfit)
    return rows


def _looked_at(
    endpoint: Endpoint, scoring: Scoring, bound_ms: float, rows: list[Scored], unfit: list[Scored]
) -> float:
    """Where the next one is too late."""
    row = scoring.row(endpoint)
    if scoring.why_unfit(row):
        unfit.append(row)
        return bound_ms
    rows.append(row)
    band_ms = _band(row[0])
    return band_ms if band_ms < bound_ms and scoring.ask.session is None else bound_ms


def _is_home(endpoint: Endpoint) -> bool:
    return endpoint.home


def _band(best_ms: float) -> float:
    return best_ms + max(BAND_MS, BAND * best_ms)


#: The score of a row.
_total: Final = operator.itemgetter(0)


def _pick(rows: list[Scored], best: Scored, ask: Ask, draw: float) -> Scored:
    """One of those that are as good as the best."""
    if len(rows) == 1:
        return best
    best_ms = best[0]
    if ask.session is not None:
        limit_ms = best_ms + max(SESSION_BAND_MS, SESSION_BAND * best_ms)
        near = [row for row in rows if row[0] <= limit_ms]
        return max(near, key=lambda row: _rendezvous(str(ask.session), row[1]))
    limit_ms = _band(best_ms)
    near = [row for row in rows if row[0] <= limit_ms]
    if len(near) == 1:
        return best
    if best[2].cold > 0.0 and ask.digest not in best[1].models:
        # Nobody has it: all ingresses near here must elect the same home, or it is loaded twice.
        neighbours = [
            row
            for row in near
            if abs(row[2].net - best[2].net) <= BAND_MS and ask.digest not in row[1].models
        ]
        return max(neighbours, key=lambda row: _rendezvous(ask.digest, row[1]))
    # Two random draws, the one to which this node sent less (Mitzenmacher, "The power of two choices").
    scaled = draw * len(near)
    first = int(scaled)
    second = (first + 1 + int((scaled - first) * (len(near) - 1))) % len(near)
    one, other = near[first], near[second]
    return other if other[1].live.in_flight < one[1].live.in_flight else one


def _rendezvous(key: str, endpoint: Endpoint) -> float:
    """Weighted rendezvous hashing by configured capacity: highest wins (Schindelhauer and Schomaker 2005)."""
    drawn = (zlib.crc32(f"{key}/{endpoint.name}".encode()) + 1) / 4_294_967_297.0
    return -max(1, endpoint.capacity_bytes) / math.log(drawn)


def _refused(unfit: list[Scored], scoring: Scoring) -> Decision:
    """Nobody can be waited for within the budgets: for a slot of one that is full, or not at all."""
    if not unfit:
        return _nobody(scoring)
    near = [row for row in unfit if scoring.why_unfit(row) != "too-far"]
    soonest = min(near or unfit, key=_wait_ms)
    again_s = retry_after_s(_wait_ms(soonest))
    full = [] if scoring.ask.hops else [e for e, why in _excluded(scoring) if why == "full"]
    if full:
        decision = _wait_or_shed(scoring.ask, scoring.world, full)
        if isinstance(decision, Shed):
            return Shed(decision.reason, min(decision.retry_after_s, again_s))
        return decision
    if not near:
        return Shed(Reason.DEADLINE, again_s)
    late = scoring.why_unfit(soonest) == "wait-too-long"
    return Shed(Reason.SATURATED if late else Reason.COLD_REFUSED, again_s)


def _wait_ms(row: Scored) -> float:
    return row[2].queue + row[2].cold


def _decision(picked: Scored, rows: list[Scored], scoring: Scoring, left: str) -> Decision:
    total_ms, endpoint, found = picked
    following = min([row for row in rows if row[1] is not endpoint], key=_total, default=None)
    next_name = "" if following is None else following[1].name
    next_ms = 0.0 if following is None else following[0]
    age_ms = 0.0 if endpoint.here else scoring.world.now_ms - endpoint.at_ms
    if not endpoint.home:
        reason = left or _why_left(scoring, [])
        return Spill(endpoint.name, reason, total_ms, next_name, next_ms, age_ms, reason in _BROKEN)
    warm = scoring.ask.digest in endpoint.models
    reason = left or _why_here(endpoint, found, warm=warm)
    kind = Serve if warm else Hydrate
    return kind(endpoint.name, reason, total_ms, next_name, next_ms, age_ms)


_BROKEN: Final = frozenset({"down-here", "failed-here"})


def _why_left(scoring: Scoring, at_home: list[Scored]) -> str:
    """Why a request leaves its POP, of which `at_home` are the candidates, fit or not."""
    if at_home:
        best = min(at_home, key=_total)
        if scoring.why_unfit(best) == "wait-too-long":
            return "full-here"
        if best[2].cold > 0.0:
            return "cold-here"
        return "faster" if any(below_soft(endpoint) for _, endpoint, _ in at_home) else "full-here"
    excluded = {why for _, why in scoring.whys(home_only=True)}
    for why, reason in _LEFT:
        if why in excluded:
            return reason
    return "none-here"


#: Why a POP's own endpoint was excluded -> why the request left; the first that is found.
_LEFT: Final = (
    ("full", "full-here"),
    ("tried", "failed-here"),
    ("draining", "draining-here"),
    ("no-link", "down-here"),
    ("out", "down-here"),
    ("down", "down-here"),
    ("starting", "down-here"),
    ("confined", "confined"),
    ("not-forced", "forced"),
    ("too-small", "too-small-here"),
    ("cold", "cold-here"),
)


def _why_here(endpoint: Endpoint, found: Terms, *, warm: bool) -> str:
    if not warm:
        return "cold"
    if found.cold > 0.0:
        return "loading"
    if not below_soft(endpoint):
        return "above-soft-limit"
    return "warm" if endpoint.here else "warm-peer"


def _excluded(scoring: Scoring) -> list[tuple[Endpoint, str]]:
    """Who can't be chosen, of those that the mode allows."""
    return scoring.whys(home_only=scoring.world.mode is Mode.NEVER)


def _nobody(scoring: Scoring) -> Decision:
    """No endpoint can take it now."""
    ask, world = scoring.ask, scoring.world
    excluded = _excluded(scoring)
    whys = {why for _, why in excluded}
    full = [endpoint for endpoint, why in excluded if why == "full"]
    if full:
        return _wait_or_shed(ask, world, full)
    if not ask.hops:
        # What was heard may be wrong, or old: never refuse while somebody can still be reached.
        given_up = [e for e, why in excluded if why in ("out", "draining") and not is_full(e)]
        if given_up:
            rows = scoring.rows(given_up)
            return _decision(min(rows, key=_total), rows, scoring, "nobody-better")
    if any(why == "starting" and e.home for e, why in excluded):
        match verdict(ask, world, 0.0, cold=True):
            case Wait(budget_ms):
                return Queue("starting", budget_ms)
            case Refuse(reason, again_s):
                return Shed(reason, again_s)
    if "cold" in whys:
        return Shed(Reason.COLD_REFUSED, RETRY_AFTER_S)
    usable = whys - {"confined", "not-forced"}
    if not usable and "confined" in whys:
        return Shed(Reason.CONFINED, RETRY_AFTER_S)
    if ask.confine and not any(e.region in ask.confine for e, why in excluded if why != "tried"):
        return Shed(Reason.CONFINED, RETRY_AFTER_S)
    if ask.force:
        return Shed(Reason.REGION, RETRY_AFTER_S)
    if "too-small" in whys and usable <= {"too-small"}:
        return Shed(Reason.NO_MEMORY, RETRY_AFTER_S)
    if ask.confine:
        return Shed(Reason.CONFINED, RETRY_AFTER_S)
    return Shed(Reason.NO_ENDPOINT, RETRY_AFTER_S)


def _wait_or_shed(ask: Ask, world: Snapshot, full: list[Endpoint]) -> Decision:
    match verdict(ask, world, predicted_wait_ms(world.waiting, full), cold=False):
        case Wait(budget_ms):
            return Queue("saturated", budget_ms)
        case Refuse(reason, again_s):
            return Shed(reason, again_s)


def explain(ask: Ask, world: Snapshot) -> list[Row]:
    """Every endpoint with the terms of its score and why it can't be chosen, best first."""
    scoring = Scoring(ask, world)
    weighs = world.mode is Mode.PREDICTED or world.mode is Mode.NEVER
    rows = []
    for endpoint in world.endpoints:
        row = scoring.row(endpoint)
        excluded = why_excluded(endpoint, ask) or (scoring.why_unfit(row) if weighs else "")
        rows.append(Row(endpoint, row[2], excluded))
    return sorted(rows, key=lambda row: (bool(row.excluded), row.terms.total))
