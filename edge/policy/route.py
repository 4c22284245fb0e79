"""Where should this request run?

`decide` reads one Ask and one Snapshot and returns one Decision. No I/O, no clock, no
state: tests/spec/test_route.py is its whole specification. The order of the rules is the
order of preference. What an endpoint would cost is `edge.policy.score`'s formula.
"""

import itertools
import math
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from edge.errors import Reason
from edge.policy.admission import Refuse, Wait, predicted_wait_ms, retry_after_s, verdict
from edge.policy.facts import Ask, Cold, Endpoint, Mode, Snapshot, Standing, State, Tier
from edge.policy.score import Terms, nearest_source, regions_holding, terms


class Chosen(msgspec.Struct, frozen=True, gc=False):
    """Run it at `target`. `next` is the runner-up among those that were looked at, "" without one.

    Scores are predicted ms until the answer; `age_ms` is the age of what was known of the target.
    """

    target: str
    reason: str
    score_ms: float = 0.0
    next: str = ""
    next_ms: float = 0.0
    age_ms: float = 0.0


class Serve(Chosen, frozen=True, gc=False):
    """At a worker of this POP that has the model on its device, or on its way there."""


class Hydrate(Chosen, frozen=True, gc=False):
    """At a worker of this POP, once the weights have been brought to its device."""


class Spill(Chosen, frozen=True, gc=False):
    """At another POP; `broken` when that is because this POP's workers are, and not full, cold or absent."""

    broken: bool = False


class Queue(msgspec.Struct, frozen=True, gc=False):
    """Wait for a slot, at most `budget_ms`, then ask again."""

    reason: str
    budget_ms: float


class Shed(msgspec.Struct, frozen=True, gc=False):
    """Refuse, with the reason and the seconds after which trying again makes sense."""

    reason: Reason
    retry_after_s: int


Decision = Serve | Hydrate | Spill | Queue | Shed

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


def why_excluded(endpoint: Endpoint, ask: Ask) -> str:
    """Why `endpoint` is no candidate: the first that applies, "" if it is one."""
    if ask.hops and not endpoint.here:
        return "forwarded-once"
    if endpoint.node in ask.tried or endpoint.name in ask.tried:
        return "tried"
    if ask.confine and endpoint.region not in ask.confine:
        return "confined"
    if ask.force and endpoint.region not in ask.force and endpoint.pop not in ask.force:
        return "not-forced"
    if not endpoint.linked:
        return "no-link"
    if endpoint.state is not State.UP:
        return str(endpoint.state)
    if endpoint.standing is Standing.OUT:
        return "out"
    if endpoint.standing is Standing.DRAINING and not ask.hops:
        return "draining"
    if ask.weights_bytes > endpoint.capacity_bytes > 0 and ask.digest not in endpoint.models:
        return "too-small"
    if _is_full(endpoint):
        return "full"
    if ask.cold is Cold.REJECT and not _warm(endpoint, ask):
        return "cold"
    return ""


def decide(ask: Ask, world: Snapshot, draw: float) -> Decision:
    """Choose where `ask` runs. `draw` in [0, 1) settles what is equal.

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
            return _choose(ask, msgspec.structs.replace(world, endpoints=there), draw)
    return _choose(ask, world, draw)


class _Scoring:
    """Scores of one decision; what holds the weights where is looked up at most once."""

    __slots__ = ("_holding", "ask", "world")

    def __init__(self, ask: Ask, world: Snapshot) -> None:
        self.ask = ask
        self.world = world
        self._holding: frozenset[str] | None = None

    def of(self, endpoint: Endpoint) -> Terms:
        nearest = Tier.ORIGIN
        if self.ask.digest not in endpoint.models and self.ask.digest not in endpoint.held:
            if self._holding is None:
                self._holding = regions_holding(self.ask.digest, self.world)
            nearest = nearest_source(endpoint.region, self._holding)
        return terms(endpoint, self.ask, self.world, nearest)

    def row(self, endpoint: Endpoint) -> tuple[float, Endpoint, Terms]:
        found = self.of(endpoint)
        return found[0] + found[1] + found[2] + found[3] + found[4], endpoint, found

    def scored(self, endpoints: Sequence[Endpoint]) -> "_Scored":
        return [self.row(endpoint) for endpoint in endpoints]

    def whys(self, *, home_only: bool = False) -> list[tuple[Endpoint, str]]:
        """Who can't be chosen, and why."""
        found = [(e, why_excluded(e, self.ask)) for e in self.world.endpoints if e.home or not home_only]
        return [(endpoint, why) for endpoint, why in found if why]


