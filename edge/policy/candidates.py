"""Who may be chosen, what would it cost there, and may that be waited for? Pure.

`why_excluded` is what an endpoint is, `Scoring.why_unfit` what choosing it would mean: an answer that
must come too late, a wait beyond its budget, or a load for which others must leave while a warm copy
would do. Which of those that remain is taken is `edge.policy.route`'s business.
"""

import math
from collections.abc import Sequence
from typing import Final

from edge.policy.facts import Ask, Cold, Endpoint, Mode, Snapshot, Standing, State, Tier
from edge.policy.score import Terms, nearest_source, queue_ms, regions_holding, terms

#: Members looked up once: each look at an enum class costs as much as three comparisons.
_UP: Final = State.UP
_OUT: Final = Standing.OUT
_DRAINING: Final = Standing.DRAINING
_ORIGIN: Final = Tier.ORIGIN
_REJECT: Final = Cold.REJECT
_WAIT: Final = Cold.WAIT

#: A candidate: its score in ms, the endpoint, the terms of the score.
Scored = tuple[float, Endpoint, Terms]


def why_excluded(endpoint: Endpoint, ask: Ask) -> str:
    """Why `endpoint` is no candidate: the first that applies, "" if it is one."""
    if ask.hops and not endpoint.here:
        return "forwarded-once"
    if ask.tried and (endpoint.node in ask.tried or endpoint.name in ask.tried):
        return "tried"
    if ask.confine and endpoint.region not in ask.confine:
        return "confined"
    if ask.force and endpoint.region not in ask.force and endpoint.pop not in ask.force:
        return "not-forced"
    if not endpoint.linked:
        return "no-link"
    if endpoint.state is not _UP:
        return str(endpoint.state)
    standing = endpoint.standing
    if standing is _OUT:
        return "out"
    if standing is _DRAINING and not ask.hops:
        return "draining"
    if ask.weights_bytes > endpoint.capacity_bytes > 0 and ask.digest not in endpoint.models:
        return "too-small"
    if is_full(endpoint):
        return "full"
    if ask.cold is _REJECT and not is_warm(endpoint, ask):
        return "cold"
    return ""


def is_full(endpoint: Endpoint) -> bool:
    """At its hard limit."""
    return endpoint.in_flight + endpoint.live.unseen >= endpoint.hard_limit


def below_soft(endpoint: Endpoint) -> bool:
    """Not yet where others are preferred."""
    return endpoint.in_flight + endpoint.live.unseen < endpoint.soft_limit


def is_warm(endpoint: Endpoint, ask: Ask) -> bool:
    """On its device now."""
    on = endpoint.models.get(ask.digest)
    return on is not None and on.eta_ms <= 0.0


class Scoring:
    """Scores of one decision; what is where is looked up at most once, when it matters.

    Candidates are those of `world`. Weights may come, and a warm copy may do, from anywhere in `whole`.
    """

    __slots__ = (
        "_cold_wait_ms",
        "_having",
        "_holding",
        "_needed_bytes",
        "_wait_ms",
        "_warm_exists",
        "_whole",
        "ask",
        "world",
    )

    def __init__(self, ask: Ask, world: Snapshot, whole: Snapshot | None = None) -> None:
        self.ask = ask
        self.world = world
        self._whole = whole or world
        self._wait_ms = min(world.max_wait_ms, ask.deadline_ms)
        # Its ingress has decided that a forwarded request waits for the weights.
        self._cold_wait_ms = math.inf if ask.hops else min(world.max_cold_wait_ms, ask.deadline_ms)
        self._holding: frozenset[str] | None = None
        self._having: list[Endpoint] | None = None
        #: None: not looked up; 0: nobody has it.
        self._needed_bytes: int | None = None
        self._warm_exists: bool | None = None

    def row(self, endpoint: Endpoint) -> Scored:
        """The endpoint with its score."""
        ask, nearest = self.ask, _ORIGIN
        if ask.digest not in endpoint.models and ask.digest not in endpoint.held:
            holding = self._holding
            nearest = nearest_source(endpoint.region, self.holding() if holding is None else holding)
        found = terms(endpoint, ask, self.world, nearest)
        return found.total, endpoint, found

    def rows(self, endpoints: Sequence[Endpoint]) -> list[Scored]:
        """Several, as they come."""
        return [self.row(endpoint) for endpoint in endpoints]

    def why_unfit(self, row: Scored) -> str:
        """Why a candidate is passed over, "" if it is not."""
        _, endpoint, found = row
        if self._too_far(endpoint):
            return "too-far"
        if found.queue > self._wait_ms:
            return "wait-too-long"
        if found.cold > 0.0:
            if found.cold > self._cold_wait_ms:
                return "load-too-long"
            if self._needed_bytes != 0 and self._drives_out(endpoint):
                return "drives-out"
        return ""

    def _too_far(self, endpoint: Endpoint) -> bool:
        """Would the way there and back alone take longer than the request may?"""
        return endpoint.rtt_ms >= self.ask.deadline_ms and not endpoint.here

    def holding(self) -> frozenset[str]:
        """Regions that have the weights on a disk."""
        if self._holding is None:
            self._holding = regions_holding(self.ask.digest, self._whole)
        return self._holding

    def having(self) -> list[Endpoint]:
        """Candidates or not, who has the model on a device or on its way there, nearest first."""
        if self._having is None:
            self._having = self._having_in(self.world)
        return self._having

    def _having_in(self, world: Snapshot) -> list[Endpoint]:
        digest = self.ask.digest
        return [endpoint for endpoint in world.endpoints if digest in endpoint.models]

    def whys(self, *, home_only: bool = False) -> list[tuple[Endpoint, str]]:
        """Who can't be chosen, and why."""
        found = [(e, why_excluded(e, self.ask)) for e in self.world.endpoints if e.home or not home_only]
        return [(endpoint, why) for endpoint, why in found if why]

    def _drives_out(self, endpoint: Endpoint) -> bool:
        """Would a load there make others leave, although a warm copy would do?"""
        ask = self.ask
        if ask.hops or ask.cold is _WAIT or not endpoint.capacity_bytes or ask.digest in endpoint.models:
            return False
        if self._needed_bytes is None:
            # Who has it knows what it takes; the catalogue knows its files.
            told = [other.models[ask.digest].device_bytes for other in self._having_anywhere()]
            self._needed_bytes = max(ask.weights_bytes, *told) if told else 0
        if self._needed_bytes <= endpoint.capacity_bytes - endpoint.used_bytes:
            return False
        if self._warm_exists is None:
            self._warm_exists = any(map(self._would_do, self._having_anywhere()))
        return self._warm_exists

    def _having_anywhere(self) -> list[Endpoint]:
        return self.having() if self._whole is self.world else self._having_in(self._whole)

    def _would_do(self, endpoint: Endpoint) -> bool:
        """Is it warm there, and can it be waited for?"""
        ask, world = self.ask, self.world
        return (
            is_warm(endpoint, ask)
            and not why_excluded(endpoint, ask)
            and not self._too_far(endpoint)
            and (endpoint.home or world.mode is not Mode.NEVER)
            and queue_ms(endpoint, ask, world.now_ms, endpoint.models[ask.digest]) <= self._wait_ms
        )
