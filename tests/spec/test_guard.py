"""The guard, told by datagrams: when it sends the requests that take the addresses off."""

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from edge.parent.guard import BEAT, FORGET, OFF, watch

FIRST, SECOND = b"delete 198.51.100.1", b"delete fd5e:ed9e::1"
END = b"end"
DONE = struct.pack("=IHHIIi", 20, 2, 0, 0, 0, 0)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket, socket.socket, socket.socket]]:
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    (parent, guard), (kernel, its) = pairs
    for _ in range(4):
        kernel.send(DONE)
    kernel.settimeout(10)
    yield parent, guard, kernel, its
    for end in (parent, guard, kernel, its):
        end.close()


ENDS = [
    ("what was never announced is not deleted", [FIRST], []),
    ("the parent's end deletes what is announced", [FIRST, SECOND, BEAT], [FIRST, SECOND]),
    ("what the parent deleted itself is left alone", [FIRST, BEAT, OFF], []),
    ("announced again, guarded again", [FIRST, BEAT, OFF, BEAT], [FIRST]),
    ("an interface that was made anew has other requests", [FIRST, BEAT, FORGET, SECOND, BEAT], [SECOND]),
]


@pytest.mark.parametrize(("sentence", "words", "sent"), ENDS, ids=[row[0] for row in ENDS])
def test_the_end_of_the_parent(sentence, words, sent, ends):
    parent, guard, kernel, its = ends
    for word in words:
        parent.send(word)
    parent.close()
    watch(guard, its, lease_s=1000.0)
    its.send(END)
    assert list(iter(lambda: kernel.recv(4096), END)) == sent, sentence


def test_silence_deletes_and_a_later_beat_begins_anew(ends):
    parent, guard, kernel, its = ends
    watcher = threading.Thread(target=watch, args=(guard, its, 0.05))
    watcher.start()
    try:
        for _ in range(2):
            for word in (FORGET, FIRST, BEAT):
                parent.send(word)
            assert kernel.recv(4096) == FIRST
    finally:
        parent.close()
        watcher.join(10)
    its.send(END)
    assert kernel.recv(4096) == END, "nothing is left to delete"