_Scored = list[tuple[float, Endpoint, Terms]]


def _choose(ask: Ask, world: Snapshot, draw: float) -> Decision:
    scoring = _Scoring(ask, world)
    home = [e for e in itertools.takewhile(_is_home, world.endpoints) if not why_excluded(e, ask)]
    if ask.hops:
        home = [endpoint for endpoint in home if endpoint.name == ask.worker] or home
    if world.mode is Mode.WATERFALL or world.mode is Mode.NEAREST:
        return _nearest(scoring)
    at_home = scoring.scored(home)
    best_home = min(at_home, key=_total) if at_home else None
    stay = world.mode is Mode.NEVER or ask.hops > 0
    if best_home is not None:
        comfortable = best_home[2].cold <= 0.0 and _below_soft(best_home[1])
        if comfortable or stay or ask.cold is Cold.WAIT:
            return _admitted(_pick(at_home, best_home, ask, draw), at_home, scoring, "")
    elif stay:
        return _nobody(scoring)
    limit_ms = math.inf if best_home is None else _worth_leaving_below_ms(best_home[0], ask)
    rows = _scan(scoring, limit_ms)
    best_far = min(rows, key=_total) if rows else None
    if best_far is not None and best_far[0] < limit_ms:
        picked = _pick(rows, best_far, ask, draw)
        return _admitted(picked, at_home + rows, scoring, _why_left(scoring, home, best_home))
    if best_home is None:
        return _nobody(scoring)
    return _admitted(_pick(at_home, best_home, ask, draw), at_home + rows, scoring, "")


def _nearest(scoring: _Scoring) -> Decision:
    """The modes that are blind to what a model costs where: the nearest, or the nearest with room."""
    ask, world = scoring.ask, scoring.world
    usable = [e for e in world.endpoints if not why_excluded(e, ask)]
    if not usable:
        return _nobody(scoring)
    wanted = usable if world.mode is Mode.NEAREST else [e for e in usable if _below_soft(e)] or usable
    rows = scoring.scored(wanted[:1])
    return _decision(rows[0], rows, scoring, str(world.mode))


def _worth_leaving_below_ms(home_ms: float, ask: Ask) -> float:
    """Another POP is taken below this: at once better when already away, clearly better when not."""
    return home_ms if ask.away else home_ms - max(LEAVE_MS, LEAVE * home_ms)


def _scan(scoring: _Scoring, limit_ms: float) -> _Scored:
    """Scores of other POPs' endpoints, nearest first, until the round trip alone is too long.

    What is left out could neither be chosen nor be as good as what is; of those that would have
    to fetch the weights first, only the nearest STRANGERS are looked at.
    """
    ask, digest = scoring.ask, scoring.ask.digest
    rows: _Scored = []
    bound_ms, strangers = limit_ms, 0
    for endpoint in scoring.world.endpoints:
        if endpoint.home:
            continue
        if endpoint.rtt_ms >= bound_ms:
            break
        stranger = digest not in endpoint.models and digest not in endpoint.held
        if (stranger and strangers >= STRANGERS) or why_excluded(endpoint, ask):
            continue
        strangers += stranger
        row = scoring.row(endpoint)
        rows.append(row)
        if ask.session is None:
            bound_ms = min(bound_ms, _band(row[0]))
    return rows


def _is_home(endpoint: Endpoint) -> bool:
    return endpoint.home


def _band(best_ms: float) -> float:
    return best_ms + max(BAND_MS, BAND * best_ms)


def _total(row: tuple[float, Endpoint, Terms]) -> float:
    return row[0]


