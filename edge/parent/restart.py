"""Planned restarts: weights first, then each worker, the proxy last, one after another.

Each new process loads its code and gets its secrets from disk as they are now; the node's
configuration stays the one that the parent read when it started, and the parent itself is
not replaced: for these two, stop the node and start it again. The new proxy meets siblings
that are ready. A worker that starts anew has an empty device; who needs its models meanwhile
is the proxy's affair.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from edge.errors import EdgeError, Reason, Source
from edge.parent.boot import BootError, Role
from edge.parent.keeper import Child, RenewalError

log = logging.getLogger(__name__)


class Restarts:
    """What is to be restarted, and why the last attempt failed; one runs at a time.

    `plan` reads the roles of all children anew and raises BootError.
    """

    def __init__(self, children: Sequence[Child], plan: Callable[[], list[Role]]) -> None:
        self.problem = ""
        self._children = children
        self._plan = plan
        #: By name, as the children are ordered; the first one may be under way.
        self._roles: dict[str, Role] = {}
        self._asked = asyncio.Event()

    @property
    def under_way(self) -> tuple[str, ...]:
        """The children that are still to be restarted, the present one first."""
        return tuple(child.role.name for child in self._children if child.role.name in self._roles)

    def ask(self, wanted: Sequence[str]) -> None:
        """Restart these too: roles ("worker") or children ("worker-0"), none for all. Does not wait.

        A child that already waits for its restart has one. Raises EdgeError for a name that
        nobody has, and for a secret that can't be read: nothing is restarted then.
        """
        known = {name for child in self._children for name in (child.role.name, child.role.role)}
        for name in wanted:
            if name not in known:
                problem = f"there is no child {name[:64]!r} here; write one of {', '.join(sorted(known))}"
                raise EdgeError(Reason.BAD_REQUEST, problem, source=Source.DOWNSTREAM)
        try:
            roles = self._plan()
        except BootError as error:
            raise EdgeError(Reason.BAD_REQUEST, str(error), source=Source.DOWNSTREAM) from error
        for role in roles:
            if not wanted or role.name in wanted or role.role in wanted:
                self._roles.setdefault(role.name, role)
        self.problem = ""
        self._asked.set()

    async def keep(self) -> None:
        """Do what is asked, until cancelled. What is left after a failure is not tried."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            while under_way := self.under_way:
                await self._restart(under_way[0])

    async def _restart(self, name: str) -> None:
        child = next(child for child in self._children if child.role.name == name)
        log.info("restart", extra={"child": name})
        try:
            await child.renew(self._roles[name])
        except RenewalError as error:
            self.problem = f"{name}: {error}"
            left = [other for other in self.under_way if other != name]
            log.warning("restart failed", extra={"problem": self.problem, "not_tried": left})
            self._roles.clear()
        else:
            del self._roles[name]
