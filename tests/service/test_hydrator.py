"""Background hydration over a real worker and store: it loads what pays, evicts what was judged, and says why not."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest

from edge import clock
from edge.config import Routing, Worker
from edge.policy.facts import Beacon, ModelBeacon, OnDevice, Rates, State, Tier, WorkerBeacon
from edge.policy.hydration import INTENT_MS, Needs
from edge.proxy.device import Stage
from edge.proxy.estimates import Estimates
from edge.proxy.hydrator import MAX_RECENT, Hydrator, Source, World
from edge.weights.manifest import Manifest
from tests.support import tiny
from tests.support.local import Children, Local, local, tasks
from tests.support.wait import wait_until

MIB = 1 << 20
CONFIG = Worker(device_bytes="100MiB")
FAR_MS = 90.0


@pytest.fixture(scope="module")
def children(tmp_path_factory) -> Iterator[Children]:
    made = Children(tmp_path_factory.mktemp("node"), CONFIG)
    yield made
    made.close()


@pytest.fixture
async def node(children) -> AsyncIterator[Local]:
    async with local(children) as made:
        yield made


class Planet:
    """This node "n", and a node "far" that has every model; `demand` is what is asked for at n."""

    def __init__(self, node: Local, **routing) -> None:
        self.node = node
        self.needs: dict[str, Needs] = {}
        self.manifests: dict[str, Manifest] = {}
        self.demand: dict[str, float] = {}
        self.evicted_from_far: set[str] = set()
        self.age_ms = 0.0
        self.confined: set[str] = set()
        self.told: list[frozenset[str]] = []
        self.hydrator = Hydrator(
            Routing(**{"min_resident_s": 0, **routing}),
            {"n/0": node.worker},
            world=self.world,
            allowed=lambda digest: digest not in self.confined,
            source=lambda _: Source(Tier.FAR),
            name=lambda digest: digest[:4],
            fetch_ms=Estimates(Rates, dict).fetch_ms,
            changed=lambda: self.told.append(self.hydrator.evicting),
            spawn=node.background.spawn,
        )

    def publish(self, make, needs_mib, **options) -> str:
        manifest = msgspec.structs.replace(make(self.node.blobs, **options), device_bytes=needs_mib * MIB)
        digest = self.node.publish(manifest)
        self.needs[digest] = Needs(manifest.device_bytes)
        self.manifests[digest] = manifest
        return digest

    async def load(self, digest: str) -> None:
        await self.node.load(self.manifests[digest])

    def device_bytes(self, digest: str) -> int:
        return self.manifests[digest].device_bytes if digest in self.manifests else 0

    def world(self) -> World:
        worker = WorkerBeacon(
            State.UP, 32, 128, device_bytes=100 * MIB, used_bytes=self.node.worker.used_bytes
        )
        known = OnDevice(service_ms=5.0, load_ms=50.0)
        here = {
            entry.digest: ModelBeacon(Tier.DISK, {0: known})
            for entry in self.node.worker.book.entries()
            if entry.stage is not Stage.LEAVING
        }
        me = Beacon(
            node="n", pop="n", region="eu", boot=1, seq=1, workers=(worker,), models=here,
            demand=self.demand, rtts_ms={"far": FAR_MS},
        )  # fmt: skip
        there = {
            digest: ModelBeacon(
                Tier.DISK,
                {0: msgspec.structs.replace(known, device_bytes=self.device_bytes(digest))},
            )
            for digest in self.needs
            if digest not in self.evicted_from_far
        }
        far = Beacon(
            node="far", pop="far", region="us", boot=1, seq=1, workers=(worker,), models=there,
            rtts_ms={"n": FAR_MS},
        )  # fmt: skip
        return World(me, {"far": (far, clock.now_ms() - self.age_ms)}, self.needs)

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.hydrator.look(clock.now_ms())

    @property
    def verdicts(self) -> list[str]:
        return [judged.verdict for judged in self.hydrator.recent]

    async def wait_until_here(self, digest: str) -> None:
        def here() -> bool:
            entry = self.node.worker.book.find(digest)
            return entry is not None and entry.stage is Stage.RESIDENT and entry.in_use == 0

        await wait_until(here)


@pytest.fixture
def planet(node) -> Planet:
    return Planet(node)


async def test_what_is_asked_for_here_and_served_from_far_is_brought_near_by_itself(node, planet):
    digest = planet.publish(tiny.identity, 40)
    planet.demand = {digest: 10.0}
    async with tasks(planet.hydrator.run()):
        await planet.wait_until_here(digest)
    assert (planet.hydrator.started, planet.hydrator.loaded, planet.verdicts) == (1, 1, ["load"])
    (judged,) = planet.hydrator.recent
    assert (judged.digest, judged.worker, judged.victims, judged.per_s) == (digest, "n/0", (), 10.0)
    assert judged.gain == pytest.approx(10.0 * FAR_MS)
    await node.wait_until_held(digest)
    planet.look(5)
    assert planet.hydrator.started == 1


@pytest.mark.parametrize(
    ("sentence", "change", "verdicts"),
    [
        ("nobody asks for it", lambda planet, _: planet.demand.clear(), []),
        ("the news is old", lambda planet, _: setattr(planet, "age_ms", 2_000.0), ["stale"]),
        ("it may not run here", lambda planet, digest: planet.confined.add(digest), ["confined"]),
        ("nobody has it near or far", lambda planet, digest: planet.evicted_from_far.add(digest), []),
        ("it is hardly asked for", lambda planet, digest: planet.demand.update({digest: 1e-9}), ["does-not-pay"]),
    ],
)  # fmt: skip
async def test_it_stays_far(node, planet, sentence, change, verdicts):
    digest = planet.publish(tiny.identity, 40)
    planet.demand = {digest: 10.0}
    change(planet, digest)
    planet.look(5)
    assert planet.verdicts == verdicts, "and each is noted once"
    assert dict(planet.hydrator.left) == dict.fromkeys(verdicts, 1)
    assert (planet.hydrator.started, node.worker.book.entries()) == (0, [])


async def test_what_takes_more_than_the_catalogue_knows_is_not_begun_in_vain(node, planet):
    kept, digest = planet.publish(tiny.identity, 70), planet.publish(tiny.picker, 40)
    await planet.load(kept)
    planet.needs[digest] = Needs(1 * MIB)
    planet.demand = {kept: 10.0, digest: 1.0}
    planet.look()
    assert (planet.hydrator.started, planet.verdicts) == (0, ["dearer-here"])


async def test_one_background_load_at_a_time(node, planet):
    first, second = planet.publish(tiny.identity, 20), planet.publish(tiny.picker, 20)
    planet.demand = {first: 20.0, second: 10.0}
    node.children.worker.freeze()
    planet.look(3)
    assert (planet.hydrator.started, planet.verdicts) == (1, ["load", "loading"])
    node.children.worker.thaw()
    await planet.wait_until_here(first)
    await wait_until(lambda: planet.hydrator.loaded == 1)
    planet.look()
    await planet.wait_until_here(second)


async def test_dearer_models_stay(node, planet):
    dear, digest = planet.publish(tiny.identity, 80), planet.publish(tiny.picker, 80)
    await planet.load(dear)
    planet.demand = {dear: 10.0, digest: 10.0}
    planet.look(5)
    assert planet.verdicts == ["dearer-here"]
    assert planet.hydrator.evicting == frozenset()
    assert set(await node.on_device()) == {dear}


async def test_a_pinned_model_stays(node, planet):
    pinned, digest = planet.publish(tiny.identity, 80), planet.publish(tiny.picker, 80)
    await planet.load(pinned)
    node.worker.book.pinned = frozenset({pinned})
    planet.demand = {digest: 10.0}
    planet.look()
    assert planet.verdicts == ["no-room"]


async def test_a_model_that_came_just_now_stays(node):
    planet = Planet(node, min_resident_s=30)
    resident, digest = planet.publish(tiny.identity, 80), planet.publish(tiny.picker, 80)
    await planet.load(resident)
    planet.demand = {digest: 10.0}
    planet.look()
    assert planet.verdicts == ["no-room"]


async def test_exactly_the_judged_victim_leaves_after_the_others_were_told(node, planet):
    dear, cheap, digest = (
        planet.publish(tiny.identity, 45),
        planet.publish(tiny.spinner, 45),
        planet.publish(tiny.picker, 50),
    )
    await planet.load(dear)
    for _ in range(100):
        # A request that waited would send the other one away.
        await planet.load(cheap)
    planet.demand = {dear: 10.0, digest: 10.0}
    began_ms = clock.now_ms()
    planet.look(3)
    assert (planet.verdicts, planet.hydrator.started) == (["intent"], 0)
    assert planet.hydrator.evicting == {cheap}
    assert planet.told == [frozenset({cheap})]
    async with tasks(planet.hydrator.run()):
        await planet.wait_until_here(digest)
    assert clock.now_ms() - began_ms >= INTENT_MS
    assert set(await node.on_device()) == {dear, digest}
    assert planet.verdicts == ["intent", "load"]
    assert planet.hydrator.recent[-1].victims == (cheap,)
    await wait_until(lambda: planet.told[-1] == frozenset())
    await node.wait_until_held(dear, digest)


async def test_an_intent_ends_with_its_reason(node, planet):
    cheap, digest = planet.publish(tiny.spinner, 80), planet.publish(tiny.picker, 50)
    await planet.load(cheap)
    planet.demand = {digest: 10.0}
    planet.look()
    assert planet.hydrator.evicting == {cheap}
    planet.demand = {}
    planet.look()
    assert planet.hydrator.evicting == frozenset()
    assert planet.told == [frozenset({cheap}), frozenset()]


async def test_a_victim_that_is_used_again_stays(node, planet):
    cheap, digest = planet.publish(tiny.spinner, 80), planet.publish(tiny.picker, 50)
    await planet.load(cheap)
    planet.demand = {digest: 10.0}
    planet.look()
    entry = node.worker.claim(cheap, "spinner")
    planet.look()
    assert planet.verdicts == ["intent", "no-room"]
    assert planet.hydrator.evicting == frozenset()
    node.worker.unclaim(entry)


async def test_a_load_that_failed_is_not_tried_again_at_once(node, planet):
    digest = "0" * 64
    planet.needs[digest] = Needs(40 * MIB)
    planet.demand = {digest: 10.0}
    planet.look()
    assert planet.hydrator.started == 1
    await wait_until(lambda: node.worker.book.entries() == [])
    await wait_until(lambda: sum(planet.hydrator.left.values()) == 1)
    planet.look(3)
    assert (planet.hydrator.started, planet.hydrator.loaded) == (1, 0)
    assert planet.verdicts == ["load", "failed-before"]


async def test_a_request_may_join_and_finds_the_model(node, planet):
    digest = planet.publish(tiny.identity, 40)
    planet.demand = {digest: 10.0}
    node.children.worker.freeze()
    planet.look()
    await asyncio.sleep(0)
    entry = node.worker.claim(digest, "identity")
    assert (entry.in_use, entry.victims) == (2, None)
    node.children.worker.thaw()
    await node.worker.ensure(entry, 10_000)
    node.worker.unclaim(entry)
    await planet.wait_until_here(digest)


async def test_who_does_not_hydrate_does_not_look(node):
    planet = Planet(node, hydrate=False)
    planet.demand = {planet.publish(tiny.identity, 40): 10.0}
    async with asyncio.timeout(1):
        await planet.hydrator.run()
    assert planet.hydrator.started == 0


async def test_what_is_remembered_of_decisions_is_bounded(node, planet):
    digest = planet.publish(tiny.identity, 40)
    planet.demand = {digest: 10.0}
    for turn in range(MAX_RECENT):
        planet.confined = {digest}
        planet.look()
        planet.confined, planet.age_ms = set(), 2_000.0
        planet.look()
        assert planet.hydrator.left["confined"] == turn + 1
    assert len(planet.hydrator.recent) == MAX_RECENT
