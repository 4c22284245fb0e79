"""A thousand seeded faults of sources and of the disk: not one wrong byte, and only bad chunks come again."""

from pathlib import Path

from tests.support.storm import storm


def test_no_wrong_byte_and_only_bad_chunks_again(tmp_path: Path) -> None:
    assert storm(tmp_path, 1, 1_000).total() >= 1_000
