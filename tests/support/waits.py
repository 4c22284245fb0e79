"""Let a death happen in the running lab, and say how long its clients waited, over IPv4 and IPv6 together.

What counts is a request that was begun after the event, and the whole of its answer: one that was begun
before may be answered late by whoever comes, and would make a silence look short. It knows no bounds.
"""

import http.client
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from netlab import watch
from netlab.clock import DeadlineMissed, now_ms, wait_until
from netlab.handles import User
from netlab.lab import Lab
from netlab.wanwatch import Seen
from tests.support.deaths import Death
from tests.support.joined import BODIES

FAMILIES: Final = (4, 6)
#: Two watchers knock this often; it is the resolution of what is measured.
KNOCK_EVERY_S: Final = 0.01
GIVE_UP_S: Final = 10.0
HOME_WITHIN_S: Final = 20.0
WELL_WITHIN_S: Final = 60.0


class Waited(msgspec.Struct, frozen=True):
    """From the accident to the completed answer; None when none came within GIVE_UP_S.

    `back_ms` is the same for its undoing, where that is an event: until home answered.
    """

    family: int
    after_ms: float | None
    refused: int
    last: str
    #: Requests until then, its own among them.
    attempts: int = 0
    back_ms: float | None = None


class Round(msgspec.Struct, frozen=True):
    """Both families' waits, and what crossed the WAN between the accident and the last of the answers."""

    waits: list[Waited]
    crossed: Seen


def once(death: Death) -> Round:
    """Let it happen, undo it, wait until the planet is well. Raises DeadlineMissed."""
    lab = Lab.running()
    death.prepare(lab)
    for family in FAMILIES:
        if _wait(death, lab, family, death.home, HOME_WITHIN_S).after_ms is None:
            raise DeadlineMissed(f"{death.user(lab).name} is not served by {death.home} (IPv{family})")
    node = lab.node(death.node)
    act = death.aim(node)
    try:
        with lab.wan.watch() as window:
            waits = _through(death, lab, act, death.heir, GIVE_UP_S)
    except BaseException:
        death.undo(node)
        raise
    if death.returns:
        backs = _through(death, lab, lambda: death.undo(node), death.home, HOME_WITHIN_S)
        waits = [
            msgspec.structs.replace(there, back_ms=back.after_ms)
            for there, back in zip(waits, backs, strict=True)
        ]
    else:
        death.undo(node)
    Lab.running().heal(within_s=WELL_WITHIN_S)
    return Round(waits, window.seen())


def settle(user: User, home: str) -> None:
    """Until home serves again over both families and every city is led where it should be."""
    for family in FAMILIES:
        user.wait_until_served_by(home, within_ms=20_000, family=family)
    Lab.running().wait_until_converged(within_s=20)


def _through(death: Death, lab: Lab, act: Callable[[], None], who: str, within_s: float) -> list[Waited]:
    """Do it, and wait for `who` from then on; times are from before the deed."""
    begin = threading.Event()

    def wait(family: int) -> tuple[Waited, float]:
        begin.wait()
        return _wait(death, lab, family, who, within_s), now_ms()

    with ThreadPoolExecutor(len(FAMILIES)) as pool:
        try:
            waits = [pool.submit(wait, family) for family in FAMILIES]
            happened_ms = now_ms()
            act()
        finally:
            begin.set()
        ends = [one.result() for one in waits]
    return [
        msgspec.structs.replace(seen, after_ms=None if seen.after_ms is None else ended_ms - happened_ms)
        for seen, ended_ms in ends
    ]


def _wait(death: Death, lab: Lab, family: int, who: str, within_s: float) -> Waited:
    user = death.user(lab)
    if death.model:
        return _ask(user, death.model, family, who, within_s)
    line = f"\r\nedge-pop: {who}\r\n".encode()
    seen = watch.watch(
        user.ns,
        user.vip(family),
        80,
        "/pop",
        lambda answer: line in answer.lower(),
        within_s,
        every_s=KNOCK_EVERY_S,
    )
    return Waited(
        family, None if seen.after_s is None else seen.after_s * 1000, seen.refused, seen.last, seen.attempts
    )


def _ask(user: User, model: str, family: int, who: str, within_s: float) -> Waited:
    """One request after the other: those that wait at a node would tell it that the other end is full."""
    began_ms, refused, attempts, last = now_ms(), 0, 0, "nothing"

    def answered() -> bool:
        nonlocal refused, attempts, last
        attempts += 1
        try:
            answer = user.post(f"/run/{model}", BODIES[model], family=family, timeout_s=within_s)
        except (OSError, http.client.HTTPException) as error:
            refused += isinstance(error, ConnectionRefusedError)
            last = f"({type(error).__name__})"
            return False
        last = f"{answer.status} {answer.headers.get('edge-served-by', '')}"
        return answer.status == 200 and answer.headers["edge-served-by"] == who

    try:
        wait_until(answered, f"{model} is run by {who}", within_s=within_s, every_s=KNOCK_EVERY_S)
    except DeadlineMissed:
        return Waited(family, None, refused, last, attempts)
    return Waited(family, now_ms() - began_ms, refused, last, attempts)
