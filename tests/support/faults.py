"""Every way to fail on the shared planet, and one thing that its users or neighbours then see.

`once` looks, breaks, looks, heals and looks again: what is seen of a fault must not be there before it.
The lab's tests do the quick ones and the soak the rest.
It knows nothing of how any of it is done.
"""

import http.client
import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from netlab import clock, faulttarget, names, planetfile, probe, resp, start, well
from netlab import state as state_of
from netlab.clock import wait_until
from netlab.lab import Lab
from tests.support.joined import ask, evict, state

LARGE_MODEL: Final = "ballast-64mb"
_PLANET: Final = planetfile.load(planetfile.PLANET)


Shown = Callable[[Lab], object]


class Case(msgspec.Struct, frozen=True):
    """`aim` looks at the well planet and gives what is true once the fault is felt, and not before.

    `quick` ones are part of `make test`.
    """

    target: str
    how: str
    sentence: str
    aim: Callable[[Lab], Shown]
    quick: bool = True

    @property
    def kind(self) -> str:
        """What it is that fails."""
        return faulttarget.parse(self.target, _PLANET).kind

    @property
    def id(self) -> str:
        """For pytest."""
        return f"{self.target.replace('/', '.')}-{self.how}"


def once(case: Case) -> None:
    """Break it, feel it, mend it. Raises DeadlineMissed and AssertionError."""
    lab = Lab.running()
    wait_until(lambda: not well.unwell(Lab.running()), "it is well before", within_s=30, every_s=0.1)
    assert ask(lab.city("ber"), "identity", edge_force_region="eu", edge_cold="wait").status == 200
    shown = case.aim(lab)
    assert not shown(lab), f"{case.sentence} before anything is broken"
    if case.how == "full":
        evict(lab, "fra-a", LARGE_MODEL, disk=True)  # the look before the fault loaded it
    with lab.fail(case.target, case.how) as broken:
        assert [(fault.target, fault.how) for fault in lab.faults()] == [(case.target, case.how)]
        assert broken.fault.remedy in str(broken)
        assert [s.partition(" was broken")[0] for s in well.unwell(Lab.running())] == [case.target]
        wait_until(lambda: shown(Lab.running()), case.sentence, within_s=40, every_s=0.1)
        if not (broken.fault.way.passes or case.how in _HARMLESS):
            wait_until(lambda: well.felt(Lab.running()), "it is not well", within_s=20, every_s=0.1)
    assert Lab.running().faults() == []


#: Another clock changes nothing that a neighbour can see, and is no harm.
_HARMLESS: Final = ("clock-ahead",)


def _always(shown: Shown) -> Callable[[Lab], Shown]:
    """What is shown is the same whatever was there before."""
    return lambda _: shown


def _served_by(pop: str) -> Callable[[Lab], Shown]:
    return _always(lambda lab: lab.city("ber").served_by() == pop)


def _replaced(name: str) -> Callable[[Lab], Shown]:
    """A child of fra-a died, was started again by its parent, and users are served."""

    def child(lab: Lab) -> dict[str, Any]:
        return next(c for c in state(lab, "fra-a")["tree"]["children"] if c["role"] == name)

    def aim(lab: Lab) -> Shown:
        exits = child(lab)["exits"]

        def shown(lab: Lab) -> bool:
            now = child(lab)
            return bool(now["exits"] > exits and now["ready"] and warm(lab))

        return lambda lab: _answered(lambda: shown(lab))

    return aim


def _flushed(lab: Lab) -> Shown:
    """The nodes of the region made it another epoch, and users see nothing."""

    def epoch(lab: Lab) -> object:
        return lab.region("eu").redis.cli("GET", "wc:{eu}:epoch")

    before = epoch(lab)
    assert before, "a well region has an epoch"
    return lambda lab: epoch(lab) not in (None, before) and warm(lab)


def _ahead(lab: Lab) -> bool:
    """What fra-a writes into its log is of an hour that has not come, and users are served."""
    lines = state_of.log_of("fra-a").read_text().splitlines()
    last = json.loads(next(line for line in reversed(lines) if line.startswith("{")))
    return last["ts"] > clock.wall_s() + 3000 and warm(lab)


