"""Is it worth bringing a model near that is served from far? Pure.

A worker node asks this for itself, of the beacons it has: `demand_for` says who would be served
sooner if it had a model, `worth_of` who would wait longer if it gave one up, and `judge` weighs
them. Nobody waits for such a load, so it must pay: unguarded it was the worst policy of all in
simulation (36-54 % of requests over 1 s, by eviction thrash). All gains and losses are
milliseconds of waiting per second. What a load takes, and how weights come, is not known here;
a load that a request waits for is `edge.policy.eviction`'s business.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from edge.policy.facts import SERVICE_MS, Beacon, State

#: Decisions that move weights need state at most this old: at 1 s they held, at 5 s they failed (11 % > 1 s).
MAX_AGE_MS: Final = 1_000.0
#: A node silent for longer is not counted on, nor against.
GONE_MS: Final = 3_000.0
#: Nodes within this of the nearest are as near: one of them is elected.
NEAR_MS: Final = 5.0
#: With free memory nothing is lost but the load itself, so it need not pay for itself whole.
FREE_SHARE: Final = 0.2
GAIN_OVER_LOSS: Final = 1.5
#: What the next request waits for when the last copy is gone, unless it was measured.
RELOAD_MS: Final = 1_000.0
#: Between saying `evicting` and doing it: so long that every other intent is known (states are at most
#: MAX_AGE_MS old); then `judge` is asked again.
INTENT_MS: Final = 1_100.0


class Needs(NamedTuple):
    """What a model asks of a device, and the regions to which it is confined (empty: none)."""

    device_bytes: int
    confine: frozenset[str] = frozenset()


class Wanted(NamedTuple):
    """Requests per second that would be served here, their mean ms now and then.

    `at_ms` is when the oldest state that this rests on came, by this node's clock; `device_bytes`
    what it takes on a device as far as anybody knows.
    """

    per_s: float
    far_ms: float
    near_ms: float
    at_ms: float
    device_bytes: int = 0

    @property
    def gain(self) -> float:
        """Milliseconds of waiting per second that a copy here would save."""
        return self.per_s * (self.far_ms - self.near_ms)


class Worth(NamedTuple):
    """What the copy on this node is good for.

    `per_s` is everybody's demand for the model, `loss` the milliseconds per second that would be
    waited more without this copy, `copies` how many devices elsewhere have it and keep it.
    """

    per_s: float
    loss: float
    copies: int


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A model to bring near. `load_ms` is what fetching and loading takes, `price_ms` what its bytes cost."""

    digest: str
    device_bytes: int
    wanted: Wanted
    load_ms: float
    price_ms: float = 0.0


class Holding(msgspec.Struct, frozen=True, gc=False):
    """A model on the device in question; `busy` while requests run in it or it is loading."""

    digest: str
    device_bytes: int
    resident_ms: float
    worth: Worth
    busy: bool = False
    pinned: bool = False


class Room(msgspec.Struct, frozen=True, gc=False):
    """The device in question; `loading` while a load of whatever kind runs there."""

    budget_bytes: int
    holdings: tuple[Holding, ...] = ()
    loading: bool = False


class Load(msgspec.Struct, frozen=True, gc=False):
    """Bring it, after these have left; gains and losses for whoever asks why."""

    victims: tuple[str, ...]
    gain: float
    loss: float


class Leave(msgspec.Struct, frozen=True, gc=False):
    """Leave things as they are; `why` is one word."""

    why: str


def judge(
    candidate: Candidate, room: Room, now_ms: float, *, horizon_s: float, min_resident_s: float
) -> Load | Leave:
    """Load `candidate` into `room`, or leave it.

    1. Not on old news, not while another load runs, not what would gain nothing.
    2. Where it fits: when the gain over the horizon exceeds a fifth of the load, and the price.
    3. Else the least loss per byte leaves: never what is in use, pinned, new, or the last copy of
       a model in demand. The gain must be 1.5 times the loss, and what remains of it over the
       horizon exceed the load and the price.
    """
    wanted = candidate.wanted
    if now_ms - wanted.at_ms > MAX_AGE_MS:
        return Leave("stale")
    if room.loading:
        return Leave("loading")
    if candidate.device_bytes > room.budget_bytes:
        return Leave("too-large")
    gain = wanted.gain
    if gain <= 0.0:
        return Leave("no-gain")
    free_bytes = room.budget_bytes - sum(holding.device_bytes for holding in room.holdings)
    if free_bytes >= candidate.device_bytes:
        pays = gain * horizon_s > FREE_SHARE * candidate.load_ms + candidate.price_ms
        return Load((), gain, 0.0) if pays else Leave("does-not-pay")
    victims = _cheapest(room.holdings, candidate.device_bytes - free_bytes, min_resident_s * 1000.0)
    if victims is None:
        return Leave("no-room")
    loss = sum(victim.worth.loss for victim in victims)
    if gain <= GAIN_OVER_LOSS * loss:
        return Leave("dearer-here")
    if (gain - loss) * horizon_s <= candidate.load_ms + candidate.price_ms:
        return Leave("does-not-pay")
    return Load(tuple(victim.digest for victim in victims), gain, loss)


