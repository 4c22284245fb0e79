"""The node as a process tree: sockets, children, lease, in this order, and back again.

`serve` is the whole of `popctl serve` once the file is read. One thread, no HTTP, no model,
nothing that comes from outside except the frames of its own children.
"""

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Final

from edge import clock
from edge.config import NodeConfig
from edge.errors import EdgeError, Reason, Source
from edge.logs import log_to_stderr
from edge.parent.announce import AnnounceError, Announcer
from edge.parent.attract import Attraction
from edge.parent.boot import BootError, make_store, plan_roles
from edge.parent.keeper import KILL_WAIT_S, Child, UnfitError
from edge.parent.lease import Signal, Terms
from edge.parent.sockets import ListenError, Listeners, claim_run_dir, open_listeners
from edge.wire import calls
from edge.wire.exchange import Incoming

log = logging.getLogger(__name__)

OK, FAILURE, MISSING = 0, 1, 3
WATCH_S: Final = 0.5
#: Between the withdrawal and the stop of the proxy: BGP needs some 5 ms to move the clients, 50 at most.
SETTLE_S: Final = 0.1
#: The proxy may finish what runs, then the others follow; after that they are killed.
PROXY_GRACE_S: Final = 5.0
OTHERS_GRACE_S: Final = 2.0


def serve(config: NodeConfig) -> int:
    """Run the node until SIGTERM or SIGINT; the exit status (0 stopped, 1 failed, 3 something is missing)."""
    log_to_stderr(f"{config.node}/parent", config.log_level)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return asyncio.run(Tree(config).run())


class Tree:
    """One running node."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._root = os.geteuid() == 0
        self._stop = asyncio.Event()
        self._ready = False
        self._ready_path = Path(config.run_dir) / "ready"
        self._children: list[Child] = []
        self._attraction = Attraction(None, Terms(0, 0), 1000.0)

    async def run(self) -> int:
        """From nothing to nothing; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            await self._open_and_live()
        except AnnounceError as error:
            return self._refuse(error, MISSING)
        except ListenError as error:
            return self._refuse(error, MISSING if error.missing_right else FAILURE)
        except BootError as error:
            return self._refuse(error, FAILURE)
        except UnfitError as error:
            return self._refuse(error, MISSING)
        log.info("stopped")
        return OK

    def on_born(self, child: Child) -> None:
        """A child was started."""
        if child.role.role == "proxy":
            self._attraction.proxy_born()

    def on_beat(self, child: Child) -> None:
        """A child spoke."""
        if child.role.role == "proxy":
            self._attraction.proxy_beat(ready=child.ready)
        if not self._ready and not self._stop.is_set() and all(child.ready for child in self._children):
            self._ready = True
            log.info("ready")
            try:
                # With the pid, so that who waits for it can tell it from what a killed predecessor left.
                self._ready_path.write_text(f"{os.getpid()}\n")
            except OSError as error:
                log.warning("no ready file", extra={"problem": str(error)})

    def on_exit(self, child: Child) -> None:
        """A child is gone."""
        if child.role.role == "proxy":
            self._attraction.proxy_exited()
            self._unready()

    async def _open_and_live(self) -> None:
        announce = self._config.announce
        announcer: Announcer | None = None
        if announce is not None:
            announcer = Announcer(announce.interface, announce.addresses, announce.lease_ms // 1000)
            # A predecessor's lease may still run: nobody is served here yet.
            announcer.delete()
            terms = Terms(announce.lease_ms, announce.heartbeat_max_age_ms)
            self._attraction = Attraction(announcer, terms, announce.renew_ms)
        try:
            with claim_run_dir(Path(self._config.run_dir)):
                self._unready()
                listeners = await open_listeners(self._config, root=self._root)
                try:
                    make_store(self._config, root=self._root)
                    await self._live(listeners)
                finally:
                    self._unready()
                    listeners.close()
        finally:
            if announcer is not None:
                announcer.close()

    async def _live(self, listeners: Listeners) -> None:
        """From the first child's start to the last one's exit."""
        if not self._root:
            log.warning("not root: children keep this uid, workers keep the network")
        self._children = [
            Child(
                role,
                node=self._config.node,
                log_level=self._config.log_level,
                observer=self,
                on_call=self._answer if role.role == "proxy" else None,
            )
            for role in plan_roles(self._config, listeners)
        ]
        try:
            async with asyncio.TaskGroup() as group:
                lives = {child: group.create_task(child.keep()) for child in self._children}
                tasks = [group.create_task(self._attraction.keep()), group.create_task(self._watch())]
                await self._stop.wait()
                await self._end(lives)
                for task in tasks:
                    task.cancel()
        except* UnfitError as unfit:
            raise unfit.exceptions[0] from None
        finally:
            self._attraction.order(Signal.STOP)

    async def _end(self, lives: dict[Child, asyncio.Task[None]]) -> None:
        """Withdraw, let the proxy finish, then the others; nobody outlives the grace."""
        announced = self._attraction.announced
        self._attraction.order(Signal.STOP)
        self._unready()
        if announced:
            await asyncio.sleep(SETTLE_S)
        proxy = {child: task for child, task in lives.items() if child.role.role == "proxy"}
        others = {child: task for child, task in lives.items() if child not in proxy}
        for part, grace_s in ((proxy, PROXY_GRACE_S), (others, OTHERS_GRACE_S)):
            for child in part:
                child.stop()
            if not part:
                continue
            _, late = await asyncio.wait(part.values(), timeout=grace_s)
            for child in part:
                child.kill("did not stop in time")
            if late:
                await asyncio.wait(late, timeout=KILL_WAIT_S)
            for task in late:
                task.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            now_ms = clock.now_ms()
            for child in self._children:
                child.watch(now_ms)

    def _answer(self, call: Incoming) -> None:
        """A call of the proxy."""
        match call.head:
            case calls.Withdraw():
                call.reply(calls.Announcement(self._attraction.order(Signal.WITHDRAW)))
            case calls.Announce():
                call.reply(calls.Announcement(self._attraction.order(Signal.ANNOUNCE)))
            case calls.Tree():
                states = [child.state() for child in self._children]
                call.reply(calls.TreeState(str(self._attraction), states))
            case other:
                problem = f"the parent does not answer {type(other).__name__}"
                call.fail(EdgeError(Reason.PROTOCOL, problem, source=Source.DOWNSTREAM))

    def _unready(self) -> None:
        self._ready = False
        self._ready_path.unlink(missing_ok=True)

    def _refuse(self, error: Exception, status: int) -> int:
        log.error("not started", extra={"problem": str(error)})
        return status
