"""Every way in which a POP, or a way to it, can die, ten times each, over IPv4 and IPv6, within its bound."""

import pytest

from netlab.lab import Lab
from tests.support.deaths import DEATHS, Death
from tests.support.waits import once

pytestmark = pytest.mark.soak

ROUNDS = 10


@pytest.mark.parametrize("death", DEATHS, ids=[death.name for death in DEATHS])
def test_clients_wait_no_longer_than_promised(lab: Lab, death: Death) -> None:
    waits = [waited for _ in range(ROUNDS) for waited in once(death).waits]
    allowed_ms = death.allowed_ms(lab)
    late = [waited for waited in waits if waited.after_ms is None or waited.after_ms > allowed_ms]
    assert late == [], f"{death.sentence}: at most {allowed_ms:.0f} ms"
