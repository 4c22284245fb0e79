"""The node as a process tree: sockets, children, lease, in this order, and back again.

`serve` is the whole of `popctl serve` once the file is read. One thread, no HTTP, no model,
nothing that comes from outside except the frames of its own children.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge import clock
from edge.config import NodeConfig
from edge.errors import EdgeError, Reason, Source
from edge.logs import MORE_OR_LESS, level_for, log_to_stderr
from edge.parent.announce import AnnounceError, Announcer
from edge.parent.attract import Attraction
from edge.parent.boot import CODE_ROOT, BootError, Role, make_caches, make_store, plan_roles
from edge.parent.guard import Guard
from edge.parent.held import Held
from edge.parent.keeper import Child, UnfitError
from edge.parent.lease import Signal, Terms
from edge.parent.life import KILL_WAIT_S
from edge.parent.restart import Restarts
from edge.parent.sockets import ListenError, Listeners, claim_run_dir, open_listeners
from edge.wire import calls, treecalls
from edge.wire.exchange import Incoming

log = logging.getLogger(__name__)

OK, FAILURE, MISSING = 0, 1, 3
WATCH_S: Final = 0.5
#: A look that comes so late says that the parent itself did not run.
STOPPED_MS: Final = 2_000.0
#: Between the withdrawal and the stop of the proxy: BGP needs some 5 ms to move the clients, 50 at most.
SETTLE_S: Final = 0.1


def serve(config: NodeConfig) -> int:
    """Run the node until SIGTERM or SIGINT; the exit status (0 stopped, 1 failed, 3 something is missing)."""
    log_to_stderr(f"{config.node}/parent", config.log_level)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return asyncio.run(_run(config))


async def _run(config: NodeConfig) -> int:
    """From nothing to nothing; the exit status."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    root = os.geteuid() == 0
    try:
        with claim_run_dir(Path(config.run_dir)), _announcement(config) as attraction:
            listeners = await open_listeners(config, root=root)
            try:
                make_store(config, root=root)
                make_caches(config, root=root)
                await Tree(config, listeners, attraction, stop).live()
            finally:
                listeners.close()
    except AnnounceError as error:
        return _refuse(error, MISSING)
    except ListenError as error:
        return _refuse(error, MISSING if error.missing_right else FAILURE)
    except BootError as error:
        return _refuse(error, FAILURE)
    except UnfitError as error:
        return _refuse(error, MISSING)
    log.info("stopped")
    return OK


def _refuse(error: Exception, status: int) -> int:
    log.error("not started", extra={"problem": str(error)})
    return status


