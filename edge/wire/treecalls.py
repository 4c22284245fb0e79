"""What a node's parent and its children say to each other, in frames: announcing, restarts, how all are.

Part of the vocabulary of `edge.wire.calls`, which joins it with the rest.
"""

import msgspec


class Withdraw(msgspec.Struct, tag="withdraw", tag_field="op", omit_defaults=True):
    """CALL, proxy -> parent: stop attracting traffic until `Announce`. Reply `Announcement`.

    `drained`: the node was drained. Each proxy that starts is told so, until `Announce` ends both.
    """

    drained: bool = False


class Announce(msgspec.Struct, tag="announce", tag_field="op", omit_defaults=True):
    """CALL, proxy -> parent: attract traffic again. Reply `Announcement`."""


class Restart(msgspec.Struct, tag="restart", tag_field="op", omit_defaults=True):
    """CALL, proxy -> parent: start these children anew, one after another. Reply `Done` at once.

    A proxy is replaced by a new one before the old one stops. Empty: all of them.
    """

    roles: tuple[str, ...] = ()


class Tree(msgspec.Struct, tag="tree", tag_field="op", omit_defaults=True):
    """CALL, proxy -> parent: how are the children? Reply `TreeState`."""


class ChildState(msgspec.Struct, omit_defaults=True):
    """One child process of the node; `exits` counts how often it died."""

    role: str
    pid: int
    up: bool
    exits: int
    ready: bool = False


class TreeState(msgspec.Struct, tag="tree-state", tag_field="op", omit_defaults=True):
    """Children, and whether the VIP is announced ("announced", "withdrawn: <why>", "never")."""

    announcement: str
    children: list[ChildState] = msgspec.field(default_factory=list)
    #: Roles still to be restarted by a `Restart` that is under way.
    restarting: tuple[str, ...] = ()
    #: Why the last `Restart` did not come to its end; empty when it did.
    restart_problem: str = ""
    #: The operator drained the node; a proxy that was not asked itself learns it here.
    drained: bool = False


class Announcement(msgspec.Struct, tag="announcement", tag_field="op", omit_defaults=True):
    """Answer to `Withdraw` and `Announce`."""

    announcement: str
