"""Real S3 protocol servers as processes of their own: moto, which is strict, and localbucket, which is fast.

moto checks signatures and rights once `strict` is asked for; localbucket checks no credentials and knows
`If-None-Match: *` on writes, but no `If-Match`. Each starts with one empty bucket.
"""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from netlab.clock import wait_until
from tests.support.ports import free_port

BUCKET = "models"
#: moto finds the service by the scope of a signature; before it is strict, it looks at nothing else.
_SCOPE = (
    "AWS4-HMAC-SHA256 Credential=tests/20260101/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=0"
)
_ALL = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'


class Server(NamedTuple):
    """A running server with one bucket."""

    name: str
    endpoint: str
    environment: dict[str, str]

    @property
    def url(self) -> str:
        """The bucket as an origin."""
        return f"s3://{BUCKET}"

    def ask(self, method: str, path: str, body: bytes = b"", service: str = "s3") -> str:
        """One request without a signature that anybody could check."""
        headers = {"Authorization": _SCOPE.format(service)} if service else {"Content-Type": "text/plain"}
        if service == "iam":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        with contextlib.closing(HTTPConnection(self.endpoint.removeprefix("http://"), timeout=20)) as link:
            link.request(method, path, body, headers)
            answer = link.getresponse()
            told = answer.read().decode()
            assert answer.status < 300, f"{self.name} answers {method} {path}: {answer.status} {told}"
            return told


def _environment(endpoint: str, key: str = "tests", secret: str = "tests") -> dict[str, str]:  # noqa: S107 -- no secret
    return {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
    }


@contextlib.contextmanager
def _running(name: str, command: list[str], port: int, log: Path) -> Iterator[Server]:
    endpoint = f"http://127.0.0.1:{port}"
    server = Server(name, endpoint, _environment(endpoint))
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:

        def made() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                server.ask("PUT", f"/{BUCKET}")
            except OSError:
                return False
            return True

        wait_until(made, f"{name} has a bucket", within_s=60)
        yield server
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def localbucket(directory: Path) -> Iterator[Server]:
    """Fast: a folder behind threads."""
    port, data = free_port(), directory / "data"
    data.mkdir()
    program = str(Path(sys.executable).with_name("localbucket"))
    with _running(
        "localbucket", [program, "--port", str(port), str(data)], port, directory / "localbucket.log"
    ) as server:
        yield server


@contextlib.contextmanager
def moto(directory: Path, *, strict: bool = True) -> Iterator[Server]:
    """Strict: who asks must sign with the key of a user who may use the bucket."""
    port = free_port()
    program = str(Path(sys.executable).with_name("moto_server"))
    with _running("moto", [program, "-p", str(port)], port, directory / "moto.log") as server:
        if not strict:
            yield server
            return
        server.ask("POST", "/", b"Action=CreateUser&UserName=node&Version=2010-05-08", "iam")
        policy = f"Action=PutUserPolicy&UserName=node&PolicyName=all&PolicyDocument={_ALL}&Version=2010-05-08"
        server.ask("POST", "/", policy.encode(), "iam")
        told = server.ask("POST", "/", b"Action=CreateAccessKey&UserName=node&Version=2010-05-08", "iam")
        key, secret = (
            re.findall(f"<{tag}>(.*?)</{tag}>", told)[0] for tag in ("AccessKeyId", "SecretAccessKey")
        )
        server.ask("POST", "/moto-api/reset-auth", b"0", "")
        yield server._replace(environment=_environment(server.endpoint, key, secret))
