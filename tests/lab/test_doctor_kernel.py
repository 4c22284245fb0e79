"""What a doctor says of a kernel, it found out by doing it: each step that is refused is a verdict of its own."""

import os
from collections.abc import Iterable

import pytest

from netlab import apply, doctorkernel, faultclock, names, netns, planetfile
from netlab.steps import Addr, Bridge, Namespace, Step, Sysctl, Veth

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root: run the tests with sudo"),
]
PLANET = planetfile.load(planetfile.PLANET)
NEEDED = ("namespaces", "ipv6", "settings", "ports", "veth", "bridge", "af_packet")


def verdicts() -> dict[str, str]:
    found = {check.name: check.verdict for check in doctorkernel.look(PLANET)}
    assert names.doctor(os.getpid()) not in netns.names()
    return found


def test_a_kernel_that_runs_a_lab_has_all_that_is_needed() -> None:
    found = verdicts()
    assert {name: found[name] for name in NEEDED} == dict.fromkeys(NEEDED, "ok")
    assert found["mounts"] == "ok"


@pytest.mark.parametrize(
    ("refused", "missing"),
    [
        (Namespace, {"namespaces"}),
        (Addr, {"ipv6"}),
        (Sysctl, {"settings"}),
        (Veth, {"veth"}),
        (Bridge, {"bridge"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_is_refused_is_missing(
    refused: type[Step], missing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out = apply.carry_out

    def without(steps: Iterable[Step]) -> None:
        wanted = list(steps)
        if any(isinstance(step, refused) for step in wanted):
            raise apply.ApplyError(f"{refused.__name__}: not in this kernel")
        carry_out(wanted)

    monkeypatch.setattr(apply, "carry_out", without)
    assert {name for name, verdict in verdicts().items() if verdict == "missing"} == missing


def test_a_library_that_only_one_fault_needs_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faultclock, "_LIBRARIES", faultclock._LIBRARIES / "nowhere")
    assert verdicts()["faketime"] == "warn"