def _answered(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except (OSError, http.client.HTTPException):
        return False


def warm(lab: Lab) -> bool:
    """A user of ber gets an answer of a model."""
    return ask(lab.city("ber"), "identity").status == 200


def _index(word: str) -> Callable[[Lab], Shown]:
    """fra-a says so of its region's Redis, and its users do not notice."""
    return _always(lambda lab: state(lab, "fra-a")["weights"]["index"]["state"] == word and warm(lab))


def _write_refused(word: str) -> Callable[[Lab], Shown]:
    def shown(lab: Lab) -> bool:
        key = "wc:{eu}:alive:fra-a"
        try:
            lab.region("eu").redis.cli_as("fra-a", lab.node("fra-a").redis_password(), "SET", key, "1")
        except resp.RedisError as error:
            return str(error).startswith(word) and warm(lab)
        return False

    return _always(shown)


def _origin(
    wanted: Callable[[probe.Answer], object] | type[Exception], name: str = "catalog.json", size: int = 10
) -> Callable[[Lab], Shown]:
    """What the origin's own router gets from it, and that ber's users do not notice."""

    def shown(lab: Lab) -> bool:
        topology = lab.topology
        whole = probe.request(
            names.router(topology.origin.pop),
            str(topology.origin4),
            "GET",
            f"/{name}",
            port=topology.origin.port,
            headers={"Range": f"bytes=0-{size - 1}"},
            timeout_s=0.5,
        )
        return bool(not isinstance(wanted, type) and wanted(whole))

    def looked(lab: Lab) -> bool:
        try:
            return shown(lab) and warm(lab)
        except (OSError, http.client.HTTPException) as error:
            return isinstance(wanted, type) and isinstance(error, wanted) and warm(lab)

    return _always(looked)


def _link(what: str, *ways: str) -> Callable[[Lab], Shown]:
    """The WAN says so of just these directions, and ber is served by its own POP."""
    wanted = dict.fromkeys(ways, what)

    def shown(lab: Lab) -> bool:
        seen = {f"{link.origin}-{link.to}": link.text() for link in lab.wan.conditions()}
        return seen == wanted and warm(lab)

    return _always(shown)


def _session_down(place: str, name: str) -> Callable[[Lab], Shown]:
    return _always(lambda lab: lab.sessions(place).get(name) is False)


def _disk_full(lab: Lab) -> bool:
    """A model that fra-a does not have is refused there; what it has is served."""
    body = json.dumps({"input": [[0.5] * 64]})
    cold = lab.city("ber").post(f"/run/{LARGE_MODEL}", body, edge_force_region="eu", edge_cold="wait")
    return (cold.status, cold.headers.get("edge-drop-reason")) == (503, "no-space") and warm(lab)


def _alone(lab: Lab) -> bool:
    """Nobody believes its certificate, and its users are served."""
    return not any(peer["linked"] for peer in state(lab, "fra-a")["peers"]) and warm(lab)


LARGE: Final = max(
    (f"blobs/{path.name}" for path in (start.MODELS / "blobs").glob("*") if path.stat().st_size > 1 << 20),
    default="",
)
AMS = "ber is served by ams"
BOTH: Final = ("fra-ams", "ams-fra")
CASES: Final = (
    Case("fra-a", "kill", AMS, _served_by("ams"), quick=False),
    Case("fra-a", "stop", AMS, _served_by("ams"), quick=False),
    Case("fra-a", "blackhole", AMS, _served_by("ams"), quick=False),
    Case("fra-a", "full", "a model has no room on fra-a", _always(_disk_full)),
    Case("fra-a", "clock-ahead", "its log is of another hour", _always(_ahead), quick=False),
    Case("fra-a", "clock-behind", "fra-a is alone and serves", _always(_alone), quick=False),
    Case("fra-a/parent", "kill", AMS, _served_by("ams"), quick=False),
    Case("fra-a/parent", "stop", AMS, _served_by("ams"), quick=False),
    Case("fra-a/proxy", "kill", "another proxy serves", _replaced("proxy")),
    Case("fra-a/proxy", "stop", AMS, _served_by("ams"), quick=False),
    Case("fra-a/weights", "kill", "another weights process is there", _replaced("weights")),
    Case("fra-a/weights", "stop", "its parent replaces it", _replaced("weights"), quick=False),
    Case("fra-a/worker", "kill", "another worker is there", _replaced("worker-0")),
    Case("fra-a/worker", "stop", "its parent replaces it", _replaced("worker-0"), quick=False),
    Case("fra-a/bird", "kill", AMS, _served_by("ams")),
    Case("fra-a/bird", "stop", AMS, _served_by("ams"), quick=False),
    Case("r-fra/bird", "kill", "ams lost it", _session_down("r-ams", "wan4_fra"), quick=False),
    Case("r-fra/bird", "stop", "its node lost it", _session_down("fra-a", "router4"), quick=False),
    Case("redis/eu", "kill", "fra-a's index is stale", _index("stale")),
    Case("redis/eu", "stop", "fra-a's index is stale", _index("stale")),
    Case("redis/eu", "flush", "the index has another epoch", _flushed),
    Case("redis/eu", "wrong-password", "fra-a's index is stale", _index("stale")),
    Case("redis/eu", "read-only", "writes are refused", _write_refused("NOREPLICAS")),
    Case("redis/eu", "out-of-memory", "writes are refused", _write_refused("OOM"), quick=False),
    Case("origin", "kill", "it refuses", _origin(ConnectionRefusedError)),
    Case("origin", "stop", "it is silent", _origin(TimeoutError), quick=False),
    Case("origin", "blackhole", "it is silent", _origin(TimeoutError), quick=False),
    Case("origin", "5xx", "it says 503", _origin(lambda answer: answer.status == 503)),
    Case("origin", "stall", "it stops half way", _origin(TimeoutError), quick=False),
    Case(
        "origin",
        "drip",
        "20 kB take a second",
        _origin(lambda a: a.total_ms > 900, LARGE, 20_000),
        quick=False,
    ),
    Case("origin", "cut", "it closes half way", _origin(lambda answer: len(answer.body) == 5)),
    Case("origin", "corrupt", "a byte is wrong", _origin(lambda a: a.body != b'{"epoch":1')),
    Case("origin", "200-to-range", "it says 200", _origin(lambda answer: answer.status == 200), quick=False),
    Case("fra-ams", "cut", "both ends are cut", _link("4 ms, cut", *BOTH)),
    Case("fra-ams", "one-way", "one end is cut", _link("4 ms, cut", "fra-ams")),
    Case("fra-ams", "lossy", "it loses", _link("4 ms, loss 30%", *BOTH)),
    Case("fra-ams", "narrow", "it is narrow", _link("4 ms, at most 1 Mbit/s", *BOTH), quick=False),
)
