"""Whether a run of pytest showed what it was started for: something passed, and nothing was left out.

pytest ends well with every test skipped, where a planet has no models or no libfaketime. Pure.
"""

import re
from typing import Final

_ALL: Final = re.compile(r"[1-9]\d* passed in [\d.]+s.*")


def left_out(stdout: str) -> str:
    """Nothing where all of the run's tests passed, else its last line."""
    last = (stdout.strip().splitlines() or ["it said nothing"])[-1].strip("= ")
    return "" if _ALL.fullmatch(last) else last
