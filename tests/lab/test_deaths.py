"""What deaths cost the clients of a POP: only what was in the dead process, and it says so."""

import contextlib
import json
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from netlab.clock import now_ms, now_s, wait_until
from netlab.handles import NodeHandle, User
from netlab.lab import Lab
from tests.support.deaths import BACK_MS, DEAD_MS, DEATHS, Death, restart
from tests.support.joined import digest_of, evict
from tests.support.load import Asked, Load
from tests.support.waits import FAMILIES, once, settle

pytestmark = pytest.mark.lab

TEXT = b"How do I reach the nearest GPU?"

IDENTITY = "/v2/models/identity/infer"
CONNECTIONS = 16


def vector(size: int) -> bytes:
    """An OIP request with so many numbers."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, size], "data": list(range(size))}
    return json.dumps({"inputs": [tensor]}).encode()


NUMBERS = vector(16)


@pytest.fixture
def fra(lab: Lab) -> Iterator[NodeHandle]:
    """A fra-a without a past: a proxy that died in the last test is not on trial in this one."""
    node = lab.node("fra-a")
    if any(child["exits"] for child in tree(node)["children"]):
        restart(node)
    settle(lab.city("ber"), "fra")
    yield Lab.running().node("fra-a")
    restart(Lab.running().node("fra-a"))
    settle(lab.city("ber"), "fra")


def tree(node: NodeHandle) -> dict[str, Any]:
    """What the parent says of its announcement and its children."""
    return dict(node.admin("GET", "/edge/state").json["tree"])


def announcement(node: NodeHandle) -> str:
    return str(tree(node)["announcement"])


def dead(node: NodeHandle, *roles: str) -> float:
    """Kill these; when the last of them was gone (monotonic seconds)."""
    pids = node.kill(*roles)
    assert pids
    wait_until(lambda: not set(pids) & set(node.pids()), f"{roles} of {node.name} are gone", within_s=5)
    return now_s()


#: The bounds themselves are for quiet machines: make soak and the bench hold them, ten rounds each.
BUSY_MS = 500.0


#: Their clients' waits are seen by the tests below.
BELOW = ("parent", "blocked", "crash-loop", "proxy")
ALONE = [death for death in DEATHS if death.name not in BELOW]


@pytest.mark.parametrize("death", ALONE, ids=[death.name for death in ALONE])
def test_clients_wait_no_longer_than_promised(lab: Lab, death: Death) -> None:
    allowed_ms = death.allowed_ms(lab) + BUSY_MS
    late = [one for one in once(death).waits if one.after_ms is None or one.after_ms > allowed_ms]
    assert late == [], f"{death.sentence}: at most {allowed_ms:.0f} ms"


def wait_until_both_served_by(user: User, pop: str, within_ms: float) -> None:
    """Over IPv4 and IPv6."""
    until_ms = now_ms() + within_ms
    for family in FAMILIES:
        user.wait_until_served_by(pop, within_ms=until_ms - now_ms(), family=family)


@contextlib.contextmanager
def loads(user: User, path: str, body: bytes = b"", *, keep: bool = True) -> Iterator[tuple[Load, Load]]:
    """The same over IPv4 and over IPv6."""
    four, six = (
        Load(user, path, body, family=family, connections=CONNECTIONS, keep=keep) for family in FAMILIES
    )
    with four, six:
        yield four, six


def first_answer_ms(asked: list[Asked], since_s: float, pop: str) -> float:
    """How long after `since_s` the first answer of that POP was whole, of those that were asked for since."""
    ends = [one.ended_s for one in asked if one.started_s >= since_s and one.pop == pop]
    return (min(ends) - since_s) * 1000


def test_a_proxy_killed_under_load_costs_only_what_was_in_it(lab: Lab, fra: NodeHandle) -> None:
    ber = lab.city("ber")
    assert ber.post(IDENTITY, NUMBERS).status == 200
    with loads(ber, IDENTITY, NUMBERS) as both:
        for load in both:
            load.wait_until_asked(200)
        gone_s = dead(fra, "proxy")
        for load in both:
            load.wait_until_asked(200, since_s=gone_s)
    for load in both:
        failed = [asked for asked in load.history if asked.outcome != "200"]
        assert {asked.outcome for asked in failed} <= {"reset", "closed"}, load.outcomes()
        assert 0 < len(failed) <= CONNECTIONS, "each connection had one request in the proxy, and lost it"
        assert [asked for asked in failed if asked.fresh and asked.started_s > gone_s] == [], "new ones wait"
        assert {asked.pop for asked in load.history if asked.outcome == "200"} == {"fra"}, (
            "it kept its clients"
        )
        assert first_answer_ms(load.history, gone_s, "fra") <= BACK_MS + BUSY_MS
    wait_until(lambda: announcement(fra) == "announced", "the lease is renewed again", within_s=2)


def test_a_proxy_that_dies_twice_is_withdrawn(lab: Lab, fra: NodeHandle) -> None:
    """Until it has lived for ten seconds: tests/service/test_announce.py waits for that."""
    ber = lab.city("ber")
    before = dead(fra, "proxy")
    ber.wait_until_served_by("fra", within_ms=8000)
    again_s = dead(fra, "proxy")
    assert again_s - before < 10
    wait_until_both_served_by(ber, "ams", within_ms=1000)
    wait_until(
        lambda: (fra.home / "run" / "ready").exists(), "the third proxy is ready", within_s=10, every_s=0.05
    )
    assert announcement(fra) == "withdrawn: the proxy exited twice within its trial"
    assert ber.served_by() == "ams"


@pytest.mark.parametrize(("city", "name"), [("ber", "fra-a"), ("nyc", "iad-b")])
def test_a_worker_killed_under_load_costs_only_what_was_in_it(lab: Lab, city: str, name: str) -> None:
    user, node = lab.city(city), lab.node(name)
    assert user.post("/run/minilm", TEXT).status == 200
    with Load(user, "/run/minilm", TEXT, connections=CONNECTIONS) as load:
        load.wait_until_asked(100)
        gone_s = dead(node, "worker")
        load.wait_until_asked(100, since_s=gone_s, within_s=40)
    failed = [asked for asked in load.history if asked.outcome != "200"]
    assert {(asked.outcome, asked.reason) for asked in failed} <= {("503", "worker-lost")}, load.outcomes()
    assert len(failed) <= CONNECTIONS
    assert [asked for asked in failed if asked.started_s > gone_s] == [], "later ones go elsewhere"
    assert f"{name}/0" in {asked.served_by for asked in load.history if asked.outcome == "200"}
    wait_until(
        lambda: user.post(IDENTITY, NUMBERS).headers["edge-served-by"] == f"{name}/0",
        "home again",
        within_s=20,
    )


def test_a_proxy_whose_loop_is_blocked_is_withdrawn_and_replaced(lab: Lab, fra: NodeHandle) -> None:
    ber = lab.city("ber")
    before = fra.signal(signal.SIGSTOP, "proxy")
    wait_until_both_served_by(ber, "ams", within_ms=DEAD_MS + BUSY_MS)
    assert fra.pids("proxy") == before, "nobody has killed it yet"
    ber.wait_until_served_by("fra", within_ms=15_000)
    assert fra.pids("proxy") not in ([], before), "its parent did, after five seconds of silence"


def test_an_orphaned_node_refuses_nobody(lab: Lab, fra: NodeHandle) -> None:
    """Its clients are served by fra until the address is withdrawn, and by ams from then on."""
    ber = lab.city("ber")
    with loads(ber, "/pop", keep=False) as both:
        for load in both:
            load.wait_until_asked(100)
        gone_s = dead(fra, "parent")
        wait_until(lambda: not fra.pids(), "the orphans have left", within_s=15)
        for load in both:
            load.wait_until_asked(100, since_s=now_s())
    for load in both:
        answered = [asked for asked in load.history if asked.outcome == "200"]
        # late: nobody told that client; it has sent all that it had, and waits for an answer.
        assert {asked.outcome for asked in load.history} <= {"200", "reset", "late"}, load.outcomes()
        lost = len(load.history) - len(answered)
        assert lost <= CONNECTIONS, f"{lost} were under way when the route moved: {load.outcomes()}"
        pops = [asked.pop for asked in sorted(answered, key=lambda asked: asked.ended_s)]
        moved = pops.index("ams")
        assert set(pops[:moved]) == {"fra"}
        assert pops[-1] == "ams"
        assert first_answer_ms(answered, gone_s, "ams") <= DEAD_MS + BUSY_MS


def blobs(node: NodeHandle, shelf: str = "blobs") -> list[str]:
    """What lies on that shelf of the node's store."""
    return sorted(path.name for path in (node.home / "store" / shelf).glob("*"))