def _pick(
    rows: _Scored, best: tuple[float, Endpoint, Terms], ask: Ask, draw: float
) -> tuple[float, Endpoint, Terms]:
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


def _admitted(picked: tuple[float, Endpoint, Terms], rows: _Scored, scoring: _Scoring, left: str) -> Decision:
    """The choice, unless its queue is predicted to be longer than anybody may wait."""
    ask, world = scoring.ask, scoring.world
    queue_ms, cold_ms = picked[2].queue, picked[2].cold
    if queue_ms > min(world.max_wait_ms, ask.deadline_ms):
        return Shed(Reason.SATURATED, retry_after_s(queue_ms))
    if cold_ms > min(world.max_cold_wait_ms, ask.deadline_ms) and not ask.hops:
        return Shed(Reason.COLD_REFUSED, retry_after_s(cold_ms))
    return _decision(picked, rows, scoring, left)


def _decision(picked: tuple[float, Endpoint, Terms], rows: _Scored, scoring: _Scoring, left: str) -> Decision:
    total_ms, endpoint, found = picked
    following = min([row for row in rows if row[1] is not endpoint], key=_total, default=None)
    next_name = "" if following is None else following[1].name
    next_ms = 0.0 if following is None else following[0]
    age_ms = 0.0 if endpoint.here else scoring.world.now_ms - endpoint.at_ms
    if not endpoint.home:
        reason = left or _why_left(scoring, [], None)
        return Spill(endpoint.name, reason, total_ms, next_name, next_ms, age_ms, reason in _BROKEN)
    warm = scoring.ask.digest in endpoint.models
    reason = left or _why_here(endpoint, found, warm=warm)
    kind = Serve if warm else Hydrate
    return kind(endpoint.name, reason, total_ms, next_name, next_ms, age_ms)


_BROKEN: Final = frozenset({"down-here", "failed-here"})


def _why_left(
    scoring: _Scoring, home: list[Endpoint], best_home: tuple[float, Endpoint, Terms] | None
) -> str:
    """Why a request leaves its POP."""
    if best_home is not None:
        if best_home[2].cold > 0.0:
            return "cold-here"
        return "full-here" if not any(_below_soft(endpoint) for endpoint in home) else "faster"
    at_home = {why for _, why in scoring.whys(home_only=True)}
    for why, reason in _LEFT:
        if why in at_home:
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
    if not _below_soft(endpoint):
        return "above-soft-limit"
    return "warm" if endpoint.here else "warm-peer"


def _nobody(scoring: _Scoring) -> Decision:
    """No endpoint can take it now."""
    ask, world = scoring.ask, scoring.world
    excluded = scoring.whys()
    if world.mode is Mode.NEVER:
        excluded = [(endpoint, why) for endpoint, why in excluded if endpoint.home]
    whys = {why for _, why in excluded}
    full = [endpoint for endpoint, why in excluded if why == "full"]
    if full:
        return _wait_or_shed(ask, world, full)
    if not ask.hops:
        # What was heard may be wrong, or old: never refuse while somebody can still be reached.
        given_up = [e for e, why in excluded if why in ("out", "draining") and not _is_full(e)]
        if given_up:
            rows = scoring.scored(given_up)
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


def _is_full(endpoint: Endpoint) -> bool:
    return endpoint.in_flight + endpoint.live.unseen >= endpoint.hard_limit


def _below_soft(endpoint: Endpoint) -> bool:
    return endpoint.in_flight + endpoint.live.unseen < endpoint.soft_limit


def _warm(endpoint: Endpoint, ask: Ask) -> bool:
    on = endpoint.models.get(ask.digest)
    return on is not None and on.eta_ms <= 0.0


def explain(ask: Ask, world: Snapshot) -> list[Row]:
    """Every endpoint with the terms of its score and why it can't be chosen, best first."""
    scoring = _Scoring(ask, world)
    rows = [Row(endpoint, scoring.of(endpoint), why_excluded(endpoint, ask)) for endpoint in world.endpoints]
    return sorted(rows, key=lambda row: (bool(row.excluded), row.terms.total))
