"""One chaos run from a well planet to a well planet: users, faults, history, verdict.

It keeps the order of things; what is asked, broken, noted and judged is each the business of a
file of its own (chaosload, chaosfaults, chaoshistory, chaosverdict).
"""

import contextlib
import http.client
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from netlab import clock, well
from netlab.chaosfaults import Faults
from netlab.chaoshistory import MAX_BYTES, Event, History
from netlab.chaosload import INPUTS, SHARES, Asking, asking, body_of, problem
from netlab.chaosnodes import records, telling
from netlab.chaosplan import Planned, plan
from netlab.chaosusers import Users
from netlab.chaosverdict import Verdict, judge
from netlab.clock import DeadlineMissed, wait_until
from netlab.faultrun import NotHealedError
from netlab.handles import User
from netlab.lab import Lab

WELL_AT_FIRST_S: Final = 20.0
WELL_AT_LAST_S: Final = 90.0
FIRST_ANSWER_S: Final = 60.0
#: Asked of each city and model when all is over.
LAST_WITHIN_S: Final = 30.0
TRY_EVERY_S: Final = 1.0
TRY_WITHIN_S: Final = 5.0
TURN_S: Final = 0.1
TELL_S: Final = 1.0
Say = Callable[[str], None]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. `rate_per_s` is of all cities together."""

    seed: int
    seconds: float
    rate_per_s: float
    history: Path
    max_bytes: int = MAX_BYTES


class Progress(msgspec.Struct, frozen=True):
    """How far it is."""

    left_s: float
    asked: int
    answered: int
    refused: int
    lost: int
    broken: tuple[str, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. Interrupted, or with a `full` history, it is not the whole of what was wished."""

    wish: Wish
    planned: tuple[Planned, ...]
    verdict: Verdict
    interrupted: bool
    full: bool


def run(lab: Lab, wish: Wish, say: Say, tell: Callable[[Progress], None]) -> Report:
    """Do it all. Ctrl-C ends it early, in order: healed, judged as far as it came.

    Raises DeadlineMissed when the planet is not well at first, RuntimeError when a model does not
    answer then, OSError for a history that can't be written.
    """
    well.wait_until_well(WELL_AT_FIRST_S, say)
    topology = lab.topology
    planned = plan(topology, seed=wish.seed, seconds=wish.seconds)
    run_id = f"c{wish.seed}.{round(clock.wall_s() * 1000):x}"
    history = History(wish.history, wish.max_bytes)
    interrupted = False
    try:
        with telling(lab) as offsets:
            models, known = quiet_answers(lab)
            users = Users(
                topology,
                run=run_id,
                seed=wish.seed,
                rate_per_s=wish.rate_per_s,
                models=models,
                known=known,
                note=history.note,
            )
            faults = Faults(planned, history.note)
            try:
                with users:
                    _suffer(wish, faults, users, history, tell)
            except KeyboardInterrupt:
                interrupted = True
                say("interrupted: healing, then what is known so far")
            finally:
                faults.end()
                for name in Lab.running().dead():
                    text = f"{name} is dead, and no fault of the schedule left it so"
                    history.note(Event(t=clock.calm_wall_s(), at="chaos", what="unwell", text=text))
                    say(text)
                _heal(lab, history, run_id, models, known, say)
            for event in records(offsets, run_id):
                history.note(event)
    finally:
        history.close()
    return Report(
        wish=wish,
        planned=planned,
        verdict=judge(history.events, topology),
        interrupted=interrupted,
        full=history.full,
    )


def _suffer(
    wish: Wish, faults: Faults, users: Users, history: History, tell: Callable[[Progress], None]
) -> None:
    """Break and heal by the schedule until the time is over or the history is full."""
    began_s, told_s = clock.now_s(), -TELL_S
    while (past_s := clock.now_s() - began_s) < wish.seconds:
        users.check()
        if history.full:
            return
        if past_s - told_s >= TELL_S:
            told_s = past_s
            tell(progress(history.events, wish.seconds - past_s, faults.broken))
        if faults.next_s is not None and faults.next_s <= past_s:
            faults.act()
        else:
            clock.pause_s(TURN_S)
    while faults.next_s is not None:  # only where deeds took longer than the calm at the end
        faults.act()


