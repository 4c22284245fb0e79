"""Ten planets with real nodes come and go, and the machine's network is what it was."""

import pytest

from netlab import start
from netlab.lab import Lab
from tests.support.lab import say
from tests.support.machine import snapshot

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("no_lab")]

CYCLES = 10
TEXT = "How do I reach the nearest GPU?"


def test_ten_cycles_leave_the_machine_as_it_was() -> None:
    before = snapshot()
    for _ in range(CYCLES):
        _, fresh = start.up(start.Wish(), say)
        assert fresh
        assert Lab.running().host.post("/run/minilm", TEXT).status == 200
        assert start.down()
        assert snapshot() == before
