"""Users in every city who ask at a fixed rate, whatever becomes of it, and note all of it.

Open loop: a request is begun when its time has come, not when the one before it was answered, on a
connection that is kept or on its own. A connection whose answer says `Connection: close`, or that
was idle for long, is not used again. Nothing is tried twice and nothing is judged here but the body.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from netlab import clock, names, netns
from netlab.chaoshistory import Event
from netlab.chaosload import Asking, asking, problem
from netlab.chaoswire import GarbledError, LostError, Reply, Wire, connect
from netlab.topology import Topology

#: A user gives up after this: longer than the deadline that is asked for.
PATIENCE_S: Final = 10.0
#: Kept connections are not used after so long without a request: their POP may have moved meanwhile.
IDLE_S: Final = 5.0
PORT: Final = 80


class Users:
    """All cities' users; they ask while the `with` block runs, and the last answers are waited for."""

    def __init__(
        self,
        topology: Topology,
        *,
        run: str,
        seed: int,
        rate_per_s: float,
        models: Sequence[str],
        known: Mapping[tuple[str, int], bytes],
        note: Callable[[Event], None],
    ) -> None:
        """`rate_per_s` is that of all cities together; `run` begins every request's id."""
        each_per_s = rate_per_s / len(topology.cities)
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        self._threads = []
        for number, city in enumerate(topology.cities):
            crowd = _Crowd(topology, city.name, each_per_s, models, known, note, self._over)

            def asks(count: int, number: int = number) -> Asking:
                return asking(run, number, count, seed, models)

            self._threads.append(
                threading.Thread(target=self._guarded, args=(crowd, asks), name=f"users of {city.name}")
            )

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raises what went wrong in a crowd: a bug here, no outcome."""
        if self._failed:
            raise self._failed[0]

    def _guarded(self, crowd: "_Crowd", asks: Callable[[int], Asking]) -> None:
        try:
            netns.enter(names.city(crowd.city))
            asyncio.run(crowd.live(asks))
        except BaseException as error:  # noqa: BLE001 -- carried to `check` whole
            self._failed.append(error)


class _Crowd:
    """The users of one city, in a thread that stands there."""

    def __init__(
        self,
        topology: Topology,
        city: str,
        rate_per_s: float,
        models: Sequence[str],
        known: Mapping[tuple[str, int], bytes],
        note: Callable[[Event], None],
        over: threading.Event,
    ) -> None:
        self.city = city
        self._rate_per_s = rate_per_s
        self._models = models
        self._known = known
        self._note = note
        self._over = over
        self._address = {4: str(topology.vip4), 6: str(topology.vip6)}
        self._idle: dict[int, list[tuple[float, Wire, Asking]]] = {4: [], 6: []}

    async def live(self, asks: Callable[[int], Asking]) -> None:
        """Until it is over and every request has ended."""
        began_s, count = clock.now_s(), 0
        async with asyncio.TaskGroup() as group:
            while not self._over.is_set():
                group.create_task(self._one(asks(count)))
                count += 1
                await asyncio.sleep(max(0.0, began_s + count / self._rate_per_s - clock.now_s()))
        for wires in self._idle.values():
            for _, wire, last in wires:
                self._look_behind(wire, last)
                wire.abort()

    async def _one(self, asked: Asking) -> None:
        wire = self._kept(asked.family) if asked.keep else None
        self._say(asked, "asked", model=asked.model, family=asked.family, fresh=wire is None)
        try:
            async with asyncio.timeout(PATIENCE_S):
                if wire is None:
                    wire = await connect(self._address[asked.family], PORT)
                reply = await wire.exchange(asked.bytes_to(self._host(asked.family)))
        except LostError as lost:
            self._end(wire)
            self._say(asked, "ended", outcome=lost.how, text=lost.text)
        except TimeoutError:
            self._end(wire)
            self._say(asked, "ended", outcome="late", text=f"no answer in {PATIENCE_S:.0f} s")
        except GarbledError as error:
            self._end(wire)
            self._say(asked, "ended", outcome="garbled", wrong=str(error))
        else:
            self._answered(asked, wire, reply)

    def _answered(self, asked: Asking, wire: Wire, reply: Reply) -> None:
        said = reply.headers
        right = reply.status == "200"
        # A request that was never read whole is refused without a name.
        own = said.get("edge-request-id", "" if right else asked.id)
        wrong = "" if own == asked.id else "somebody else's answer" if own else "no Edge-Request-Id"
        if right:
            wrong = wrong or problem(asked, reply.body, self._known)
        self._say(
            asked,
            "ended",
            outcome=reply.status,
            reason=said.get("edge-drop-reason", ""),
            retry_after="retry-after" in said,
            served_by=said.get("edge-served-by", ""),
            wrong=wrong,
            text="" if right else reply.body.decode(errors="replace")[:200],
        )
        self._look_behind(wire, asked)
        if asked.keep and not reply.close and wire.usable and not wire.surplus:
            self._idle[asked.family].append((clock.now_s(), wire, asked))
        else:
            wire.abort()

    def _kept(self, family: int) -> Wire | None:
        """A connection that may still be used; the others end."""
        while self._idle[family]:
            since_s, wire, last = self._idle[family].pop()
            self._look_behind(wire, last)
            if wire.usable and not wire.surplus and clock.now_s() - since_s < IDLE_S:
                return wire
            wire.abort()
        return None

    def _look_behind(self, wire: Wire, asked: Asking) -> None:
        if wire.surplus:
            self._say(asked, "surplus", text=f"{wire.surplus} bytes")

    def _host(self, family: int) -> str:
        return f"[{self._address[6]}]" if family == 6 else self._address[4]

    @staticmethod
    def _end(wire: Wire | None) -> None:
        if wire is not None:
            wire.abort()

    def _say(self, asked: Asking, what: str, **rest: str | int | bool) -> None:
        self._note(Event(t=clock.calm_wall_s(), at=self.city, what=what, id=asked.id, **rest))  # type: ignore[arg-type]
