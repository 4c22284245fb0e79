"""The lab's fixtures, and the order that needs the fewest labs."""

import pytest

from tests.support.lab import by_need, keeper, lab, narrow, network, no_lab, two_workers

__all__ = ["keeper", "lab", "narrow", "network", "no_lab", "two_workers"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    by_need(items)