def progress(events: Sequence[Event], left_s: float, broken: Sequence[str]) -> Progress:
    """From the history so far."""
    ends = [event.outcome for event in list(events) if event.what == "ended"]
    answered = sum(outcome == "200" for outcome in ends)
    refused = sum(outcome.isdigit() and outcome != "200" for outcome in ends)
    asked = sum(event.what == "asked" for event in list(events))
    return Progress(left_s, asked, answered, refused, len(ends) - answered - refused, tuple(broken))


def quiet_answers(lab: Lab) -> tuple[list[str], Mapping[tuple[str, int], bytes]]:
    """The models that are asked, and their answers to each input while nothing is broken."""
    city = lab.topology.cities[0].name
    there = {row["name"] for row in lab.city(city).post("/v2/repository/index", b"{}").json}
    models = [model for model in SHARES if model in there]
    if "identity" not in models:
        raise RuntimeError("the lab serves no model identity: chaos needs it; run `make models`")
    known: dict[tuple[str, int], bytes] = {}
    for model in models:
        for variant in range(INPUTS):
            answer = lab.city(city).post(
                f"/run/{model}", body_of(model, variant), timeout_s=FIRST_ANSWER_S, edge_cold="wait"
            )
            if answer.status != 200:
                raise RuntimeError(f"{model} is answered {answer.status} before anything is broken")
            known[model, variant] = answer.body
    return models, known


def _heal(
    lab: Lab,
    history: History,
    run_id: str,
    models: Sequence[str],
    known: Mapping[tuple[str, int], bytes],
    say: Say,
) -> None:
    """Everything is undone and the planet is well; each city is answered by each model, or it is noted."""
    over = threading.Event()
    tries = threading.Thread(target=_try_all, args=(lab, over), name="tries")
    tries.start()
    try:
        lab.heal(within_s=WELL_AT_LAST_S)
        for number, city in enumerate(lab.topology.cities):
            for model in models:
                _ask_at_last(lab.city(city.name), _last(run_id, number, model), known)
    except (DeadlineMissed, NotHealedError) as error:
        history.note(Event(t=clock.calm_wall_s(), at="chaos", what="unwell", text=str(error)))
        say(str(error))
    else:
        history.note(Event(t=clock.calm_wall_s(), at="chaos", what="well"))
    finally:
        over.set()
        tries.join()


def _try_all(lab: Lab, over: threading.Event) -> None:
    """Each city asks for each POP's workers until it is over.

    A node that failed is suspect until one request to it succeeds, and of a far one nobody wants anything
    in a planet that is well.
    """
    pops = [pop.name for pop in lab.topology.pops if any(node.workers for node in pop.nodes)]
    while not over.wait(TRY_EVERY_S):
        for city in lab.topology.cities:
            for pop in pops:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    lab.city(city.name).post(
                        "/run/identity", body_of("identity", 0), timeout_s=TRY_WITHIN_S, edge_force_region=pop
                    )


def _last(run_id: str, number: int, model: str) -> Asking:
    return msgspec.structs.replace(
        asking(f"last-{run_id}", number, 0, 0, [model]), variant=0, body=body_of(model, 0)
    )


def _ask_at_last(user: User, asked: Asking, known: Mapping[tuple[str, int], bytes]) -> None:
    def right() -> bool:
        try:
            answer = user.post(f"/run/{asked.model}", asked.body)
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == 200 and not problem(asked, answer.body, known)

    what = f"{user.name} has a right answer of {asked.model} after all is healed"
    wait_until(right, what, within_s=LAST_WITHIN_S, every_s=0.5)
