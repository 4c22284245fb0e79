"""Which running lab is not the one that is asked for, and what is said of it."""

from pathlib import Path

import msgspec
import pytest

from netlab import keeper, names, start, state

WISH = start.Wish(models=Path("/models"), program=("/env/bin/python", "-m", "edge.cli", "serve"))
THERE = state.State(
    phase="up",
    topology_file=str(WISH.planet),
    topology_text="",
    host_city="nyc",
    bare=False,
    program=WISH.program,
    models="/models",
)


@pytest.mark.parametrize(
    ("sentence", "there", "asked", "said"),
    [
        ("the same", {}, {}, ""),
        ("only the network is wanted", {}, {"bare": True}, ""),
        ("nodes are wanted", {"bare": True}, {}, "no nodes (--bare)"),
        ("other models", {}, {"models": Path("/mine")}, "its origin serves /models, not /mine"),
        ("another program", {"program": ("/bin/standin",)}, {}, "its nodes run `/bin/standin`"),
        ("another engine", {"wan_engine": "netem"}, {}, "carried by netem, not by afpacket"),
        ("another engine of a bare lab", {}, {"bare": True, "wan_engine": "netem"}, "not by netem"),
    ],
)
def test_what_differs(sentence: str, there: dict[str, object], asked: dict[str, object], said: str) -> None:
    found = start.differing(msgspec.structs.replace(THERE, **there), msgspec.structs.replace(WISH, **asked))
    assert said in found, sentence
    assert bool(said) == bool(found), sentence


def test_one_interpreter_has_several_names(tmp_path: Path) -> None:
    (tmp_path / "python3.9").touch()
    (tmp_path / "python").symlink_to("python3.9")
    (tmp_path / "python3").symlink_to("python")
    one, other = (start.interpreted((str(tmp_path / name), "-m", "x")) for name in ("python", "python3"))
    assert one == other
    assert start.interpreted((str(tmp_path / "python"), "-m", "y")) != one


def test_the_keeper_puts_the_same_back() -> None:
    before = msgspec.structs.replace(THERE, wan_engine="netem")
    wish = keeper._wish(before)
    assert (wish.wan_engine, str(wish.models), wish.program) == ("netem", before.models, before.program)


@pytest.mark.parametrize(
    ("space", "pid"),
    [
        (names.doctor(17), 17),
        (names.node("fra-a"), 0),
        (f"{names.PREFIX}doctor-who", 0),
        (names.router("iad"), 0),
    ],
)
def test_a_doctors_namespace_says_whose_it_is(space: str, pid: int) -> None:
    assert names.doctor_pid(space) == pid
