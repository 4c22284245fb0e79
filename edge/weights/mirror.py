"""The region's index as one node last saw it: who holds which blob.

Filled by events and by pages of the whole index, both written by others, so each name,
digest and address is checked and what is wrong is refused while the last good value
stays. An index that became empty is no reason to forget: what was known is carried on
until its nodes have had the time to register again. `leader` names one node of many
without asking anybody.

Pure: knows no Redis, no socket and no clock.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from blake3 import blake3

from edge.config import host_port
from edge.weights.manifest import DIGEST
from edge.weights.replies import NodeLook, Page
from edge.weights.scripts import MAX_NODES

MAX_BLOBS: Final = 200_000
MAX_LOCATIONS: Final = 2_000_000

#: As `edge.config_file.NAME`: what a node may be called.
NODE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
BOOT: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
EPOCH: Final = re.compile(r"[0-9a-f]{32}")
STATES: Final = frozenset({"here", "gone", "free", "node"})
_NOBODY: Final[frozenset[str]] = frozenset()


class Holder(NamedTuple):
    """A node that has a blob, and where it gives it: host:port of its blob server."""

    node: str
    blobs: str


class Peer(NamedTuple):
    """What a node says of itself."""

    boot: str
    blobs: str


class Event(NamedTuple):
    """One change: a blob is here or gone, its lease is free, or look at a node ("node", no digest)."""

    epoch: str
    node: str
    digest: str
    state: str


def read_event(epoch: str, node: str, digest: str, state: str) -> Event | None:
    """One event of the Stream; None for what is none, or is none that this version knows."""
    digest_fits = digest == "" if state == "node" else DIGEST.fullmatch(digest)
    if state in STATES and digest_fits and NODE.fullmatch(node) and EPOCH.fullmatch(epoch):
        return Event(epoch, node, digest, state)
    return None


def read_peer(boot: str, blobs: str) -> Peer | None:
    """A node's record; None when its boot or its address can't be one.

    An address is an IP literal that one machine can have, and a port.
    """
    try:
        host, port = host_port(blobs)
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    nobodys = address.is_multicast or address.is_unspecified or address.is_link_local
    if port == 0 or nobodys or BOOT.fullmatch(boot) is None:
        return None
    return Peer(boot, blobs)


def has_gap(seen: str, oldest: str, last: str, *, trimmed: bool) -> bool:
    """May events behind `seen` have been lost, or is this another Stream than the one it comes from?"""
    return _order(last) < _order(seen) or (trimmed and _order(oldest) > _order(seen))


def _order(event_id: str) -> tuple[int, int]:
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number)


def leader(digest: str, nodes: Iterable[str]) -> str:
    """Who fetches `digest` for its region while there is nobody to ask: rendezvous hash, no node = "".

    Every node that sees the same nodes names the same one; when one leaves, only its digests move.
    """
    return max(nodes, key=lambda node: (blake3(f"{digest}|{node}".encode()).digest(), node), default="")


class Reading:
    """The whole index, being read page by page off to the side."""

    def __init__(self) -> None:
        self.peers: dict[str, Peer] = {}
        self.dead: set[str] = set()
        self.at: dict[str, frozenset[str]] = {}
        self.torn: set[str] = set()
        self.refused = 0
        self._locations = 0

    def take(self, page: Page) -> None:
        """Add a page. What is wrong in it is counted and left out; beyond the caps as well."""
        self.refused += page.refused
        self.torn.update(digest for digest in page.torn if DIGEST.fullmatch(digest))
        for node, living, boot, blobs in ((n.node, n.living, n.boot, n.blobs) for n in page.nodes):
            peer = read_peer(boot, blobs)
            if NODE.fullmatch(node) is None or (len(self.peers) >= MAX_NODES and node not in self.peers):
                self.refused += 1
                continue
            if not living:
                self.dead.add(node)
            if peer is None:
                self.refused += 1
            else:
                self.peers[node] = peer
        for digest, nodes in page.locations:
            self._take_location(digest, nodes)

    def strays(self) -> set[str]:
        """Nodes that have locations but no record: what is left of some that are gone."""
        return {node for nodes in self.at.values() for node in nodes} - self.peers.keys()

    def _take_location(self, digest: str, nodes: list[str]) -> None:
        good = frozenset(node for node in nodes if NODE.fullmatch(node))
        self.refused += len(nodes) - len(good)
        full = len(self.at) >= MAX_BLOBS or self._locations + len(good) > MAX_LOCATIONS
        if DIGEST.fullmatch(digest) is None or (full and digest not in self.at):
            self.refused += 1
        elif good:
            self.at[digest] = good
            self._locations += len(good)


class Mirror:
    """Who holds what, for `me`. Every method leaves something that can be used."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.epoch = ""
        self.refused = 0
        self._peers: dict[str, Peer] = {}
        self._silent: set[str] = set()
        self._at: dict[str, frozenset[str]] = {}
        self._carried: dict[str, frozenset[str]] = {}

    # --- reading

    def holders(self, digest: str) -> tuple[Holder, ...]:
        """The other live nodes that have it, by name."""
        names = self._at.get(digest, _NOBODY) | self._carried.get(digest, _NOBODY)
        return tuple(
            Holder(node, self._peers[node].blobs)
            for node in sorted(names)
            if node != self.me and node in self._peers and node not in self._silent
        )

    def nodes(self) -> tuple[str, ...]:
        """Live nodes by name, this one included once it has been seen."""
        return tuple(sorted(self._peers.keys() - self._silent))

    def address(self, node: str) -> str | None:
        """Where a live node gives blobs."""
        return self._peers[node].blobs if node in self._peers and node not in self._silent else None

    def knows(self, node: str) -> bool:
        """Is there a record of it?"""
        return node in self._peers

    def known(self) -> tuple[str, ...]:
        """Every node there is a record of, dead or alive: those to look at."""
        return tuple(sorted(self._peers))

    @property
    def blobs(self) -> int:
        """How many different blobs are somewhere."""
        return len(self._at.keys() | self._carried.keys()) if self._carried else len(self._at)

    def held_by(self, node: str) -> set[str]:
        """What the index says that `node` has."""
        return {digest for digest, nodes in self._at.items() if node in nodes}

    # --- changing

    def apply(self, event: Event) -> bool:
        """One event of the present epoch; was anything changed? "free" and "node" change nothing here."""
        nodes = self._at.get(event.digest, _NOBODY)
        match event.state:
            case "here" if event.node not in nodes:
                if len(nodes) >= MAX_NODES or (not nodes and len(self._at) >= MAX_BLOBS):
                    self.refused += 1
                    return False
                self._at[event.digest] = nodes | {event.node}
                return True
            case "gone":
                carried = self._carried.get(event.digest, _NOBODY)
                _set(self._carried, event.digest, carried - {event.node})
                _set(self._at, event.digest, nodes - {event.node})
                return event.node in nodes or event.node in carried
        return False

    def load(self, reading: Reading, epoch: str, *, judge: bool) -> None:
        """The whole index, read anew.

        In the same epoch it replaces what was known, save where it could not be read whole. In
        another one, what was known is carried on beside it until `settle`.
        """
        self.refused += reading.refused
        if epoch == self.epoch:
            for digest in reading.torn & self._at.keys():
                reading.at[digest] = reading.at.get(digest, _NOBODY) | self._at[digest]
        else:
            for digest, nodes in self._at.items():
                self._carried[digest] = self._carried.get(digest, _NOBODY) | nodes
        self.epoch = epoch
        self._at = reading.at
        for node, peer in reading.peers.items():
            self._meet(node, peer, living=node not in reading.dead, judge=judge)

    def look(self, seen: Mapping[str, NodeLook], *, judge: bool) -> tuple[bool, set[str]]:
        """What some nodes look like now -> (was anything changed, which are dead and still listed).

        `judge` false: whoever asks was cut off itself until now, so that nobody is called dead. A
        node without a living key and without a record is forgotten.
        """
        before = (dict(self._peers), set(self._silent))
        dead = set()
        for node, (living, boot, blobs) in ((n, (s.living, s.boot, s.blobs)) for n, s in seen.items()):
            if NODE.fullmatch(node) is None:
                continue
            peer = read_peer(boot, blobs)
            if peer is None and (boot or blobs):
                self.refused += 1
            self._meet(node, peer, living=living, judge=judge)
            if judge and not living:
                if boot or blobs:
                    dead.add(node)
                else:
                    self._forget(node)
        return before != (self._peers, self._silent), dead

    def settle(self) -> bool:
        """All have had the time to register in the new epoch: what was carried on goes. Was there any?"""
        had = bool(self._carried)
        self._carried = {}
        return had

    def _meet(self, node: str, peer: Peer | None, *, living: bool, judge: bool) -> None:
        """A node whose silence can't be judged keeps the standing it had; a new one is what it looks like."""
        new = node not in self._peers
        if peer is not None and new and len(self._peers) >= MAX_NODES:
            self.refused += 1
            return
        if peer is not None:
            self._peers[node] = peer
        if living:
            self._silent.discard(node)
        elif node in self._peers and (judge or new):
            self._silent.add(node)

    def _forget(self, node: str) -> None:
        if self._peers.pop(node, None) is None:
            return
        self._silent.discard(node)
        for table in (self._at, self._carried):
            for digest in [digest for digest, nodes in table.items() if node in nodes]:
                _set(table, digest, table[digest] - {node})


def _set(table: dict[str, frozenset[str]], digest: str, nodes: frozenset[str]) -> None:
    if nodes:
        table[digest] = nodes
    else:
        table.pop(digest, None)
