"""Words on the command line: percentages, rates, and what does not go together."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from netlab import linkverbs

NOBODY: Any = None


@pytest.mark.parametrize(
    ("sentence", "text", "ratio"),
    [
        ("none given", None, None),
        ("nought", "0", 0.0),
        ("with its sign", "1%", 0.01),
        ("a fraction", "0.05%", 0.0005),
        ("everything", "100%", 1.0),
    ],
)
def test_percent(sentence: str, text: str | None, ratio: float | None) -> None:
    assert linkverbs.percent(NOBODY, NOBODY, text) == (ratio and pytest.approx(ratio)), sentence


@pytest.mark.parametrize("text", ["1", "0.01", "101%", "-1%", "%", "1 %", "nan%", "1e1%"])
def test_no_percentage(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write a percentage with its sign"):
        linkverbs.percent(NOBODY, NOBODY, text)


@pytest.mark.parametrize(
    ("text", "rate_bps"),
    [
        (None, None),
        ("0", 0),
        ("10mbit", 10_000_000),
        ("1.5Mbit", 1_500_000),
        ("800kbit", 800_000),
        ("1gbit", 10**9),
        ("9000bit", 9000),
    ],
)
def test_rate(text: str | None, rate_bps: int | None) -> None:
    assert linkverbs.rate(NOBODY, NOBODY, text) == rate_bps


@pytest.mark.parametrize("text", ["10", "10mb", "mbit", "-1mbit", "1e9bit", "10 mbit"])
def test_no_rate(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write a rate with its unit"):
        linkverbs.rate(NOBODY, NOBODY, text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["link", "iad", "fra", "--down", "--loss", "1%"],
            "write conditions, or one of --down, --up and --mend",
        ),
        (["link", "iad", "fra", "--mend", "--asym", "there"], "leave out --asym"),
        (["link", "iad", "fra", "--rate", "10"], "write a rate with its unit"),
        (["partition"], "write one group or two, or --heal"),
        (["partition", "a", "b", "c"], "write one group or two, or --heal"),
    ],
)
def test_usage(arguments: list[str], words: str) -> None:
    verb = {"link": linkverbs.link, "partition": linkverbs.partition}[arguments[0]]
    ended = CliRunner().invoke(verb, arguments[1:])
    assert ended.exit_code == 2
    assert words in ended.output
