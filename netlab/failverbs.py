"""`poplab fail`, `heal` and `faults`: what can be broken, break it, mend it, see what is broken.

stdout carries the data, stderr what is told meanwhile. It refuses to know how any of it is done.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import click

from netlab.told import FAILURE, MISSING, fail, say, told, told_of_changes


@click.command("fail")
@click.argument("target", nargs=-1)
@click.option("--how", metavar="HOW", help="In which way; --list shows what fits a target.")
@click.option("--list", "as_list", is_flag=True, help="Show what can be broken, and how.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def fail_verb(target: tuple[str, ...], how: str | None, *, as_list: bool, as_json: bool) -> None:
    """Break TARGET: a node (fra-a), a part (fra-a/worker, r-fra/bird), redis/eu, origin, a link (iad-fra)."""
    from netlab import faults, faulttarget, faulttext
    from netlab.lab import Lab

    with _told():
        if as_list:
            _show_ways(target, as_json=as_json)
            return
        if not target:
            raise click.UsageError(
                "write what to break, as in poplab fail fra-a --how kill; --list shows all"
            )
        lab = Lab.running()
        if how is None:
            kind = faulttarget.parse(target, lab.topology).kind
            raise click.UsageError(f"write --how {' or '.join(way.how for way in faults.ways(kind))}")
        broken = lab.fail(target, how)
        if as_json:
            click.echo(json.dumps(faulttext.fault_values(broken.fault), indent=1))
        else:
            say(str(broken))
            say(f"users see: {broken.fault.way.seen}")


@click.command("heal")
@click.argument("target", nargs=-1)
@click.option("--within", "within_s", default=90.0, show_default=True, help="Seconds until it must be well.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def heal_verb(target: tuple[str, ...], within_s: float, *, as_json: bool) -> None:
    """Undo what was done to TARGET, or everything (all, or nothing written), and wait until all is well."""
    from netlab import clock, faultrun, faulttext
    from netlab.lab import Lab

    with _told():
        began_s = clock.now_s()
        undone = faultrun.heal(Lab.running(), target or "all", within_s=within_s, say=say)
        took_s = clock.now_s() - began_s
        left = Lab.running().faults()
        if as_json:
            found = {
                "schema_version": 1,
                "healed": [faulttext.fault_values(fault) for fault in undone],
                "broken": [faulttext.fault_values(fault) for fault in left],
                "took_s": round(took_s, 3),
            }
            click.echo(json.dumps(found, indent=1))
            return
        what = (
            f"{len(undone)} fault{'' if len(undone) == 1 else 's'} undone" if undone else "nothing was broken"
        )
        rest = f"still broken: {', '.join(f.target for f in left)}" if left else "the planet is well"
        say(f"{what} in {took_s:.1f} s; {rest}")


@click.command("faults")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def faults_verb(*, as_json: bool) -> None:
    """What is broken on purpose now, and what takes it back."""
    from netlab import clock, faultlinks, faulttext
    from netlab.lab import Lab

    with told():
        lab = Lab.running()
        broken, links = lab.faults(), faultlinks.unbooked(lab)
        if as_json:
            found = {
                "schema_version": 1,
                "faults": [faulttext.fault_values(fault) for fault in broken],
                "links": [link.as_dict() for link in links],
            }
            click.echo(json.dumps(found, indent=1))
        else:
            click.echo(faulttext.broken_text(broken, links, clock.wall_s()))


@contextmanager
def _told() -> Iterator[None]:
    """As `told_of_changes`, with what only breaking and healing can meet."""
    from netlab import faultclock, faultrun

    with told_of_changes():
        try:
            yield
        except faultclock.NoClockError as error:
            fail(str(error), MISSING)
        except faultrun.FaultError as error:
            fail(str(error), FAILURE)


def _show_ways(target: tuple[str, ...], *, as_json: bool) -> None:
    from netlab import faults, faulttarget, faulttext
    from netlab.lab import Lab

    ways = faults.WAYS
    if target and target[0] not in faults.KINDS:
        ways = faults.ways(faulttarget.parse(target, Lab.running().topology).kind)
    elif target:
        ways = tuple(way for way in ways if way.kind == target[0])
    if as_json:
        import msgspec

        found = {"schema_version": 1, "ways": [msgspec.structs.asdict(way) for way in ways]}
        click.echo(json.dumps(found, indent=1))
    else:
        click.echo(faulttext.ways_text(ways))
