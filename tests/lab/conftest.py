"""The lab's fixtures, and the order that needs the fewest labs."""

import pytest

from tests.support.lab import by_need, keeper, lab, narrow, network, no_lab, three

__all__ = ["keeper", "lab", "narrow", "network", "no_lab", "three"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    by_need(items)
