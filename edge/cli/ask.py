"""One HTTP call over a UNIX socket, for the commands that talk to a running node."""

import http.client
import json
import socket
from typing import Any, Final

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024


class AskError(Exception):
    """The node answered, but not with what was asked for."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the path instead of host and port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(socket_path: str, method: str, path: str, body: Any = None, *, timeout_s: float) -> Any:
    """The JSON of a 200 answer; `body` is sent as JSON, None for none.

    Raises AskError for another status or no JSON, TimeoutError, and OSError of the socket.
    """
    connection = _UnixConnection(socket_path, timeout_s)
    try:
        raw_body = None if body is None else json.dumps(body).encode()
        connection.request(method, path, raw_body, {"Accept": "application/json"})
        response = connection.getresponse()
        raw = response.read(MAX_ANSWER_BYTES)
        status = response.status
    except http.client.HTTPException as error:
        raise AskError(f"{socket_path} does not speak HTTP: {error!r}", 0) from error
    finally:
        connection.close()
    try:
        answer = json.loads(raw)
    except ValueError as error:
        raise AskError(f"{method} {path}: status {status} without JSON", status) from error
    if status != 200:
        problem = answer.get("error", "") if isinstance(answer, dict) else ""
        raise AskError(f"{method} {path}: {problem or 'refused'} (status {status})", status)
    return answer
