"""The ways in which a POP, or a way to it, can stop serving, and what its clients are promised then.

Each `Death` is an accident and its undoing; tests/support/waits.py lets it happen and times it. The
table judges nothing: the bounds are data here, the verdict is the caller's.
"""

import os
import signal
from collections.abc import Callable
from typing import Final

import msgspec

from netlab import apply, faultport, names
from netlab.clock import wait_until
from netlab.handles import NodeHandle, User
from netlab.lab import Lab
from netlab.steps import Drop, Up
from tests.support.joined import ask, wait_until_warm

#: Planned: `popctl withdraw`. Dead: the lease runs out. Back: another proxy. Silent: BFD. Hold: BGP alone.
#: Mesh: a peer without a word for 3 s is given up, and that is looked at every 100 ms.
PLANNED_MS, DEAD_MS, BACK_MS, SILENT_MS, HOLD_MS, MESH_MS = 50.0, 2500.0, 2000.0, 500.0, 6000.0, 3100.0


def _nothing(_: Lab) -> None:
    pass


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to `node`; `heir` is the POP that answers afterwards, `bound_ms` what is promised.

    Where a `model` is asked for, `home` and `heir` are who runs it, as `fra-a/0`.
    """

    name: str
    sentence: str
    bound_ms: float
    heir: str = "ams"
    city: str = "ber"
    home: str = "fra"
    node: str = "fra-a"
    model: str = ""
    from_host: bool = False
    #: On a planet whose routers and nodes speak BFD, as the usual one's do.
    bfd: bool = True
    #: Whether its undoing is an event of its own, that clients see: home answers again.
    returns: bool = False
    #: What has to be so before.
    prepare: Callable[[Lab], None] = _nothing
    #: Makes ready and returns the accident itself, so that looking for pids is not measured.
    aim: Callable[[NodeHandle], Callable[[], None]]
    undo: Callable[[NodeHandle], None]

    def user(self, lab: Lab) -> User:
        """Who waits."""
        return lab.host if self.from_host else lab.city(self.city)

    def rtt_ms(self, lab: Lab) -> float:
        """From the user to the heir, by the topology."""
        city = lab.topology.city(self.city)
        heir = lab.topology.node(self.heir.split("/")[0]).pop if self.model else self.heir
        return city.rtt_ms + (0.0 if city.pop == heir else lab.topology.rtt_ms(city.pop, heir))

    def allowed_ms(self, lab: Lab) -> float:
        """The bound and the client's own two round trips: handshake, request and answer."""
        return self.bound_ms + 2 * self.rtt_ms(lab)


def _hit(number: signal.Signals, *roles: str) -> Callable[[NodeHandle], Callable[[], None]]:
    def aim(node: NodeHandle) -> Callable[[], None]:
        pids = node.pids(*roles)
        if not pids:
            raise LookupError(f"{node.name} has no process {' or '.join(roles)}")

        def act() -> None:
            for pid in pids:
                os.kill(pid, number)

        return act

    return aim


def _second_kill(node: NodeHandle) -> Callable[[], None]:
    """The first death is over when the next proxy runs and is ready; the second is what is measured."""
    before = node.kill("proxy")
    ready = node.home / "run" / "ready"
    wait_until(
        lambda: ready.exists() and node.pids("proxy") not in ([], before), "a new proxy is ready", within_s=8
    )
    return _hit(signal.SIGKILL, "proxy")(node)


def _thaw(node: NodeHandle) -> None:
    node.signal(signal.SIGCONT)


def restart(node: NodeHandle) -> None:
    """From nothing: whatever is left of the node is killed first."""
    node.kill()
    wait_until(lambda: not node.pids(), f"{node.name} is dead", within_s=5)
    node.restart(within_s=60)


def _vanish(node: NodeHandle) -> Callable[[], None]:
    router = names.router(node.node.pop)
    faultport.make_ready(router, node.name)
    return lambda: faultport.set_port(router, names.node_port(node.name), carries=False)


def _reappear(node: NodeHandle) -> None:
    faultport.reappear(names.router(node.node.pop), node.name)


def cable(node: NodeHandle) -> Up:
    """The router's end of the node's cable: with it down, both ends lose their carrier."""
    return Up(names.router(node.node.pop), names.node_port(node.name))


