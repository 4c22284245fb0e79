"""The doctor looks, tries and leaves nothing, whether a lab runs or not."""

import json
import os

import pytest

from netlab import apply, names, netns
from netlab.lab import Lab
from netlab.steps import Namespace
from tests.support.lab import poplab
from tests.support.machine import snapshot

pytestmark = pytest.mark.lab


def verdicts(*prefix: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = poplab("doctor", "--json", prefix=prefix)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["schema_version"] == 1
    return done.returncode, {check["name"]: check for check in found["checks"]}


@pytest.mark.usefixtures("no_lab")
def test_it_leaves_an_empty_machine_empty() -> None:
    before = snapshot()
    _, found = verdicts()
    assert snapshot() == before
    assert {
        found[name]["verdict"] for name in ("root", "bird", "redis", "namespaces", "veth", "af_packet")
    } == {"ok"}
    assert found["lab"]["seen"] == "none runs, and none left anything"


@pytest.mark.usefixtures("no_lab")
def test_it_finds_what_a_lab_left() -> None:
    space = f"{names.PREFIX}left"
    apply.carry_out([Namespace(space)])
    try:
        _, found = verdicts()
        assert found["lab"]["verdict"] == "warn"
        assert found["lab"]["fix"] == "poplab down"
    finally:
        assert poplab("down").returncode == 0
    assert space not in netns.names()


@pytest.mark.usefixtures("no_lab")
def test_it_names_a_route_in_the_way() -> None:
    """In a namespace that plays a machine of its own."""
    script = 'ip link set lo up && ip route add 198.51.100.0/24 dev lo && exec "$@"'
    code, found = verdicts("unshare", "--net", "sh", "-c", script, "sh")
    assert code == 3
    assert found["routes"]["verdict"] == "missing"
    assert "198.51.100.0/24" in found["routes"]["seen"]


def test_without_rights_it_says_so() -> None:
    code, found = verdicts("setpriv", "--reuid=64099", "--regid=64099", "--clear-groups")
    assert code == 3
    assert (found["root"]["verdict"], found["root"]["fix"]) == ("missing", "sudo poplab doctor")


def test_a_running_lab_is_not_touched(network: Lab) -> None:
    before = netns.names()
    pids = {process.pid for process in network.state.processes}
    text = poplab("doctor").stdout
    assert f"'planet' runs, {len(pids)} programs" in text
    assert netns.names() == before
    assert all(os.path.exists(f"/proc/{pid}") for pid in pids)  # noqa: PTH110 -- a pid is no path
    assert not network.dead()