@pytest.fixture
def empty(lab: Lab) -> Iterator[NodeHandle]:
    """nrt-a with nothing on its disk; the origin is well again afterwards."""
    node = lab.node("nrt-a")
    node.kill()
    wait_until(lambda: not node.pids(), "nrt-a is dead", within_s=5)
    shutil.rmtree(node.home / "store")
    node.restart(within_s=60)
    settle(lab.city("tyo"), "nrt")
    assert blobs(node) == []
    wait_until(
        lambda: node.admin("GET", "/edge/state").json["catalogue_epoch"], "it has a catalogue", within_s=10
    )
    yield Lab.running().node("nrt-a")
    origin = Lab.running().origin
    if "origin" in Lab.running().dead():
        origin.restart()
    Lab.running().origin.heal()


def test_a_corrupted_blob_is_never_served(lab: Lab, empty: NodeHandle) -> None:
    tyo, origin = lab.city("tyo"), lab.origin
    digest = digest_of(lab, "nrt-a", "identity")

    def nowhere() -> bool:
        """It may have been on its way there: whoever was asked for it of late brings it near again."""
        for node in ("iad-b", "fra-a"):
            evict(lab, node, "identity", disk=True)
        rows = lab.node("nrt-a").admin("GET", "/edge/models").json["models"]
        return any(row["digest"] == digest and not row["on_disk"] for row in rows)

    wait_until(nowhere, "no disk has it", within_s=10)
    origin.fail("corrupt", "blobs/")
    refused = tyo.post(IDENTITY, NUMBERS, edge_force_region="ap")
    assert (refused.status, refused.headers["edge-drop-reason"]) == (503, "blob-corrupt"), refused.text
    assert "error" in refused.json
    assert int(refused.headers["retry-after"]) >= 1
    assert blobs(empty) == []
    assert len(blobs(empty, "quarantine")) == 1
    origin.heal()
    sound = tyo.post("/v2/models/mlp/infer", vector(256), edge_force_region="ap")
    assert (sound.status, sound.headers["edge-residency"] in ("origin", "far")) == (200, True), sound.text
    restart(empty)  # a running node does not ask again for half a minute
    settle(tyo, "nrt")
    healed = tyo.post(IDENTITY, NUMBERS, edge_force_region="ap")
    assert (healed.status, healed.headers["edge-residency"] in ("origin", "far")) == (200, True), healed.text
    for city, region, name in (("nyc", "us", "iad-b"), ("ber", "eu", "fra-a")):
        # Whoever brought it near by itself meanwhile met the wrong bytes too, and remembers.
        if lab.city(city).post(IDENTITY, NUMBERS, edge_force_region=region).status != 200:
            restart(lab.node(name))
    settle(lab.city("ber"), "fra")


