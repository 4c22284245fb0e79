"""node.yaml as the lab writes it: popctl's own reader must take it."""

from pathlib import Path

import pytest

from edge.config import NodeConfig
from edge.config import parse as read_node
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


def test_the_mesh_joins_the_nodes_of_a_pop(planet: Topology) -> None:
    mesh = written(planet, "iad-a").mesh
    assert mesh is not None
    assert [(p.node, p.pop, p.address, p.workers) for p in mesh.peers] == [
        ("iad-b", "iad", "10.1.0.12:7443", 1)
    ]
    alone = written(planet, "nrt-a").mesh
    assert alone is not None
    assert alone.peers == ()
    assert (Path(mesh.certificate).name, Path(mesh.key).name) == ("iad-a.pem", "iad-a.key")


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
