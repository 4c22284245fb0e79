"""Did every request end in exactly one way that is allowed? History in, verdict out. Pure.

    200             with the right body, whole
    429 503 504     with Edge-Drop-Reason; the first two with Retry-After as well
    a lost          connection (refused, unreachable, reset, closed, truncated, late): only while a fault
                    on that city's way explains it, its settling included (chaosblame.py)

and nothing else: not two answers, not somebody else's, not a 508, which would be a loop. A
`truncated` answer is one whose length or last chunk told so: a 200 whose end can't be told is wrong.

Exact where the nodes' records are joined: `taken` is written before a run begins and outlives its
worker, so its count is an upper bound of executions, by request. A proxy or a worker that is just
born may do its first requests before it hears that it is to tell of them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from netlab.chaosblame import Blame, Window, windows
from netlab.chaoshistory import Event
from netlab.chaosload import DEADLINE_MS
from netlab.topology import Topology

RIGHT: Final = "200"
#: Refusals -> whether they must say when to come again.
REFUSALS: Final = {"429": True, "503": True, "504": False}
LOST: Final = frozenset({"refused", "unreachable", "reset", "closed", "truncated", "late"})
#: Executions a request may have, and forwards: the policy's promise (edge/README.md).
MAX_EXECUTIONS: Final = 3
#: Of all: so many more than requests, and a few for a run that is short.
EXTRA: Final = 0.1
SLACK: Final = 16
#: The deadline that users ask for, and what an answer takes to be read on a busy machine.
LATEST_S: Final = DEADLINE_MS / 1000 + 1.0
MAX_LINES: Final = 16
#: No request takes so long: a clock is wrong.
CLOCK_OFF_S: Final = 600.0
#: Of all: right answers of which no node tells, and refusals while nothing was broken.
FEW: Final = 0.05
#: Problems whose timelines are compared for the shortest.
MAX_COMPARED: Final = 200


class Problem(msgspec.Struct, frozen=True):
    """What was forbidden and happened; `id` is empty for what is no single request's."""

    what: str
    id: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of all requests, and how many faults were really done.

    `unexpected` are refusals while nothing was broken: a few are allowed, and told.
    """

    asked: int
    broken: int
    outcomes: dict[str, int]
    executions: int
    forwards: int
    bound: int
    unexpected: int
    problems: list[Problem]
    timeline: list[str]

    @property
    def good(self) -> bool:
        """Whether nothing forbidden happened."""
        return not self.problems


def judge(events: Sequence[Event], topology: Topology) -> Verdict:
    """The verdict on a history that is over."""
    faults = windows(events)
    blame = Blame(topology, faults)
    by_id: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.id:
            by_id[event.id].append(event)
    asked = {event.id: event for event in events if event.what == "asked"}
    ends = [event for event in events if event.what == "ended"]
    problems = [
        Problem(what, request) for request, own in by_id.items() for what in _request(own, asked, blame)
    ]
    executions = sum(event.what == "taken" for event in events)
    bound = int((1 + EXTRA) * len(asked)) + SLACK
    problems += [Problem(f"{executions} executions of {len(asked)} requests")] * (executions > bound)
    problems += [Problem(event.text) for event in events if event.what == "unwell"]
    broken = sum(event.what == "broken" for event in events)
    unexpected = sum(
        end.outcome in REFUSALS and end.id in asked and blame.quiet(asked[end.id].t, end.t) for end in ends
    )
    problems += map(Problem, _hollow(events, by_id, len(asked), broken, unexpected))
    return Verdict(
        asked=len(asked),
        broken=broken,
        outcomes=dict(Counter(_word(event) for event in ends).most_common()),
        executions=executions,
        forwards=sum(event.what == "forwarded" for event in events),
        bound=bound,
        unexpected=unexpected,
        problems=problems,
        timeline=_shortest(problems, by_id, faults),
    )


def _hollow(
    events: Sequence[Event], by_id: dict[str, list[Event]], asked: int, broken: int, unexpected: int
) -> Iterable[str]:
    """Why the whole says less than it seems to: what was to be seen did not happen, or nobody looked."""
    few = max(SLACK, int(FEW * asked))
    if not asked:
        yield "nobody asked anything"
    if not broken and any(event.what == "refused" for event in events):
        yield "no fault of the schedule could be done"
    if unexpected > few:
        yield f"{unexpected} of {asked} requests were refused while nothing was broken"
    alone = sum(
        any(event.what == "ended" and event.outcome == RIGHT for event in own)
        and not any(event.what in {"answered", "taken"} for event in own)
        for own in by_id.values()
    )
    if alone > few:
        yield f"of {alone} right answers no node tells"
    for key, why in _unhealed(events).items():
        yield f"{key} could not be healed: {why}"


def _unhealed(events: Iterable[Event]) -> dict[str, str]:
    """The faults whose last healing was refused, and why."""
    healing: set[str] = set()
    found: dict[str, str] = {}
    for event in events:
        key = f"{event.target} {event.how}"
        if event.what == "healing":
            healing.add(key)
        elif event.what == "healed":
            found.pop(key, None)
        elif event.what == "refused" and key in healing:
            found[key] = event.text
        elif event.what == "breaking":
            healing.discard(key)
    return found


def _word(end: Event) -> str:
    return f"{end.outcome} {end.reason}".strip()


def _request(own: Sequence[Event], asked: dict[str, Event], blame: Blame) -> Iterable[str]:
    """What is forbidden about one request's events."""
    count = Counter(event.what for event in own)
    began = asked.get(own[0].id)
    if began is None:
        yield "a node knows of a request that nobody made"
        return
    if count["ended"] != 1 or count["asked"] != 1:
        yield f"{count['ended']} ends" if count["ended"] != 1 else "asked twice"
    if count["surplus"]:
        yield "bytes behind its answer"
    for what, most in (("taken", MAX_EXECUTIONS), ("forwarded", MAX_EXECUTIONS)):
        if count[what] > most:
            yield f"{what} {count[what]} times"
    doors = {event.at for event in own if event.what == "answered"}
    if any(event.what == "forwarded" and event.at in doors for event in own):
        yield "forwarded to the node where it entered"
    for end in own:
        if end.what == "ended" and (why := _end(began, end, blame)):
            yield why


