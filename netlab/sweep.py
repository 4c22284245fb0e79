"""Take the lab away, whole or in pieces, remembered or not.

There is one way down, the same for a healthy lab, for one that was half made, for one whose
processes were all killed and for one whose state file is gone: everything is found by its tag.
It touches nothing else.
"""

from typing import Final

import msgspec

from netlab import apply, faultclock, names, netns, state, supervise

#: Processes get this long to end by themselves; popctl's cleanly, BIRD's at once.
GRACE_S: Final = 1.0
MAX_LOOKS: Final = 20


class InsideError(Exception):
    """The lab can't be taken away from inside one of its own namespaces."""


class Swept(msgspec.Struct, frozen=True):
    """What was found and removed."""

    processes: int
    namespaces: int
    host_link: bool

    def __bool__(self) -> bool:
        return bool(self.processes or self.namespaces or self.host_link)


def remnants() -> list[str]:
    """Namespaces of a lab, living or dead; not that in which a `poplab doctor` looks just now."""

    def looks(pid: int) -> bool:
        return pid > 0 and supervise.read_stat(pid) is not None

    return [space for space in apply.tagged_namespaces() if not looks(names.doctor_pid(space))]


def sweep(grace_s: float = GRACE_S) -> Swept:
    """End every process of the lab, drop its namespaces, its host link and its files."""
    spaces = remnants()
    inodes = {netns.inode(space) for space in spaces}
    if netns.inode(names.HOST) in inodes:
        raise InsideError("this shell stands inside the lab; leave it (exit) and run poplab down again")
    remembered = state.read()
    known = remembered.processes if remembered is not None else ()
    ended: set[int] = set()
    # A parent may start a child between the look and the signal: look until nobody is there.
    for _ in range(MAX_LOOKS):
        found = supervise.find(inodes, str(state.ROOT), known)
        if not found:
            break
        faultclock.remember(found)
        supervise.end(found, grace_s if not ended else 0.0)
        ended |= found
    faultclock.sweep()
    link = apply.host_link() == "ours"
    if link:
        apply.drop_host_link()
    rules = apply.drop_host_rules()
    for space in spaces:
        netns.drop(space)
    for name in netns.names():
        if not netns.is_namespace(name) and netns.path_of(name).stat().st_size == 0:
            netns.drop(name)  # a name without a namespace: a start was cut off between the two
    state.erase()
    return Swept(len(ended), len(spaces), link or rules > 0)


def leftovers() -> bool:
    """Whether anything of a lab is there: namespaces or the host's link."""
    return bool(remnants()) or apply.host_link() == "ours"


def remnants_text(swept: Swept) -> str:
    """One sentence on what was removed."""
    link = f", the host's {names.HOST_LINK}" if swept.host_link else ""
    return f"{swept.processes} processes, {swept.namespaces} namespaces{link}"
