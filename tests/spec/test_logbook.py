"""`poplab logs`: what is printed of files that grow."""

from pathlib import Path

from netlab import logbook


def test_every_line_says_whose_it_is_when_there_are_several(tmp_path: Path) -> None:
    (tmp_path / "wan.log").write_text("ready\n")
    (tmp_path / "r-iad.bird.log").write_text("one\ntwo without an end")
    (tmp_path / "state.json").write_text("{}")
    seen: list[str] = []
    logbook.show(logbook.files(tmp_path), seen.append, follow=False)
    assert seen == ["r-iad.bird | one", "r-iad.bird | two without an end", "wan        | ready"]


def test_a_single_log_is_printed_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "wan.log").write_bytes(b"caf\xe9\n")
    seen: list[str] = []
    logbook.show(logbook.files(tmp_path), seen.append, follow=False)
    assert seen == ["caf\N{REPLACEMENT CHARACTER}"]


def test_no_directory_holds_no_logs(tmp_path: Path) -> None:
    assert logbook.files(tmp_path / "gone") == {}


def test_following_prints_whole_lines_until_the_logs_are_gone(tmp_path: Path) -> None:
    log = tmp_path / "wan.log"
    log.write_text("first\nhal")
    seen: list[str] = []

    def echo(line: str) -> None:
        seen.append(line)
        if line == "first":
            log.write_text("first\nhalf\n")
        elif line == "half":
            log.write_text("new\n")  # started again: shorter than what was read
        else:
            log.unlink()

    logbook.show(logbook.files(tmp_path), echo, follow=True)
    assert seen == ["first", "half", "new"]
