"""node.yaml as the lab writes it: popctl's own reader must take it."""

from pathlib import Path

import pytest

from edge.config import Drain, NodeConfig, Queue, Routing, Worker
from edge.config_file import parse as read_node
from netlab import planetfile
from netlab.node import NodeFiles, node_yaml
from netlab.planetfile import PLANET
from netlab.topology import Topology

HOMES = Path("/run/edgepop-lab/nodes")
CA = Path("/run/edgepop-lab/ca/ca.pem")


@pytest.fixture(scope="module")
def planet() -> Topology:
    return planetfile.load(PLANET)


def written(planet: Topology, name: str) -> NodeConfig:
    return read_node(node_yaml(planet, planet.node(name), NodeFiles(HOMES / name, CA)), f"{name}.yaml")


@pytest.mark.parametrize("name", ["iad-a", "iad-b", "fra-a", "ams-a", "nrt-a"])
def test_every_node_of_the_planet_is_understood(planet: Topology, name: str) -> None:
    config = written(planet, name)
    node = planet.node(name)
    assert (config.node, config.pop, config.region) == (name, node.pop, planet.pop(node.pop).region)
    assert len(config.workers) == node.workers
    assert config.weights.origin == "http://10.1.0.9:8080/"
    assert Path(config.weights.store) == HOMES / name / "store"
    assert Path(config.run_dir) == HOMES / name / "run"


def test_an_ingress_node_listens_on_the_vip_and_announces_it(planet: Topology) -> None:
    config = written(planet, "iad-a")
    assert config.public.listen == (
        "198.51.100.1:80",
        "[fd5e:ed9e::1]:80",
        "10.1.0.11:80",
        "[fd5e:ed9e:1::11]:80",
    )
    assert config.announce is not None
    assert config.announce.interface == "ann0"
    assert config.announce.addresses == ("198.51.100.1", "fd5e:ed9e::1")
    assert (config.announce.lease_ms, config.announce.renew_ms) == (2000, 300)


def test_a_node_without_ingress_does_not(planet: Topology) -> None:
    config = written(planet, "iad-b")
    assert config.announce is None
    assert config.public.listen == ("10.1.0.12:80", "[fd5e:ed9e:1::12]:80")


@pytest.mark.parametrize("name", ["iad-a", "nrt-a"])
def test_the_mesh_joins_every_node_to_all_others(planet: Topology, name: str) -> None:
    mesh = written(planet, name).mesh
    assert mesh is not None
    others = [node for node in planet.nodes if node.name != name]
    assert [(p.node, p.address) for p in mesh.peers] == [(n.name, f"{n.v4}:7443") for n in others]
    assert (Path(mesh.certificate).name, Path(mesh.key).name) == (f"{name}.pem", f"{name}.key")


def test_blobs_are_given_away_on_the_unicast_address(planet: Topology) -> None:
    assert written(planet, "fra-a").weights.blobs == "10.2.0.11:7444"


@pytest.mark.parametrize(
    ("name", "at"),
    [("iad-a", "10.1.0.11"), ("iad-b", "10.1.0.11"), ("ams-a", "10.2.0.11"), ("nrt-a", "10.4.0.11")],
)
def test_a_node_asks_the_redis_of_its_region_under_its_own_name(planet: Topology, name: str, at: str) -> None:
    index = written(planet, name).weights.index
    assert index is not None
    assert (index.url, index.user) == (f"redis://{at}:6379", name)
    assert Path(index.password_file) == HOMES / name / "redis.password"


def test_in_a_region_without_redis_a_node_has_no_index() -> None:
    planet = planetfile.load(planetfile.find("no-redis-region"))
    assert written(planet, "nrt-b").weights.index is None
    assert written(planet, "iad-a").weights.index is not None


def test_a_node_says_who_carries_its_traffic(planet: Topology) -> None:
    assert written(planet, "iad-a").provider == "lab"


SMALL = """
name: small
pops:
  iad:
    region: us
    nodes:
      iad-a: {ingress: true, workers: 2, device_bytes: 64MiB, disk_bytes: 1GiB, soft_limit: 1, hard_limit: 2}
      iad-b: {workers: 1}
regions: {us: {redis: iad-b}}
routing: {mode: waterfall, hydrate: false, horizon_s: 60, min_resident_s: 0, ms_per_usd: 2, usd_per_gib: 0.1}
queue: {max_waiting: 3, max_wait_ms: 100}
drain: {lame_duck_ms: 0, finish_ms: 500}
rtt_ms: {}
cities: {nyc: {pop: iad, rtt_ms: 3}}
"""


def test_small_nodes_and_a_way_of_routing_can_be_asked_for() -> None:
    config = written(planetfile.parse(SMALL), "iad-a")
    assert config.weights.disk_bytes == "1GiB"
    worker = config.workers[1]
    assert (worker.device_bytes, worker.soft_limit, worker.hard_limit) == ("64MiB", 1, 2)
    assert config.weights.index is not None
    assert config.weights.index.url == "redis://10.1.0.12:6379"
    assert config.routing == Routing(
        mode="waterfall", hydrate=False, horizon_s=60, min_resident_s=0, ms_per_usd=2.0, usd_per_gib=0.1
    )
    assert (config.queue, config.drain) == (
        Queue(max_waiting=3, max_wait_ms=100),
        Drain(lame_duck_ms=0, finish_ms=500),
    )


def test_what_a_planet_does_not_say_is_popctls_own_default() -> None:
    config = written(
        planetfile.parse(SMALL.replace(SMALL[SMALL.index("routing:") : SMALL.index("rtt_ms")], "")), "iad-b"
    )
    assert (config.workers, config.routing) == ((Worker(),), Routing())
    assert config.weights.disk_bytes == "20GiB"


def test_admin_needs_its_token(planet: Topology) -> None:
    admin = written(planet, "fra-a").admin
    assert (admin.listen, admin.token_file) == ("10.2.0.11:9901", str(HOMES / "fra-a" / "admin.token"))


def test_a_name_that_yaml_would_take_for_a_boolean_survives() -> None:
    planet = planetfile.parse(
        "name: no\npops: {no: {region: on, nodes: {off: {ingress: true}}}}\nrtt_ms: {}\n"
        "cities: {yes: {pop: no, rtt_ms: 3}}\n"
    )
    config = written(planet, "off")
    assert (config.node, config.pop, config.region) == ("off", "no", "on")
