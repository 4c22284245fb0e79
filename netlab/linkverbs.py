"""`poplab link` and `poplab partition`: what the links between POPs are like, from the shell.

Both say what they did and how to undo it. Ratios are written as percentages with their sign and
rates with their unit, so that no number can be misread. It refuses to know how a link does it.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from netlab.told import FAILURE, USAGE, fail, say, told

_UNITS: Final = {"bit": 1, "kbit": 1_000, "mbit": 1_000_000, "gbit": 1_000_000_000}


def percent(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """`1%` is 0.01; the sign is not optional, but for 0."""
    if text is None or text == "0":
        return None if text is None else 0.0
    found = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)%", text)
    ratio = float(found[1]) / 100 if found else 2.0
    if ratio > 1:
        raise click.BadParameter(f"{text!r}: write a percentage with its sign, 0.5% to 100%, or 0")
    return ratio


def rate(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """`10mbit` is 10 000 000 bits per second, as tc writes it; 0 is no bound."""
    if text is None or text == "0":
        return None if text is None else 0
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)(bit|kbit|mbit|gbit)", text.lower())
    if not found:
        raise click.BadParameter(f"{text!r}: write a rate with its unit, 800kbit, 10mbit or 1gbit, or 0")
    return round(float(found[1]) * _UNITS[found[2]])


@click.command()
@click.argument("one", metavar="POP")
@click.argument("other", metavar="POP")
@click.option("--rtt", "rtt_ms", type=float, metavar="MS", help="Round trip, as both ends see it.")
@click.option("--jitter", "jitter_ms", type=float, metavar="MS", help="Delay varies by up to that, in order.")
@click.option("--loss", metavar="PERCENT", callback=percent, help="Share of packets that get lost: 1%.")
@click.option("--reorder", metavar="PERCENT", callback=percent, help="Share of packets held back: 1%.")
@click.option("--rate", "rate_bps", metavar="RATE", callback=rate, help="800kbit, 10mbit; queues 100 ms.")
@click.option(
    "--mtu",
    "mtu_bytes",
    type=int,
    metavar="BYTES",
    help="Largest IP packet; senders are told. Below 1280 a hole for IPv6.",
)
@click.option("--mtu-silent/--mtu-told", default=None, help="Tell no sender: a hole for large packets.")
@click.option("--asym", type=click.Choice(["there", "back"]), help="Only from the first POP, or only to it.")
@click.option("--down", is_flag=True, help="Swallow everything.")
@click.option("--up", is_flag=True, help="Carry again, with the other conditions that it has.")
@click.option("--mend", is_flag=True, help="As on the planet, in every respect.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def link(
    one: str, other: str, asym: str | None, *, down: bool, up: bool, mend: bool, as_json: bool, **wishes: Any
) -> None:
    """Change what the link between two POPs is like, or show it. 0 takes a condition away.

    Conditions hold for each packet of each direction: with --loss 1%, a round trip succeeds in 98 of
    100 cases.
    """
    from netlab import faultlinks
    from netlab.lab import Lab

    given = {name: value for name, value in wishes.items() if value is not None}
    if down + up + mend + bool(given) > 1:
        fail("write conditions, or one of --down, --up and --mend", USAGE)
    if mend and asym:
        fail("--mend mends both directions; leave out --asym", USAGE)
    with _told_of_links():
        lab = Lab.running()
        wan = lab.wan
        direction: Any = asym or "both"
        if down:
            wan.cut(one, other, direction=direction)
        elif up:
            wan.uncut(one, other, direction=direction)
        elif mend:
            wan.mend(one, other)
        elif given:
            wan.set(one, other, direction=direction, **given)
        faultlinks.settle(lab)
        _show(wan, one, other, as_json=as_json)
        if down or up or given:
            say(f"undo: poplab link {one} {other} --mend")


@click.command()
@click.argument("groups", metavar="GROUP [GROUP]", nargs=-1)
@click.option("--heal", is_flag=True, help="Carry again; without groups, on every link that is cut.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def partition(groups: tuple[str, ...], *, heal: bool, as_json: bool) -> None:
    """Cut every link between two groups of POPs, or between one and all the rest.

    A group is POPs and regions with commas between: `poplab partition eu`, `poplab partition iad,nrt fra`.
    """
    from netlab import faultlinks, sides
    from netlab.lab import Lab

    if len(groups) > 2 or not (groups or heal):
        fail("write one group or two, or --heal: poplab partition eu, poplab partition iad,nrt fra", USAGE)
    with _told_of_links():
        lab = Lab.running()
        members = [group.split(",") for group in groups]
        links = sides.crossing(lab.topology, *members) if groups else lab.wan.cuts()
        for origin, to in links:
            change = lab.wan.uncut if heal else lab.wan.cut
            change(origin, to, direction="there")
        faultlinks.settle(lab)
        done = "carry again" if heal else "are cut"
        pairs = sorted({tuple(sorted(pair)) for pair in links})
        if as_json:
            cut = [[origin, to] for origin, to in lab.wan.cuts()]
            click.echo(json.dumps({"schema_version": 1, "cut": cut}))
        else:
            click.echo(f"{len(pairs)} links {done}" + "".join(f"\n{one} - {other}" for one, other in pairs))
        if not heal:
            say(f"undo: poplab partition {' '.join(groups)} --heal")


def _show(wan: Any, one: str, other: str, *, as_json: bool) -> None:
    found = {way: wan.link_state(*way) for way in ((one, other), (other, one))}
    if as_json:
        ways = [state.as_dict() for state in found.values()]
        click.echo(json.dumps({"schema_version": 1, "directions": ways}, indent=1))
        return
    rtt_ms = sum(state.one_way_ms for state in found.values())
    planet_ms = sum(state.planet_one_way_ms for state in found.values())
    own = "" if rtt_ms == planet_ms else f", {planet_ms:g} on the planet"
    click.echo(f"{one} - {other}: RTT {rtt_ms:g} ms{own}")
    for (origin, to), state in found.items():
        click.echo(f"{origin} to {to}: {state.text()}")


@contextmanager
def _told_of_links() -> Iterator[None]:
    from netlab.wanhandle import WanRefusedError

    with told():
        try:
            yield
        except WanRefusedError as error:
            fail(str(error), FAILURE)
        except PermissionError:
            raise
        except OSError as error:
            fail(str(error), FAILURE)
