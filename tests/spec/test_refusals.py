"""Whatever the policy may refuse with, the client is told in a sentence."""

import re
from pathlib import Path

from edge.errors import Reason
from edge.policy import admission, route
from edge.proxy.handler import _SHED


def test_every_reason_to_refuse_has_its_sentence() -> None:
    text = "".join(Path(str(module.__file__)).read_text() for module in (route, admission))
    named = {Reason[name] for name in re.findall(r"\bReason\.([A-Z_]+)", text)}
    assert len(named) > 6
    assert named - _SHED.keys() == set()
