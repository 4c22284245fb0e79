"""`poplab`: bring the planet up, look at it, stand in it, take it down.

stdout carries the data a command was asked for and nothing else; progress and errors go to
stderr. Exit codes: 0 ok, 1 failure, 2 usage, 3 a requirement is missing, 4 not found, 6 timeout,
130 interrupted. A command imports what it needs itself: `--help` does not wait for the netlink
library. It refuses to know how any of it is done.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from netlab import chaosverb, doctorverb, failverbs, linkverbs, mapverbs, names
from netlab.told import NOT_FOUND, USAGE, fail, say, told, told_of_changes

if TYPE_CHECKING:
    from netlab.lab import Lab


class _Main(click.Group):
    """Suggests what a mistyped command may have meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from netlab.topology import unknown

            raise click.UsageError(unknown(args[0], self.list_commands(ctx), "command"), ctx) from error


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The planet on this machine: POPs, cities and one anycast address.

    Exit codes: 0 ok, 1 failure, 2 usage, 3 missing requirement, 4 not found, 6 timeout, 130 interrupted.
    """


@main.command()
@click.option("-t", "--topology", "--planet", help="A planet's file, or a name of `poplab topologies`.")
@click.option("--models", type=click.Path(path_type=Path), help="The published models.")
@click.option("--bare", is_flag=True, help="Only the network: no nodes, no origin.")
@click.option("--wan-engine", type=click.Choice(["afpacket", "netem"]), default="afpacket", show_default=True)
def up(topology: str | None, models: Path | None, wan_engine: str, *, bare: bool) -> None:
    """Start the planet; does nothing when it runs already. Ends with what to try next."""
    from netlab import planetfile, start, view

    with told_of_changes():
        planet = planetfile.find(topology) if topology else planetfile.PLANET
        wish = start.Wish(
            planet=planet,
            models=models or start.MODELS,
            bare=bare,
            any_nodes=models is None,
            wan_engine=wan_engine,
        )
        lab, fresh = start.up(wish, say)
        if not fresh:
            say(f"the planet {lab.topology.name!r} runs already; `poplab status` shows it")
            dead = lab.dead()
            if dead:
                say(f"not alive: {', '.join(dead)}; `poplab heal` starts what is dead")
        say("\n" + view.status_text(lab.status()))
        if not bare:
            command = f"sudo {sys.argv[0]}" if "SUDO_UID" in os.environ else sys.argv[0]
            away = lab.topology.cities[-1].name
            say("\n" + view.next_text(str(lab.topology.vip4), away, command))


main.add_command(mapverbs.topologies)
main.add_command(mapverbs.map_verb)
for verb in (failverbs.fail_verb, failverbs.heal_verb, failverbs.faults_verb):
    main.add_command(verb)
main.add_command(doctorverb.doctor)
main.add_command(chaosverb.chaos)


@main.command()
def down() -> None:
    """Take the planet away: processes, namespaces, the host's link, every file."""
    from netlab import start, sweep

    with told_of_changes():
        swept = start.down()
        say(f"removed {sweep.remnants_text(swept)}" if swept else "there is no lab")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def status(*, as_json: bool) -> None:
    """What is up, and which POP serves whom."""
    from netlab import view
    from netlab.lab import Lab

    with told():
        found = Lab.running().status()
        click.echo(json.dumps(found, indent=1) if as_json else view.status_text(found))


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec(name: str, command: tuple[str, ...]) -> None:  # noqa: A001 -- the verb its users know
    """Run a command in a place: a node, a city, r-POP, wan, origin."""
    from netlab.lab import Lab

    with told():
        _become(Lab.running(), name, command)


@main.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    }
)
@click.option("--from", "city", required=True, help="The city whose user calls.")
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def curl(city: str, arguments: tuple[str, ...]) -> None:
    """Run curl as a user in a city; everything behind the city is curl's own."""
    from netlab.lab import Lab

    with told():
        lab = Lab.running()
        lab.topology.city(city)
        _become(lab, city, ("curl", *arguments))


def _become(lab: "Lab", name: str, command: Sequence[str]) -> NoReturn:
    """Turn this process into `command`, standing in that place."""
    from netlab import netns

    place = lab.place(name)
    command = command[1:] if command[0] == "--" else command
    if not command:
        fail("write what to run behind the --", USAGE)
    if shutil.which(command[0]) is None:
        fail(f"{command[0]}: no such program", NOT_FOUND)
    netns.enter(place)
    sys.stdout.flush()
    os.environ[names.VISITOR] = ""
    os.execvp(command[0], list(command))  # noqa: S606 -- no shell is the point


@main.command()
@click.argument("city")
def move(city: str) -> None:
    """Make this machine a user in another city."""
    from netlab.lab import Lab

    with told_of_changes():
        lab = Lab.running().move(city)
        served = lab.served_by(city)
        say(f"this machine is a user in {city} now, led to {served['v4'] or 'nobody'}")


@main.command()
@click.option("-f", "--follow", is_flag=True, help="Keep printing what is added.")
@click.argument("name", required=False)
def logs(name: str | None, *, follow: bool) -> None:
    """Print what the lab's programs wrote: all of them, or one."""
    from netlab import logbook, state
    from netlab.lab import NotRunningError
    from netlab.topology import unknown

    with told():
        files = logbook.files(state.logs())
        if not files:
            raise NotRunningError("no lab is running, so there are no logs; poplab up starts one")
        if name is not None:
            if name not in files:
                raise KeyError(unknown(name, list(files), "log"))
            files = {name: files[name]}
        logbook.show(files, click.echo, follow=follow)


main.add_command(linkverbs.link)
main.add_command(linkverbs.partition)


if __name__ == "__main__":
    main(prog_name="poplab")
