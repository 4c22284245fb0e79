"""What every `poplab` command shares: one sentence and an exit code for all that can go wrong.

stdout carries data, this writes to stderr. It refuses to know any command.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

FAILURE, USAGE, MISSING, NOT_FOUND, TIMEOUT, INTERRUPTED = 1, 2, 3, 4, 6, 130


def say(text: str) -> None:
    """One line for the person, on stderr."""
    click.echo(text, err=True)


def fail(text: str, code: int) -> NoReturn:
    """The end of a command: why, and its exit code."""
    say(f"poplab: {text}")
    sys.exit(code)


@contextmanager
def told() -> Iterator[None]:
    """Translate what can go wrong into one sentence and an exit code."""
    from netlab.clock import DeadlineMissed
    from netlab.lab import NotRunningError
    from netlab.planetfile import TopologyError
    from netlab.state import BusyError
    from netlab.supervise import ProgramFailedError

    try:
        yield
    except NotRunningError as error:
        fail(str(error), NOT_FOUND)
    except KeyError as error:
        fail(str(error.args[0]), NOT_FOUND)
    except DeadlineMissed as error:
        fail(str(error), TIMEOUT)
    except PermissionError as error:
        fail(f"{error}; the lab belongs to root: run it with sudo", MISSING)
    except (TopologyError, ProgramFailedError, BusyError) as error:
        fail(str(error), FAILURE)
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)


@contextmanager
def told_of_changes() -> Iterator[None]:
    """As `told`, for the commands that change the network. SIGTERM counts as Ctrl-C.

    Who interrupts one is told what is left broken and what takes it back.
    """
    from netlab import apply, faultbook, start, sweep

    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    with told():
        try:
            yield
        except start.MissingError as error:
            fail(str(error), MISSING)
        except (start.RefusedError, apply.ApplyError, sweep.InsideError) as error:
            fail(str(error), FAILURE)
        except KeyboardInterrupt:
            left = [f"{fault.target} ({fault.how}): `{fault.remedy}`" for fault in faultbook.entries()]
            rest = f"; what is broken now, and what takes it back: {', '.join(left)}" if left else ""
            fail(f"interrupted{rest}", INTERRUPTED)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
