"""The lab's fixtures, as in tests/lab."""

import pytest

from tests.support.lab import by_need, keeper, lab, network, no_lab

__all__ = ["keeper", "lab", "network", "no_lab"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    by_need(items)