def _end(began: Event, end: Event, blame: Blame) -> str:
    """Why this end is forbidden; empty when it is allowed."""
    if end.wrong:
        return f"{end.outcome}: {end.wrong}"
    if end.outcome == RIGHT:
        took_s = end.t - began.t
        if took_s <= LATEST_S or blame.explains(began.at, "late", began.t, end.t):
            return ""
        return f"right after {took_s:.1f} s, past its deadline, and nothing on {began.at}'s way explains it"
    if end.outcome in REFUSALS:
        if not end.reason:
            return f"{end.outcome} without Edge-Drop-Reason"
        if REFUSALS[end.outcome] and not end.retry_after:
            return f"{end.outcome} without Retry-After"
        return ""
    if end.outcome in LOST:
        explained = blame.explains(began.at, end.outcome, began.t, end.t)
        return "" if explained else f"{end.outcome}, and nothing on {began.at}'s way explains it"
    return f"{_word(end)}, which is never allowed"


# -- telling ---------------------------------------------------------------------------------


def _shortest(
    problems: Sequence[Problem], by_id: dict[str, list[Event]], faults: Sequence[Window]
) -> list[str]:
    """The timeline of the problem that needs the fewest lines; of one that is no request's, the faults."""
    told = [timeline(p, by_id[p.id], faults) for p in problems[:MAX_COMPARED] if p.id]
    if told or not problems:
        return min(told, key=len) if told else []
    lines = []
    for fault in faults:
        lasted_s = fault.healed_s - fault.from_s
        lines.append(f"{fault.from_s - faults[0].from_s:+9.3f} s  chaos breaks {fault}, for {lasted_s:.1f} s")
    return [problems[0].what, *lines[-MAX_LINES:]]


def timeline(problem: Problem, own: Sequence[Event], faults: Sequence[Window]) -> list[str]:
    """The request's own events and the faults around it, in order, by seconds since it was asked."""
    began = next((event for event in own if event.what == "asked"), own[0])
    ended_s = max((event.t for event in own if event.what == "ended"), default=began.t)
    lines = [_placed(event, began.t) for event in own]
    for fault in faults:
        if fault.touches(began.t, ended_s):
            lines.append((fault.from_s, f"chaos breaks {fault}"))
            if fault.healed_s < ended_s:
                lines.append((fault.healed_s, f"chaos has healed {fault}"))
    found = [f"{t - began.t:+9.3f} s  {text}" for t, text in sorted(lines)]
    if not any(fault.touches(began.t, ended_s) for fault in faults):
        found.append("             nothing was broken, or healed just before")
    return [f"{problem.id}: {problem.what}", *found[:MAX_LINES]]


def _placed(event: Event, began_s: float) -> tuple[float, str]:
    """When it was, and what; a node whose clock is off by an hour is put where the request began."""
    if abs(event.t - began_s) > CLOCK_OFF_S:
        return began_s, f"{_told(event)} (its clock is off)"
    return event.t, _told(event)


def _told(event: Event) -> str:
    match event.what:
        case "asked":
            wire = "on a new connection" if event.fresh else "on a connection that it had"
            return f"{event.at} asks for {event.model} over IPv{event.family}, {wire}"
        case "ended":
            rest = [_word(event), event.wrong, event.text, event.served_by and f"from {event.served_by}"]
            return f"{event.at} has: {', '.join(part for part in rest if part)}"
        case "answered":
            by = f", run by {event.served_by}" if event.served_by else ""
            return f"{event.at} answers {event.outcome}{by}"
        case "forwarded":
            return f"{event.at} has it from another node"
        case "taken":
            return f"{event.at} takes it to run it"
        case _:
            return f"{event.at}: {event.what} {event.text}".strip()