def test_without_the_origin_other_disks_serve(lab: Lab, empty: NodeHandle) -> None:
    nyc, tyo = lab.city("nyc"), lab.city("tyo")
    script = b"#!/bin/sh\necho hello\n"
    assert tyo.post(IDENTITY, NUMBERS, edge_force_region="ap").status == 200
    assert nyc.post("/run/magika", script, edge_force_region="us").status == 200
    digest = digest_of(lab, "nrt-a", "magika")

    def known() -> bool:
        rows = lab.node("nrt-a").admin("GET", "/edge/models").json["models"]
        return any(row["digest"] == digest and "iad-b" in row["on_disk"] for row in rows)

    wait_until(known, "nrt-a knows whose disk has it", within_s=5)
    lab.origin.kill()
    warm = tyo.post(IDENTITY, NUMBERS, edge_force_region="ap")
    assert (warm.status, warm.headers["edge-residency"]) == (200, "device")
    from_far = tyo.post("/run/magika", script, edge_force_region="ap")
    assert (from_far.status, from_far.headers["edge-residency"]) == (200, "far"), from_far.text
    # Also after a death: what lies on the disk needs no origin, not even to begin.
    restart(empty)
    settle(tyo, "nrt")
    from_disk = tyo.post(IDENTITY, NUMBERS, edge_force_region="ap")
    assert (from_disk.status, from_disk.headers["edge-residency"]) == (200, "disk"), from_disk.text
    lab.origin.restart()
