"""What a process says: one JSON object per line on stderr, the same keys everywhere.

SIGUSR1 makes a running process say everything (`debug`), SIGUSR2 as much as its file says again, and
at most `info`.
"""

import logging
import signal
import sys
from typing import Any, Final

import msgspec

from edge import clock

MORE_OR_LESS: Final = (signal.SIGUSR1, signal.SIGUSR2)
_encode = msgspec.json.Encoder().encode
_RECORD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object per record: ts, level, who, event, and whatever `extra` holds."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, Any] = {
            "ts": round(clock.wall_s(), 3),
            "level": record.levelname.lower(),
            "who": self._who,
            "event": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _RECORD_FIELDS})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return _encode(line).decode()
        except TypeError:
            return _encode({key: str(value) for key, value in line.items()}).decode()


def log_to_stderr(who: str, level: str) -> None:
    """Make the root logger write JSON lines to stderr; `who` is node and role, as in "iad-a/proxy"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(who))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for number in MORE_OR_LESS:
        signal.signal(number, lambda number, _: logging.getLogger().setLevel(level_for(number, level)))


def level_for(number: int, configured: str) -> str:
    """The level that a signal asks for."""
    if number == signal.SIGUSR1:
        return "DEBUG"
    return "INFO" if configured.upper() == "DEBUG" else configured.upper()
