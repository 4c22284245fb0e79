"""Ask a running BIRD over its control socket: text in, text out.

It refuses to know the configuration (bird.py writes it) and where the daemon runs: a UNIX socket
does not care about network namespaces.
"""

import re
import socket
from pathlib import Path
from typing import Final

_LAST_LINE: Final = re.compile(rb"^(\d{4}) ", re.MULTILINE)
MAX_REPLY_BYTES: Final = 1 << 20


class BirdError(Exception):
    """BIRD can't be asked, or refused; the text is its own."""


def ask(control: Path, command: str, timeout_s: float = 2.0) -> list[str]:
    """The lines of BIRD's answer without their codes. Raises BirdError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
            wire.settimeout(timeout_s)
            wire.connect(str(control))
            _reply(wire)
            wire.sendall(command.encode() + b"\n")
            lines = _reply(wire)
    except OSError as error:
        raise BirdError(f"{control}: {error}") from error
    code = lines[-1][:4]
    if code[0] in "89":
        raise BirdError(f"{command}: {lines[-1][5:]}")
    return [line[5:] if line[:4].isdigit() else line[1:] for line in lines if line[5:].strip()]


def _reply(wire: socket.socket) -> list[str]:
    """One reply: it ends with a line whose code is followed by a space."""
    data = b""
    while True:
        more = wire.recv(65536)
        if not more:
            raise OSError("closed in the middle of an answer")
        data += more
        if len(data) > MAX_REPLY_BYTES:
            raise OSError(f"an answer above {MAX_REPLY_BYTES} bytes")
        if data.endswith(b"\n") and _LAST_LINE.match(data.rstrip(b"\n").rsplit(b"\n", 1)[-1]):
            return data.decode(errors="replace").splitlines()


def sessions(control: Path) -> dict[str, bool]:
    """Each BGP session of a daemon and whether it is established. Raises BirdError."""
    found = {}
    for line in ask(control, "show protocols"):
        words = line.split()
        if len(words) > 3 and words[1] == "BGP":
            found[words[0]] = "Established" in words
    return found
