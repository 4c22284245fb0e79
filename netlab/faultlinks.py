"""Is a link still broken as the book says, after somebody changed it with `poplab link`?

`over` and `beside` are pure: the book and the links in, the entries that nothing is left of out, or
the links that are in no book. It refuses to know who changed what.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from netlab import faultbook
from netlab.faults import Fault
from netlab.lab import Lab
from netlab.wanhandle import WanRefusedError
from netlab.wanlinks import LinkState

#: What is left of each way, in a direction that differs from the planet.
_LEFT: Final[dict[str, Callable[[LinkState], bool]]] = {
    "cut": lambda link: link.cut,
    "one-way": lambda link: link.cut,
    "lossy": lambda link: "loss" in link.differs,
    "narrow": lambda link: "rate_bps" in link.differs,
}


def over(book: Iterable[Fault], differing: Sequence[LinkState]) -> list[Fault]:
    """The faults of links that no direction of their link shows any more."""
    return [
        fault
        for fault in book
        if fault.kind == "link"
        and not any(_LEFT[fault.how](link) for link in differing if fault.target in _names(link))
    ]


def beside(book: Iterable[Fault], differing: Sequence[LinkState]) -> list[LinkState]:
    """The directions that no fault in the book explains: `poplab link` or `poplab partition` did it."""
    booked = {fault.target for fault in book if fault.kind == "link"}
    return [link for link in differing if not booked & set(_names(link))]


def _names(link: LinkState) -> tuple[str, str]:
    return f"{link.origin}-{link.to}", f"{link.to}-{link.origin}"


def unbooked(lab: Lab) -> list[LinkState]:
    """The directions that differ and are in no book; none where the WAN can't be asked."""
    try:
        return beside(faultbook.entries(), lab.wan.conditions())
    except (OSError, WanRefusedError):
        return []


def settle(lab: Lab) -> None:
    """Strike out of the book what is mended. Raises OSError, WanRefusedError, BusyError."""
    if any(fault.kind == "link" for fault in faultbook.entries()):
        with faultbook.held():
            for fault in over(faultbook.entries(), lab.wan.conditions()):
                faultbook.strike(fault)
