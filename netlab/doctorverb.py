"""`poplab doctor`: what this machine lacks, and the command that gives it.

It only prints; what is looked at is in doctor.py, what is made of it in checks.py.
"""

import json
import sys

import click

from netlab.told import MISSING, told


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def doctor(*, as_json: bool) -> None:
    """Look at this machine and try what the lab does. Exit code 3 when something needed is missing."""
    from netlab import checks
    from netlab.doctor import diagnose

    with told():
        found = diagnose()
        click.echo(json.dumps(checks.as_json(found), indent=1) if as_json else checks.text(found))
    sys.exit(checks.exit_code(found, MISSING))
