"""Every way to fail, those that take a while too, three times each: felt, told, healed."""

import pytest

from netlab import faultclock
from tests.support.faults import CASES, Case, once

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("lab")]

ROUNDS = 3


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_each_way_to_fail_is_felt_and_healed(case: Case) -> None:
    if case.how.startswith("clock"):
        try:
            faultclock.environment("+3600")
        except faultclock.NoClockError as error:
            pytest.skip(str(error))
    for _ in range(ROUNDS):
        once(case)