def unplug(node: NodeHandle) -> None:
    """Both ends of the node's cable know at once that it is gone."""
    apply.carry_out([Drop(cable(node))])


def plug_in(node: NodeHandle) -> None:
    """As it was."""
    apply.carry_out([cable(node)])


CUT: Final = ("ams", "fra")
#: Where what ams forwards to fra may run instead.
INSTEAD: Final = "iad-b/0"


def _warm_at_both(lab: Lab) -> None:
    """Nobody's wait is for weights."""
    for city, endpoint in (("ber", "fra-a/0"), ("nyc", INSTEAD)):
        region = lab.topology.pop(lab.topology.city(city).pop).region
        ask(lab.city(city), "identity", edge_cold="wait", edge_force_region=region)
        wait_until_warm(lab, "ams-a", endpoint, "identity")


def _cut(_: NodeHandle) -> Callable[[], None]:
    wan = Lab.running().wan
    return lambda: wan.cut(*CUT)


def _uncut(_: NodeHandle) -> None:
    Lab.running().wan.uncut(*CUT)


DEATHS: Final = (
    Death(
        name="withdraw",
        sentence="address deleted by the parent (`popctl withdraw`)",
        bound_ms=PLANNED_MS,
        returns=True,
        aim=lambda node: node.withdraw,
        undo=NodeHandle.announce,
    ),
    Death(
        name="withdraw-host",
        sentence="the same at iad, seen from this machine in nyc",
        bound_ms=PLANNED_MS,
        city="nyc",
        home="iad",
        node="iad-a",
        from_host=True,
        returns=True,
        aim=lambda node: node.withdraw,
        undo=NodeHandle.announce,
    ),
    Death(
        name="parent",
        sentence="kill -9 of the parent alone",
        bound_ms=DEAD_MS,
        aim=_hit(signal.SIGKILL, "parent"),
        undo=restart,
    ),
    Death(
        name="node",
        sentence="kill -9 of every process of the node",
        bound_ms=DEAD_MS,
        aim=_hit(signal.SIGKILL),
        undo=restart,
    ),
    Death(
        name="stop",
        sentence="SIGSTOP of every process of the node",
        bound_ms=DEAD_MS,
        returns=True,
        aim=_hit(signal.SIGSTOP),
        undo=_thaw,
    ),
    Death(
        name="blocked",
        sentence="event loop of the proxy blocked (SIGSTOP of the proxy alone)",
        bound_ms=DEAD_MS,
        aim=_hit(signal.SIGSTOP, "proxy"),
        undo=restart,
    ),
    Death(
        name="crash-loop",
        sentence="second kill -9 of the proxy within 10 s",
        bound_ms=DEAD_MS,
        aim=_second_kill,
        undo=restart,
    ),
    Death(
        name="proxy",
        sentence="kill -9 of the proxy, once: back at fra",
        bound_ms=BACK_MS,
        heir="fra",
        aim=_hit(signal.SIGKILL, "proxy"),
        undo=restart,
    ),
    Death(
        name="blackhole",
        sentence="the node falls silent, carrier stays; BFD, 3 x 100 ms",
        bound_ms=SILENT_MS,
        returns=True,
        aim=_vanish,
        undo=_reappear,
    ),
    Death(
        name="unplugged",
        sentence="the node's cable is out (carrier lost at both ends)",
        bound_ms=SILENT_MS,
        returns=True,
        aim=lambda node: lambda: unplug(node),
        undo=plug_in,
    ),
    Death(
        name="wan-cut",
        sentence="fra-ams cut: lon's request, which ams forwards to fra, answered by iad (BGP keeps its routes 90 s)",
        bound_ms=MESH_MS,
        city="lon",
        home="fra-a/0",
        heir=INSTEAD,
        model="identity",
        returns=True,
        prepare=_warm_at_both,
        aim=_cut,
        undo=_uncut,
    ),
)

WITHOUT_BFD: Final = (
    Death(
        name="blackhole-hold",
        sentence="the node falls silent, no BFD; BGP's hold time, 6 s",
        bound_ms=HOLD_MS,
        bfd=False,
        returns=True,
        aim=_vanish,
        undo=_reappear,
    ),
)
