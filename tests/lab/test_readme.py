"""The README's shell blocks, run as a reader would: in the checkout, on this machine, against the lab.

The comment lines under a command are what it should print. Numbers may differ and `...` stands for
anything; of a response's head every named field must be there, and where its value can't vary it
must be that one.
"""

import re
import subprocess
from collections.abc import Iterator

import pytest

from netlab.lab import Lab
from tests.support.lab import REPO, poplab

pytestmark = pytest.mark.lab

BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (REPO / "README.md").read_text(), re.MULTILINE | re.DOTALL)
SAME = {"Edge-Pop", "Edge-Served-By", "Edge-Drop-Reason"}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


@pytest.fixture(autouse=True)
def in_new_york(lab: Lab) -> Iterator[None]:
    """This machine is where the README begins, and is there again afterwards."""
    moved = poplab("move", "nyc")
    assert moved.returncode == 0, moved.stderr
    assert lab.host.source() == str(lab.topology.host.host4), "nothing may leave this machine"
    yield
    poplab("move", "nyc")


def parts(block: str) -> tuple[str, list[str]]:
    """(what to type, what it prints)"""
    lines = block.splitlines()
    command = "\n".join(line for line in lines if not line.startswith("#"))
    return command, [line.removeprefix("#").removeprefix(" ") for line in lines if line.startswith("#")]


def pattern(line: str) -> re.Pattern[str]:
    """The line with any number for a number and anything for `...`."""
    pieces = []
    for part in line.split("..."):
        found = [re.escape(text) for text in NUMBER.split(part)]
        pieces.append(NUMBER.pattern.join(found))
    return re.compile(".*".join(pieces))


def check_head(told: list[str], printed: list[str]) -> None:
    assert printed[0] == told[0]
    fields = dict(line.split(": ", 1) for line in printed[1:])
    for line in told[1:]:
        name, value = line.split(": ", 1)
        assert name in fields, f"{name} is not among {sorted(fields)}"
        if name in SAME:
            assert fields[name] == value


def check(told: list[str], printed: list[str]) -> None:
    if told[0].startswith("HTTP/"):
        cut = told.index("") if "" in told else len(told)
        end = printed.index("")
        check_head(told[:cut], printed[:end])
        told, printed = told[cut + 1 :], printed[end + 1 :]
    for number, line in enumerate(told):
        assert number < len(printed), f"{line!r} was not printed"
        assert pattern(line).fullmatch(printed[number]), f"{printed[number][:200]!r} is not {line!r}"


@pytest.mark.parametrize("block", BLOCKS, ids=[parts(block)[0].splitlines()[0][:60] for block in BLOCKS])
def test_the_readme_says_what_happens(block: str) -> None:
    command, told = parts(block)
    assert told, "a block without the answer teaches nothing"
    done = subprocess.run(
        ["sh", "-ec", command], cwd=REPO, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    check(told, done.stdout.splitlines())


def test_five_curls_are_five() -> None:
    before, _, after = (REPO / "README.md").read_text().partition("\n## Break it and watch\n")
    assert (before.count("```sh\n"), after.count("```sh\n")) == (5, len(BLOCKS) - 5)
