"""What the scripts in the region's Redis answer: msgpack in one string, of these shapes.

Says nothing of what the values mean to a mirror, and checks nothing but their types. Pure.
"""

import msgspec


class Heard(msgspec.Struct, array_like=True, frozen=True):
    """Reply of HEARTBEAT: the epoch, and how many blobs Redis thinks this node has."""

    epoch: str
    have: int


class NodeLook(msgspec.Struct, array_like=True, frozen=True):
    """One node: does it live, and its record ("" where there is none, or none that can be used)."""

    living: bool
    boot: str
    blobs: str


class Look(msgspec.Struct, array_like=True, frozen=True):
    """Reply of LOOK. `epoch` "" = there is none; `trimmed`: older events than `oldest` are gone.

    `kept`: the event that was asked for is still there; `ends`: the Stream ends with the event `last`.
    """

    epoch: str
    oldest: str
    last: str
    trimmed: bool
    kept: bool
    ends: bool
    nodes: list[NodeLook]


class News(msgspec.Struct, array_like=True, frozen=True):
    """Reply of NEWS: the last event's id ("" = none), and each event's fields, all "" where one is wrong.

    `kept`: the event behind which they come is still there.
    """

    last: str
    kept: bool
    events: list[tuple[str, str, str, str]]


class NodePage(msgspec.Struct, array_like=True, frozen=True):
    """One node:<n> as a page shows it."""

    node: str
    living: bool
    boot: str
    blobs: str


class Page(msgspec.Struct, array_like=True, frozen=True):
    """Reply of PAGE: some of all keys. `torn` are digests whose location could not be read whole."""

    cursor: str
    refused: int
    nodes: list[NodePage]
    locations: list[tuple[str, list[str]]]
    torn: list[str]


class Held(msgspec.Struct, array_like=True, frozen=True):
    """Reply of LEASE: who has it ("" = granted to the asker), for how long still, who else asked."""

    owner: str
    left_ms: int
    beside: list[str] = []
