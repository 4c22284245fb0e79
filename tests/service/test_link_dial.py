"""The dialer over real sockets: planned restarts lose nothing, losses are told once, greetings can't outlive links."""

import asyncio
import contextlib
import socket

import pytest

from edge.background import Background
from edge.errors import EdgeError, Reason
from edge.wire import calls, meshcalls, sockopt
from edge.wire.dial import Dialer
from edge.wire.frame import SHARED_BODY_BYTES
from tests.support.links import answerer
from tests.support.wait import wait_until

INFER = calls.Infer(model="m", version="1", digest="d")


async def ask_status(link):
    await link.request(calls.Status(), timeout_s=2)


class Node:
    """Answers greetings at once and holds requests until `go`; then it answers with its name."""

    def __init__(self, name):
        self.name = name
        self.held = []

    def on_call(self, incoming):
        if isinstance(incoming.head, calls.Status):
            incoming.reply(calls.Done())
        else:
            self.held.append(incoming)

    def go(self):
        held, self.held = self.held, []
        for incoming in held:
            incoming.reply(calls.Inferred(), self.name.encode())


@contextlib.asynccontextmanager
async def dialing(address, greet=ask_status, **options):
    """A running dialer; `lost` counts what it told."""
    where = {"unix_path": address} if isinstance(address, str) else {"address": address}
    dialer = Dialer("other", greet=greet, on_lost=lambda: dialer.lost.append(1), **where, **options)
    dialer.lost = []
    background = Background()
    background.spawn(dialer.run())
    try:
        yield dialer
    finally:
        await background.close()


async def test_a_planned_restart_under_load_loses_nothing():
    old, new = Node("old"), Node("new")
    async with answerer(0, old.on_call) as first, dialing(first.address) as dialer:
        link = await dialer.wait_shared(5)
        background = Background()
        asked = [background.spawn(link.request(INFER, b"%d" % n, timeout_s=20)) for n in range(100)]
        await wait_until(lambda: len(old.held) == 100)
        async with answerer(first.address[1], new.on_call) as second:
            first.server.close()
            first.links[0].goodbye()
            await wait_until(lambda: link.retired)
            with pytest.raises(EdgeError) as caught:
                await link.request(INFER, timeout_s=5)
            assert caught.value.retryable, "nothing was sent"
            replacement = await dialer.wait_shared(5)
            assert replacement is not link
            after = [background.spawn(dialer.shared().request(INFER, timeout_s=20)) for _ in range(20)]
            await wait_until(lambda: len(new.held) == 20)
            assert not link.closed, "what is under way on the old link is still waited for"
            old.go()
            new.go()
            assert {(await task).body for task in asked} == {b"old"}
            assert {(await task).body for task in after} == {b"new"}
            await wait_until(lambda: link.closed and first.links[0].closed)
            assert dialer.lost == []
            assert dialer.shared() is replacement
            assert len(second.links) == 1


async def test_calls_that_cross_the_goodbye_are_answered_too(tmp_path):
    """A stream of calls, a goodbye in the middle of it: each is answered or refused as not sent."""
    node = Node("it")

    def on_call(incoming):
        node.on_call(incoming)
        node.go()

    answers, refused = [], []
    async with answerer(str(tmp_path / "s"), on_call) as there, dialing(str(tmp_path / "s")) as dialer:
        await dialer.wait_shared(5)

        async def ask():
            for _ in range(100):
                try:
                    link = dialer.shared()
                    answers.append((await link.request(INFER, timeout_s=20)).body)
                except EdgeError as error:
                    refused.append(error)
                    await dialer.wait_shared(5)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(ask())
            await wait_until(lambda: len(answers) > 200, every_s=0.001)
            there.links[0].goodbye()
        assert len(answers) + len(refused) == 2000
        assert {error.retryable for error in refused} <= {True}
        assert dialer.lost == []
        assert len(there.links) == 2


async def test_a_streamed_answer_outlives_the_goodbye(tmp_path):
    go_on = asyncio.Event()
    background = Background()

    async def chunks():
        yield b"first"
        await go_on.wait()
        yield b"last"

    def on_call(incoming):
        if isinstance(incoming.head, calls.Status):
            incoming.reply(calls.Done())
        else:
            background.spawn(incoming.stream(calls.Inferred(), chunks()))

    async with answerer(str(tmp_path / "s"), on_call) as there, dialing(str(tmp_path / "s")) as dialer:
        link = await dialer.wait_shared(5)
        reply = await link.request(INFER, timeout_s=20)
        there.links[0].goodbye()
        await wait_until(lambda: link.retired)
        assert await dialer.wait_shared(5) is not link
        go_on.set()
        assert await reply.whole() == b"firstlast"
        await wait_until(lambda: link.closed)


async def test_a_goodbye_with_nobody_to_come_after_is_a_loss(tmp_path):
    node = Node("it")
    async with answerer(str(tmp_path / "s"), node.on_call) as there, dialing(str(tmp_path / "s")) as dialer:
        link = await dialer.wait_shared(5)
        background = Background()
        asked = background.spawn(link.request(INFER, timeout_s=20))
        await wait_until(lambda: node.held)
        there.server.close()
        (tmp_path / "s").unlink()
        there.links[0].goodbye()
        await wait_until(lambda: dialer.lost)
        with pytest.raises(EdgeError) as caught:
            dialer.shared()
        assert caught.value.retryable
        node.go()
        assert (await asked).body == b"it"
        await wait_until(lambda: link.closed)
        assert dialer.lost == [1]