@contextlib.contextmanager
def _announcement(config: NodeConfig) -> Iterator[Attraction]:
    """Nothing is announced before this and nothing after it."""
    announce = config.announce
    held = Held(Path(config.run_dir))
    if announce is None:
        yield Attraction(None, None, held, Terms(0, 0), 1000.0)
        return
    announcer = Announcer(announce.interface, announce.addresses, announce.lease_ms // 1000)
    guard = Guard(config.node, announce.lease_ms, CODE_ROOT)
    try:
        # A predecessor's lease may still run: nobody is served here yet.
        announcer.delete()
        terms = Terms(announce.lease_ms, announce.heartbeat_max_age_ms)
        yield Attraction(announcer, guard, held, terms, announce.renew_ms)
    finally:
        guard.close()
        announcer.close()


class Tree:
    """The children of one running node, and what they tell. Raises BootError for a secret it can't read."""

    def __init__(
        self, config: NodeConfig, listeners: Listeners, attraction: Attraction, stop: asyncio.Event
    ) -> None:
        self._attraction = attraction
        self._stop = stop
        self._log_level = config.log_level
        self._ready = False
        self._ready_path = Path(config.run_dir) / "ready"
        self._unready()

        def plan() -> list[Role]:
            return plan_roles(config, listeners, drained=lambda: attraction.drained)

        self._children = [
            Child(
                role,
                node=config.node,
                log_level=config.log_level,
                observer=self,
                on_call=self._answer if role.role == "proxy" else None,
            )
            for role in plan()
        ]
        self._restarts = Restarts(self._children, plan)

    async def live(self) -> None:
        """From the first child's start to the last one's exit. Raises UnfitError."""
        if os.geteuid() != 0:
            log.warning("not root: children keep this uid, workers keep the network")
        for number in MORE_OR_LESS:
            asyncio.get_running_loop().add_signal_handler(number, self._say, number)
        problem: UnfitError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                lives = {child: group.create_task(child.keep()) for child in self._children}
                tasks = [group.create_task(self._attraction.keep()), group.create_task(self._watch())]
                restarts = group.create_task(self._restarts.keep())
                await self._stop.wait()
                restarts.cancel()
                await self._end(lives)
                for task in tasks:
                    task.cancel()
        except* UnfitError as unfit:
            problem = UnfitError(*unfit.exceptions[0].args)
        finally:
            self._attraction.order(Signal.STOP)
            self._unready()
        if problem is not None:
            # Not in the handler above: what is raised there comes out as a group.
            raise problem

    # --- what a Child tells

    def on_born(self, child: Child) -> None:
        """A child was started."""
        if child.role.role == "proxy":
            self._attraction.proxy_born()

    def on_beat(self, child: Child) -> None:
        """A child spoke."""
        if child.role.role == "proxy":
            self._attraction.proxy_beat(ready=child.ready, others=child.others)
        if not self._ready and not self._stop.is_set() and all(child.ready for child in self._children):
            self._ready = True
            log.info("ready")
            try:
                # With the pid, so that who waits for it can tell it from what a killed predecessor left.
                self._ready_path.write_text(f"{os.getpid()}\n")
            except OSError as error:
                log.warning("no ready file", extra={"problem": str(error)})

    def on_replaced(self, child: Child, born_ms: float) -> None:
        """A child was replaced, as planned, by one that is ready."""
        if child.role.role == "proxy":
            self._attraction.proxy_replaced(born_ms)

    def on_exit(self, child: Child) -> None:
        """A child is gone."""
        if child.role.role == "proxy":
            self._attraction.proxy_exited()
            self._unready()

    # --- inside

    def _say(self, number: signal.Signals) -> None:
        """More or less from now on, the children and those that will follow them too."""
        logging.getLogger().setLevel(level_for(number, self._log_level))
        for child in self._children:
            child.say(number)

    async def _end(self, lives: dict[Child, asyncio.Task[None]]) -> None:
        """Withdraw, let the proxy finish, then the others; nobody outlives the grace."""
        announced = self._attraction.announced
        self._attraction.order(Signal.STOP)
        self._unready()
        if announced:
            await asyncio.sleep(SETTLE_S)
        proxy = {child: task for child, task in lives.items() if child.role.role == "proxy"}
        others = {child: task for child, task in lives.items() if child not in proxy}
        for part in (proxy, others):
            for child in part:
                child.stop()
            if not part:
                continue
            _, late = await asyncio.wait(part.values(), timeout=max(child.role.grace_s for child in part))
            for child in part:
                child.kill("did not stop in time")
            if late:
                await asyncio.wait(late, timeout=KILL_WAIT_S)
            for task in late:
                task.cancel()

    async def _watch(self) -> None:
        looked_ms = clock.now_ms()
        while True:
            await asyncio.sleep(WATCH_S)
            before_ms, looked_ms = looked_ms, clock.now_ms()
            if looked_ms - before_ms > STOPPED_MS:
                # This process was stopped, and has not read yet what its children said meanwhile.
                continue
            for child in self._children:
                child.watch(looked_ms)

    def _answer(self, call: Incoming) -> None:
        """A call of a proxy, of the present one or of one that finishes: an operator asked that one."""
        try:
            match call.head:
                case treecalls.Withdraw(drained):
                    told = self._attraction.order(Signal.WITHDRAW, drained=drained)
                    call.reply(treecalls.Announcement(told))
                case treecalls.Announce():
                    call.reply(treecalls.Announcement(self._attraction.order(Signal.ANNOUNCE)))
                case treecalls.Restart(roles):
                    self._restarts.ask(roles)
                    call.reply(calls.Done())
                case treecalls.Tree():
                    call.reply(self._state())
                case other:
                    problem = f"the parent does not answer {type(other).__name__}"
                    call.fail(EdgeError(Reason.PROTOCOL, problem, source=Source.DOWNSTREAM))
        except EdgeError as error:
            call.fail(error)

    def _state(self) -> treecalls.TreeState:
        return treecalls.TreeState(
            str(self._attraction),
            [child.state() for child in self._children],
            self._restarts.under_way,
            self._restarts.problem,
            self._attraction.drained,
        )

    def _unready(self) -> None:
        self._ready = False
        self._ready_path.unlink(missing_ok=True)
