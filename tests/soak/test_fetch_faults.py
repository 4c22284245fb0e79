"""Ten thousand seeded faults of sources and of the disk, as in tests/service/test_fetch_faults.py."""

from pathlib import Path

from tests.support.storm import storm


def test_no_wrong_byte_in_ten_thousand_faults(tmp_path: Path) -> None:
    assert storm(tmp_path, 1_000, 10_000).total() >= 10_000
