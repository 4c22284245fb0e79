"""The vocabulary of plan.py: one frozen struct per thing that can be done to the network.

plan.py puts them in order, apply.py carries them out. `undone` says what takes one back;
None means that it goes with the namespace or the link it belongs to.
"""

import msgspec


class Namespace(msgspec.Struct, frozen=True):
    """Make a tagged namespace with `lo` up."""

    ns: str


class Sysctl(msgspec.Struct, frozen=True):
    """Write a setting and read it back."""

    ns: str
    key: str
    value: str


class Bridge(msgspec.Struct, frozen=True):
    """A bridge, up."""

    ns: str
    name: str
    mac: str


class Veth(msgspec.Struct, frozen=True):
    """A cable: one end in `ns`, the other in `peer_ns`; `master` is the bridge of the first end."""

    ns: str
    name: str
    mac: str
    peer_ns: str
    peer: str
    peer_mac: str
    master: str = ""


class MoveLink(msgspec.Struct, frozen=True):
    """Carry one end of a cable from a namespace to another."""

    ns: str
    name: str
    to: str


class Up(msgspec.Struct, frozen=True):
    """Set an interface up."""

    ns: str
    name: str


class Addr(msgspec.Struct, frozen=True):
    """Give an interface an address, without duplicate address detection."""

    ns: str
    dev: str
    address: str
    prefix: int


class Neighbour(msgspec.Struct, frozen=True):
    """A permanent neighbour: nobody asks who has it, so the first packet is not late."""

    ns: str
    dev: str
    address: str
    mac: str


class Route(msgspec.Struct, frozen=True):
    """A route with our protocol tag."""

    ns: str
    to: str
    via: str
    dev: str
    src: str = ""
    #: 0: the main one.
    table: int = 0


class Rule(msgspec.Struct, frozen=True):
    """What this machine sends from `source` is routed by `table` alone; with our protocol tag."""

    ns: str
    source: str
    table: int


class Tag(msgspec.Struct, frozen=True):
    """Mark an interface outside our namespaces as ours."""

    ns: str
    name: str


Made = Namespace | Sysctl | Bridge | Veth | MoveLink | Up | Addr | Neighbour | Route | Rule | Tag


class Drop(msgspec.Struct, frozen=True):
    """Take back one step."""

    of: Made

    @property
    def ns(self) -> str:
        """Where that is done."""
        return self.of.ns


Step = Made | Drop


def undone(step: Step) -> Step | None:
    """What takes `step` back; undoing that gives `step` again."""
    match step:
        case Drop(of):
            return of
        case MoveLink(ns, name, to):
            return MoveLink(to, name, ns)
        case Namespace() | Veth() | Up() | Addr() | Route() | Rule():
            return Drop(step)
        case _:
            return None