def _cheapest(holdings: Iterable[Holding], need_bytes: int, min_resident_ms: float) -> list[Holding] | None:
    """The least loss per byte first until `need_bytes` are free, none in vain; None when it can't be."""
    may_leave = [
        one
        for one in holdings
        if not one.busy
        and not one.pinned
        and one.resident_ms >= min_resident_ms
        and (one.worth.copies > 0 or one.worth.per_s <= 0.0)
    ]
    victims: list[Holding] = []
    for one in sorted(may_leave, key=lambda h: (h.worth.loss / max(1, h.device_bytes), h.worth.per_s)):
        if need_bytes <= 0:
            break
        need_bytes -= one.device_bytes
        victims.append(one)
    if need_bytes > 0:
        return None
    for one in reversed(victims.copy()):
        if need_bytes + one.device_bytes <= 0:
            need_bytes += one.device_bytes
            victims.remove(one)
    return victims


Others = Mapping[str, tuple[Beacon, float]]


class _Copy(NamedTuple):
    """A device copy at another node; the node's best one. `evicting`: it means to give it up."""

    node: str
    service_ms: float
    at_ms: float
    evicting: bool
    device_bytes: int


class _Home(NamedTuple):
    """A node that may hold a model: its largest device that is up, and the most that is free on one."""

    node: str
    region: str
    largest_bytes: int
    free_bytes: int


def demand_for(me: Beacon, others: Others, now_ms: float, needs: Mapping[str, Needs]) -> dict[str, Wanted]:
    """What is asked for at ingresses that this node would be the nearest home of, by model digest.

    Only models that another node has on its device and this one does not: those that nobody has
    are loaded when a request waits for them. `others` are the newest beacons and when they came.
    Distances are the ingresses' own `rtts_ms`; a node that one does not know is none of its homes.
    Among nodes as near as the nearest that could hold it, those with free memory are elected
    first, then by hash, so that not all of them load it. `far_ms` is the best copy elsewhere,
    `near_ms` this node.
    """
    nodes = {name: known for name, known in others.items() if now_ms - known[1] <= GONE_MS}
    if me.draining or not _largest(me):
        return {}
    homes = [_home(me)]
    homes += [_home(beacon) for beacon, _ in nodes.values() if not beacon.draining and _largest(beacon) > 0]
    copies = _copies(nodes)
    open_to = {
        digest: (_known(need, copies[digest]), copies[digest])
        for digest, need in needs.items()
        if digest in copies and not _workers(me, digest)
    }
    sums: dict[str, tuple[float, float, float, float]] = {}
    for ingress, at_ms in [(me, now_ms), *nodes.values()]:
        here_ms = _rtt(ingress, me.node)
        if here_ms is None or now_ms - at_ms > MAX_AGE_MS:
            continue
        near = _by_distance(ingress, homes)
        for digest, per_s in ingress.demand.items():
            known = open_to.get(digest)
            if known is None or per_s <= 0.0:
                continue
            need, held = known
            best = _best(ingress, held) if _is_home(me.node, here_ms, digest, need, near) else None
            if best is None:
                continue
            far_ms, copy = best
            # What it takes here nobody measured yet: as long as there.
            near_ms = here_ms + copy.service_ms
            if far_ms <= near_ms:
                continue
            sum_per_s, sum_far, sum_near, oldest_ms = sums.get(digest, (0.0, 0.0, 0.0, now_ms))
            sums[digest] = (
                sum_per_s + per_s,
                sum_far + per_s * far_ms,
                sum_near + per_s * near_ms,
                min(oldest_ms, at_ms, copy.at_ms),
            )
    return {
        digest: Wanted(per_s, far / per_s, near / per_s, oldest_ms, open_to[digest][0].device_bytes)
        for digest, (per_s, far, near, oldest_ms) in sums.items()
    }


def worth_of(me: Beacon, others: Others, now_ms: float) -> dict[str, Worth]:
    """What this node's device copies are good for, by model digest.

    Copies count only on fresh news, demand also on older: both so that rather too little is given
    up. Of several holders that all mean to evict (`evicting`), the one with the lowest name yields
    and keeps its copy; the others count on it. So a node flags its victim, waits INTENT_MS, and
    judges again: it goes ahead if there is still a copy that stays.
    """
    nodes = {name: known for name, known in others.items() if now_ms - known[1] <= GONE_MS}
    fresh = {name: known for name, known in nodes.items() if now_ms - known[1] <= MAX_AGE_MS}
    copies = _copies(fresh)
    ingresses = [me, *[beacon for beacon, _ in nodes.values()]]
    return {
        digest: _worth(me, digest, copies.get(digest, []), ingresses)
        for digest in me.models
        if _workers(me, digest)
    }