async def test_a_retired_link_that_dies_fails_its_exchanges_and_is_no_loss(tmp_path):
    node = Node("it")
    async with answerer(str(tmp_path / "s"), node.on_call) as there, dialing(str(tmp_path / "s")) as dialer:
        link = await dialer.wait_shared(5)
        background = Background()
        asked = background.spawn(link.request(INFER, timeout_s=20))
        await wait_until(lambda: node.held)
        there.links[0].goodbye()
        await wait_until(lambda: len(there.links) == 2)
        await dialer.wait_shared(5)
        there.links[0].abort()
        with pytest.raises(EdgeError) as caught:
            await asked
        assert (caught.value.reason, caught.value.retryable) == (Reason.LINK_LOST, False)
        assert dialer.lost == []


async def test_who_says_goodbye_to_every_link_is_not_dialed_in_a_tight_loop(tmp_path):
    def on_call(incoming):
        incoming.reply(calls.Done())
        incoming.link.goodbye()

    async with answerer(str(tmp_path / "s"), on_call) as there, dialing(str(tmp_path / "s")):
        with pytest.raises(AssertionError, match="not within"):
            await wait_until(lambda: len(there.links) > 20, within_s=0.5)
        assert len(there.links) > 1


async def test_a_stopped_dialer_closes_the_links_that_it_retired(tmp_path):
    node = Node("it")
    async with answerer(str(tmp_path / "s"), node.on_call) as there:
        async with dialing(str(tmp_path / "s")) as dialer:
            link = await dialer.wait_shared(5)
            future = link.submit(INFER, timeout_s=20)[1]
            await wait_until(lambda: node.held)
            there.links[0].goodbye()
            await wait_until(lambda: link.retired)
            await dialer.wait_shared(5)
        with pytest.raises(EdgeError, match="lost"):
            await future
        assert link.closed


async def test_a_greeting_ends_when_its_link_is_lost(tmp_path):
    """Else it would go on to tell that somebody is up who is already lost."""
    greetings, up = [], []
    may_succeed = asyncio.Event()

    async def greet(link):
        greetings.append(link)
        await may_succeed.wait()
        up.append(link)

    async with (
        answerer(str(tmp_path / "s"), lambda incoming: None) as there,
        dialing(str(tmp_path / "s"), greet=greet) as dialer,
    ):
        await wait_until(lambda: len(greetings) == 1 and there.links)
        there.links[0].abort()
        await wait_until(lambda: len(greetings) == 2)
        assert dialer.lost == [1]
        with pytest.raises(EdgeError):
            greetings[0].submit(INFER, timeout_s=1)
        may_succeed.set()
        link = await dialer.wait_shared(5)
        await wait_until(lambda: up)
        assert up == [link] == [greetings[1]]


async def test_an_answer_and_the_end_of_the_link_in_one_read_is_no_success_that_stays(tmp_path):
    """The greeting's answer and the close come together: shared() and wait_shared() agree that there is none."""

    def on_call(incoming):
        incoming.reply(calls.Done())
        incoming.link.close()

    async with answerer(str(tmp_path / "s"), on_call) as there, dialing(str(tmp_path / "s")) as dialer:
        await wait_until(lambda: len(there.links) >= 3)
        await wait_until(lambda: len(dialer.lost) >= 3)
        there.server.close()
        (tmp_path / "s").unlink()
        await wait_until(lambda: "Errno" in dialer.last_error)
        assert not dialer._up.is_set()
        with pytest.raises(EdgeError) as caught:
            await dialer.wait_shared(0.05)
        assert caught.value.retryable
        assert len(dialer.lost) == len(there.links), "once for each link that was lost"


async def test_a_greeting_that_fails_is_told_as_a_loss_with_its_reason(tmp_path):
    async def greet(link):
        raise EdgeError(Reason.PROTOCOL, "answered as somebody else")

    async with (
        answerer(str(tmp_path / "s"), lambda incoming: None),
        dialing(str(tmp_path / "s"), greet=greet) as dialer,
    ):
        await wait_until(lambda: dialer.lost)
        await wait_until(lambda: dialer.last_error == "answered as somebody else")


async def test_events_come_with_the_link_that_brought_them(tmp_path):
    seen = []
    node = Node("it")
    async with (
        answerer(str(tmp_path / "s"), node.on_call) as there,
        dialing(str(tmp_path / "s"), on_event=lambda *told: seen.append(told)) as dialer,
    ):
        link = await dialer.wait_shared(5)
        there.links[0].event(meshcalls.BeaconNews(base=3), b"beacon")
        await wait_until(lambda: seen)
        assert seen == [(link, meshcalls.BeaconNews(base=3), b"beacon")]


def options_of(link):
    sock = link.transport.get_extra_info("socket")
    tcp = socket.IPPROTO_TCP
    return {
        "nodelay": sock.getsockopt(tcp, socket.TCP_NODELAY),
        "keepalive": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        "user_timeout_ms": sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT),
    }


async def test_both_ends_of_a_tcp_link_notice_a_peer_that_vanished():
    wanted = {"nodelay": 1, "keepalive": 1, "user_timeout_ms": sockopt.USER_TIMEOUT_MS}
    patient = wanted | {"user_timeout_ms": sockopt.PAUSED_USER_TIMEOUT_MS}

    async def large():
        yield bytes(SHARED_BODY_BYTES)

    def on_call(incoming):
        incoming.reply(calls.Done())

    async with answerer(0, on_call) as there, dialing(there.address) as dialer:
        shared = await dialer.wait_shared(5)
        assert options_of(shared) == wanted
        assert options_of(there.links[0]) == wanted
        alone = await dialer.exclusive()
        await alone.stream(INFER, large(), timeout_s=5)
        assert options_of(alone) == patient, "a slow client may make us stop reading"
        assert options_of(there.links[1]) == patient
        alone.close()
