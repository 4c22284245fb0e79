"""How soon would this endpoint answer? Pure; every term is in milliseconds.

    score = net + queue + cold + exec + price

`terms` is the formula of edge/README.md and the only place where it stands: a decision adds
it up, an explanation shows it. What may be chosen at all is `edge.policy.route`'s business.
"""

from typing import Final

import msgspec

from edge.policy.facts import Ask, Endpoint, OnDevice, Snapshot, Standing, Tier

#: TCP's first flight (RFC 6928); each doubling beyond it costs a round trip on an idle link.
FIRST_FLIGHT_BYTES: Final = 14_600
#: A larger body travels on a link of its own (edge.wire.frame.SHARED_BODY_BYTES): two round trips more.
OWN_LINK_BYTES: Final = 256 * 1024
#: A model of which nobody knows the size.
UNKNOWN_WEIGHTS_BYTES: Final = 64 * 1024 * 1024
#: What a load takes however small the model.
LOAD_FIXED_MS: Final = 50.0
#: Asking for weights takes some round trips, however small they are: the origin may be an ocean away.
FETCH_FIXED_MS: Final = 300.0
REGION_FIXED_MS: Final = 20.0
#: A node that was silent for a while is taken for so much farther, at least.
SUSPICION_MS: Final = 50.0
_GIB: Final = float(1 << 30)
#: Members looked up once: each look at an enum class costs as much as three comparisons.
_SUSPECT: Final = Standing.SUSPECT
_REGION: Final = Tier.REGION
_FAR: Final = Tier.FAR


class Terms(msgspec.Struct, frozen=True, gc=False):
    """The terms of one endpoint's score, in ms. As named tuples they were a tenth of a decision."""

    net: float
    queue: float
    cold: float
    exec: float
    price: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.net + self.queue + self.cold + self.exec + self.price


def terms(endpoint: Endpoint, ask: Ask, world: Snapshot, nearest: Tier) -> Terms:
    """The score of `endpoint` for `ask`. `nearest`: where it would fetch weights it does not hold."""
    on = endpoint.models.get(ask.digest)
    return Terms(
        0.0 if endpoint.here else net_ms(endpoint, ask),
        queue_ms(endpoint, ask, world.now_ms, on),
        cold_ms(endpoint, ask, world.now_ms, on, nearest),
        ((on.service_ms if on is not None else 0.0) or ask.service_ms) * ask.exec_factor,
        price_ms(endpoint, ask, world) if world.ms_per_usd > 0.0 else 0.0,
    )


def net_ms(endpoint: Endpoint, ask: Ask) -> float:
    """One round trip, the transfer, TCP's slow start, and a link of its own for a large body."""
    size_bytes = ask.body_bytes + ask.reply_bytes
    rtt_ms = endpoint.rtt_ms
    total = rtt_ms + size_bytes / endpoint.bytes_per_ms
    if size_bytes > FIRST_FLIGHT_BYTES:
        total += rtt_ms * (size_bytes // FIRST_FLIGHT_BYTES).bit_length()
        if size_bytes > OWN_LINK_BYTES:
            total += 2.0 * rtt_ms
    if endpoint.standing is _SUSPECT:
        total += max(SUSPICION_MS, rtt_ms)
    return total


def queue_ms(endpoint: Endpoint, ask: Ask, now_ms: float, on: OnDevice | None) -> float:
    """Work ahead of this request. What a beacon told grows or shrinks with its age."""
    work_ms = endpoint.queued_ms + endpoint.live.unseen_ms
    parallel = endpoint.parallel
    if not endpoint.here:
        cost_ms = (on.cost_ms if on is not None else 0.0) or ask.service_ms
        age_ms = now_ms - endpoint.at_ms
        work_ms += (endpoint.arrivals_per_s / 1000.0 * cost_ms / parallel - 1.0) * age_ms
    return work_ms / parallel if work_ms > 0.0 else 0.0


def cold_ms(endpoint: Endpoint, ask: Ask, now_ms: float, on: OnDevice | None, nearest: Tier) -> float:
    """Until the model is on the device: 0 when it is, the rest of its ETA, or a whole hydration."""
    if on is not None:
        if on.eta_ms <= 0.0:
            return 0.0
        # It is not there until its node says so.
        return max(1.0, on.eta_ms - (now_ms - endpoint.at_ms))
    size_bytes = ask.weights_bytes or UNKNOWN_WEIGHTS_BYTES
    rates = endpoint.rates
    total = endpoint.loader_wait_ms + LOAD_FIXED_MS + size_bytes / rates.load
    if ask.digest in endpoint.held:
        return total
    if nearest is _REGION:
        return total + REGION_FIXED_MS + size_bytes / rates.region
    return total + FETCH_FIXED_MS + size_bytes / (rates.far if nearest is _FAR else rates.origin)


def price_ms(endpoint: Endpoint, ask: Ask, world: Snapshot) -> float:
    """What the bytes that leave this region cost, as milliseconds."""
    if endpoint.region == world.region:
        return 0.0
    usd = (ask.body_bytes + ask.reply_bytes) / _GIB * world.usd_per_gib
    return world.ms_per_usd * usd


def nearest_source(region: str, holding: frozenset[str]) -> Tier:
    """Where a node of `region` would fetch from, given the regions that have the weights on a disk."""
    if region in holding:
        return Tier.REGION
    return Tier.FAR if holding else Tier.ORIGIN


def regions_holding(digest: str, world: Snapshot) -> frozenset[str]:
    """Regions in which some node has the model's weights on its disk."""
    return frozenset([e.region for e in world.endpoints if digest in e.held])