def _worth(me: Beacon, digest: str, held: list[_Copy], ingresses: Sequence[Beacon]) -> Worth:
    staying = [copy for copy in held if not copy.evicting]
    if not staying and held:
        first = min(held, key=lambda copy: copy.node)
        staying = [first] if first.node < me.node else []
    on = me.models[digest].workers.values()
    siblings = len(on) - 1
    here_ms = min(one.service_ms for one in on) or SERVICE_MS
    reload_ms = max(one.load_ms for one in on) or RELOAD_MS
    demand, loss = 0.0, 0.0
    for ingress in ingresses:
        per_s = ingress.demand.get(digest, 0.0)
        demand += per_s
        rtt_ms = _rtt(ingress, me.node)
        if per_s <= 0.0 or rtt_ms is None or siblings:
            continue
        best = _best(ingress, staying)
        loss += per_s * (reload_ms if best is None else max(0.0, best[0] - rtt_ms - here_ms))
    return Worth(demand, loss, len(staying) + siblings)


def _copies(nodes: Others) -> dict[str, list[_Copy]]:
    """Device copies by model digest. One on its way counts: another load beside it would be in vain."""
    found: dict[str, list[_Copy]] = {}
    for name, (beacon, at_ms) in nodes.items():
        if beacon.draining:
            continue
        for digest, model in beacon.models.items():
            on_up = [
                on
                for index, on in model.workers.items()
                if 0 <= index < len(beacon.workers) and beacon.workers[index].state is State.UP
            ]
            if on_up:
                service_ms = min([on.service_ms or SERVICE_MS for on in on_up])
                device_bytes = max([on.device_bytes for on in on_up])
                copy = _Copy(name, service_ms, at_ms, model.evicting, device_bytes)
                found.setdefault(digest, []).append(copy)
    return found


def _known(need: Needs, held: Iterable[_Copy]) -> Needs:
    """Who has it knows better what it takes on a device than the catalogue, which may know only its files."""
    return need._replace(device_bytes=max(need.device_bytes, *[copy.device_bytes for copy in held]))


def _best(ingress: Beacon, held: Iterable[_Copy]) -> tuple[float, _Copy] | None:
    """The copy that answers this ingress first, and in how many ms; None when it knows the way to none."""
    best: tuple[float, _Copy] | None = None
    for copy in held:
        rtt_ms = _rtt(ingress, copy.node)
        if rtt_ms is not None and (best is None or rtt_ms + copy.service_ms < best[0]):
            best = (rtt_ms + copy.service_ms, copy)
    return best


def _rtt(ingress: Beacon, node: str) -> float | None:
    return 0.0 if ingress.node == node else ingress.rtts_ms.get(node)


def _by_distance(ingress: Beacon, homes: Iterable[_Home]) -> list[tuple[float, _Home]]:
    rows = [(_rtt(ingress, home.node), home) for home in homes]
    known = [(rtt_ms, home) for rtt_ms, home in rows if rtt_ms is not None]
    known.sort()
    return known


def _is_home(node: str, rtt_ms: float, digest: str, need: Needs, near: Sequence[tuple[float, _Home]]) -> bool:
    """Is `node`, at `rtt_ms`, the one elected of those that could hold it and are nearest?"""
    rivals: list[_Home] = []
    bound_ms = rtt_ms
    for away_ms, home in near:
        if away_ms > bound_ms:
            break
        if need.device_bytes <= home.largest_bytes and (not need.confine or home.region in need.confine):
            if not rivals:
                bound_ms = away_ms + NEAR_MS
                if rtt_ms > bound_ms:
                    return False
            rivals.append(home)
    if not rivals:
        return False
    elected = max(
        rivals,
        key=lambda home: (home.free_bytes >= need.device_bytes, zlib.crc32(f"{digest}/{home.node}".encode())),
    )
    return elected.node == node


def _home(beacon: Beacon) -> _Home:
    return _Home(beacon.node, beacon.region, _largest(beacon), _free(beacon))


def _largest(beacon: Beacon) -> int:
    """Bytes of the largest device that is up."""
    return max([worker.device_bytes for worker in beacon.workers if worker.state is State.UP], default=0)


def _free(beacon: Beacon) -> int:
    """Free bytes of the emptiest device that is up."""
    up = [worker for worker in beacon.workers if worker.state is State.UP]
    return max([worker.device_bytes - worker.used_bytes for worker in up], default=0)


def _workers(beacon: Beacon, digest: str) -> int:
    """How many of the node's devices have the model, or will."""
    model = beacon.models.get(digest)
    return 0 if model is None else len(model.workers)
