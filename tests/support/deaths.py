"""The ways in which a POP can stop serving, and how long its clients then wait.

Each `Death` is an accident at one node and its undoing. `once` lets it happen and says when a
request that was begun afterwards was answered, whole, by whoever should answer then; the bench
and the tests share it. It judges nothing: the bounds are data here, the verdict is the caller's.
"""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from netlab import watch
from netlab.clock import now_ms, wait_until
from netlab.handles import NodeHandle, User
from netlab.lab import Lab

FAMILIES: Final = (4, 6)
#: Two watchers knock this often; it is the resolution of what is measured.
KNOCK_EVERY_S: Final = 0.01
GIVE_UP_S: Final = 10.0
PLANNED_MS, DEAD_MS, BACK_MS = 50.0, 2500.0, 2000.0


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to `node`; `heir` is the POP that answers afterwards, `bound_ms` what is promised."""

    name: str
    sentence: str
    bound_ms: float
    heir: str = "ams"
    city: str = "ber"
    home: str = "fra"
    node: str = "fra-a"
    from_host: bool = False
    #: Makes ready and returns the accident itself, so that looking for pids is not measured.
    aim: Callable[[NodeHandle], Callable[[], None]]
    undo: Callable[[NodeHandle], None]

    def user(self, lab: Lab) -> User:
        """Who waits."""
        return lab.host if self.from_host else lab.city(self.city)

    def rtt_ms(self, lab: Lab) -> float:
        """From the user to the heir, by the topology."""
        city = lab.topology.city(self.city)
        return city.rtt_ms + (0.0 if city.pop == self.heir else lab.topology.rtt_ms(city.pop, self.heir))

    def allowed_ms(self, lab: Lab) -> float:
        """The bound and the client's own two round trips: handshake, request and answer."""
        return self.bound_ms + 2 * self.rtt_ms(lab)


class Waited(msgspec.Struct, frozen=True):
    """From the accident to the completed answer; None when none came within GIVE_UP_S."""

    family: int
    after_ms: float | None
    refused: int
    last: str


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


DEATHS: Final = (
    Death(
        name="withdraw",
        sentence="address deleted by the parent (`popctl withdraw`)",
        bound_ms=PLANNED_MS,
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
)


def once(death: Death) -> list[Waited]:
    """Let it happen in the running lab, watch over IPv4 and IPv6 together, undo it. Raises DeadlineMissed."""
    lab = Lab.running()
    user, node = death.user(lab), lab.node(death.node)
    for family in FAMILIES:
        user.wait_until_served_by(death.home, within_ms=5000, family=family)
    begin = threading.Event()
    line = f"\r\nedge-pop: {death.heir}\r\n".encode()

    def wait(family: int) -> tuple[watch.Watched, float]:
        begin.wait()
        seen = watch.watch(
            user.ns,
            user.vip(family),
            80,
            "/pop",
            lambda answer: line in answer.lower(),
            GIVE_UP_S,
            every_s=KNOCK_EVERY_S,
        )
        return seen, now_ms()

    act = death.aim(node)
    with ThreadPoolExecutor(len(FAMILIES)) as pool:
        try:
            waits = [pool.submit(wait, family) for family in FAMILIES]
            happened_ms = now_ms()
            act()
        finally:
            begin.set()
        ends = [one.result() for one in waits]
    death.undo(node)
    settle(user, death.home)
    return [
        Waited(family, None if seen.after_s is None else ended_ms - happened_ms, seen.refused, seen.last)
        for family, (seen, ended_ms) in zip(FAMILIES, ends, strict=True)
    ]


def settle(user: User, home: str) -> None:
    """Until home serves again over both families and every city is led where it should be."""
    for family in FAMILIES:
        user.wait_until_served_by(home, within_ms=20_000, family=family)
    Lab.running().wait_until_converged(within_s=20)
