"""One planet at a time for those who test: found or started, and the machine left as it was.

A `Keeper` starts what is asked for, and at its end puts back what stood before it came. Whether it may
take a planet away that it did not start is its maker's choice. It refuses to know who tests, and what.
"""

from pathlib import Path

from netlab import start, state
from netlab.lab import Lab
from netlab.start import Say, Wish
from netlab.state import State


class Keeper:
    """Knows what stood before, and puts it back. `replaces`: another planet that runs is taken down."""

    def __init__(self, say: Say, *, replaces: bool = False) -> None:
        self._say = say
        self._replaces = replaces
        self._started = False
        self._before = _standing()

    def ensure(self, wish: Wish) -> Lab:
        """The running lab if it is the one wished for, else that one started.

        Raises what `start.up` raises: RefusedError where another planet runs that may not be replaced.
        """
        if stands(wish):
            return Lab.running()
        if self._replaces:
            self.clear()
        lab, started = start.up(wish, self._say)
        self._started |= started
        return lab

    def clear(self) -> None:
        """No lab at all."""
        start.down()

    def close(self) -> None:
        """As it was before: nothing, or the same planet again, if it had to go.

        What somebody else started meanwhile stays, unless it may be replaced.
        """
        if not (self._started or self._replaces):
            return
        if self._before is None:
            self.clear()
        elif not _same(_standing(), self._before):
            self.clear()
            start.up(_wish(self._before), self._say)


class Planet(Lab):
    """A lab that is looked up anew at each question: one handle serves as long as a planet runs."""

    @property
    def state(self) -> State:
        """What is remembered now; programs that were started again have other pids."""
        return _standing() or self._first

    @state.setter
    def state(self, remembered: State) -> None:
        self._first = remembered


def stands(wish: Wish) -> bool:
    """Whether what runs is just what is wished for, and all of it lives."""
    found = _standing()
    return (
        found is not None
        and wish.planet.is_file()
        and found.topology_text == wish.planet.read_text(encoding="utf-8")
        and found.bare == wish.bare
        and not start.differing(found, wish)
        and not Lab(found).dead()
    )


def _standing() -> State | None:
    found = state.read()
    return found if found is not None and found.phase == "up" else None


def _same(one: State | None, other: State) -> bool:
    """Whether they are the same planet, whoever lives there and wherever this machine is a user."""
    return one is not None and _wish(one) == _wish(other)


def _wish(of: State) -> Wish:
    file, models = Path(of.topology_file), Path(of.models) if of.models else start.MODELS
    return Wish(planet=file, models=models, bare=of.bare, program=of.program, wan_engine=of.wan_engine)
