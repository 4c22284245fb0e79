"""The lab's authority, tried by real handshakes: who is let in, who is refused, and files' modes."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from netlab.ca import Ca, issue, write_ca

Pair = tuple[Path, Path]
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return write_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return write_ca(tmp_path_factory.mktemp("foreign"))


def context(side: ssl.Purpose, trusted: Ca, own: Pair | None) -> ssl.SSLContext:
    made = ssl.create_default_context(side, cafile=str(trusted.path))
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    if side is ssl.Purpose.CLIENT_AUTH:
        made.verify_mode = ssl.CERT_REQUIRED
    if own is not None:
        made.load_cert_chain(*map(str, own))
    return made


@contextlib.contextmanager
def listening(server: ssl.SSLContext, ends: list[str]) -> Iterator[tuple[str, int]]:
    """Accept one connection; `ends` gets the client's name, or why it was refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def accept() -> None:
            plain, _ = listener.accept()
            plain.settimeout(10)
            try:
                with server.wrap_socket(plain, server_side=True) as link:
                    subject = dict(part[0] for part in (link.getpeercert() or {})["subject"])  # type: ignore[misc]
                    ends.append(subject["commonName"])
                    link.sendall(b"welcome")
            except (ssl.SSLError, OSError) as error:
                ends.append(str(error))
                plain.close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()
        finally:
            thread.join()


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[str, str]:
    """What each end says of the other: (server's word, client's word)."""
    ends: list[str] = []
    with listening(server, ends) as address, socket.create_connection(address, timeout=10) as plain:
        try:
            with client.wrap_socket(plain, server_hostname=name) as link:
                said = link.recv(16).decode() or "closed"
        except (ssl.SSLError, OSError) as error:
            said = str(error)
    return ends[0], said


def server_of(trusted: Ca, own: Pair) -> ssl.SSLContext:
    return context(ssl.Purpose.CLIENT_AUTH, trusted, own)


def client_of(trusted: Ca, own: Pair | None) -> ssl.SSLContext:
    return context(ssl.Purpose.SERVER_AUTH, trusted, own)


@pytest.fixture(scope="module")
def iad(ca: Ca, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return issue(ca, "iad-a", ["10.1.0.2", "fd00::2", "127.0.0.1"], tmp_path_factory.mktemp("iad"))


@pytest.fixture(scope="module")
def fra(ca: Ca, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return issue(ca, "fra-a", ["10.2.0.2"], tmp_path_factory.mktemp("fra"))


@pytest.mark.parametrize("name", ["iad-a", "10.1.0.2", "fd00::2", "127.0.0.1"])
def test_two_nodes_of_a_fleet_meet(ca: Ca, iad: Pair, fra: Pair, name: str) -> None:
    assert shake(server_of(ca, iad), client_of(ca, fra), name) == ("fra-a", "welcome")


def test_either_end_may_dial(ca: Ca, iad: Pair, fra: Pair) -> None:
    assert shake(server_of(ca, fra), client_of(ca, iad), "fra-a") == ("iad-a", "welcome")


def test_a_name_that_is_not_in_the_certificate_is_refused(ca: Ca, iad: Pair, fra: Pair) -> None:
    _, said = shake(server_of(ca, iad), client_of(ca, fra), "fra-a")
    assert "Hostname mismatch" in said


def test_a_client_of_a_foreign_authority_is_refused(ca: Ca, foreign: Ca, iad: Pair, tmp_path: Path) -> None:
    stranger = issue(foreign, "fra-a", ["10.2.0.2"], tmp_path)
    server, client = shake(server_of(ca, iad), client_of(ca, stranger), "iad-a")
    assert "CERTIFICATE_VERIFY_FAILED" in server
    assert "welcome" not in client


def test_a_server_of_a_foreign_authority_is_refused(ca: Ca, foreign: Ca, fra: Pair, tmp_path: Path) -> None:
    stranger = issue(foreign, "iad-a", ["10.1.0.2"], tmp_path)
    _, client = shake(server_of(ca, stranger), client_of(ca, fra), "iad-a")
    assert "CERTIFICATE_VERIFY_FAILED" in client


def test_a_client_without_certificate_is_refused(ca: Ca, iad: Pair) -> None:
    server, client = shake(server_of(ca, iad), client_of(ca, None), "iad-a")
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in server
    assert "welcome" not in client


def test_an_expired_certificate_is_refused_at_both_ends(ca: Ca, iad: Pair, fra: Pair, tmp_path: Path) -> None:
    old = issue(ca, "old", [], tmp_path, now=NOW - timedelta(days=31))
    server, _ = shake(server_of(ca, iad), client_of(ca, old), "iad-a")
    _, client = shake(server_of(ca, old), client_of(ca, fra), "old")
    assert "expired" in server
    assert "expired" in client


def test_a_node_certificate_signs_nobody(ca: Ca, iad: Pair) -> None:
    certificate = x509.load_pem_x509_certificate(iad[0].read_bytes())
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_after_utc - NOW < timedelta(days=31)
    assert certificate.not_valid_after_utc <= ca.certificate.not_valid_after_utc


def test_keys_are_for_their_owner_alone(ca: Ca, iad: Pair) -> None:
    keys = [ca.path.with_name("ca.key"), iad[1]]
    assert [key.stat().st_mode & 0o777 for key in keys] == [0o600, 0o600]
    assert sorted(path.name for path in ca.path.parent.iterdir()) == ["ca.key", "ca.pem"]


def test_an_authority_is_kept_while_it_serves(tmp_path: Path) -> None:
    first = write_ca(tmp_path)
    (tmp_path / "ca.key").chmod(0o644)
    second = write_ca(tmp_path)
    assert second.certificate == first.certificate
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600


def spoil_key(directory: Path) -> None:
    (directory / "ca.key").write_text("no key")


def swap_key(directory: Path) -> None:
    other = directory / "other"
    write_ca(other)
    (other / "ca.key").replace(directory / "ca.key")


def drop_certificate(directory: Path) -> None:
    (directory / "ca.pem").unlink()


def put_leaf(directory: Path) -> None:
    certificate, key = issue(write_ca(directory), "leaf", [], directory, days=300)
    certificate.replace(directory / "ca.pem")
    key.replace(directory / "ca.key")


@pytest.mark.parametrize("spoil", [spoil_key, swap_key, drop_certificate, put_leaf])
def test_a_broken_authority_is_replaced_by_one_that_works(tmp_path: Path, spoil: object) -> None:
    first = write_ca(tmp_path)
    assert callable(spoil)
    spoil(tmp_path)
    second = write_ca(tmp_path)
    assert second.certificate != first.certificate
    own = issue(second, "n", [], tmp_path)
    assert shake(server_of(second, own), client_of(second, own), "n") == ("n", "welcome")


def test_an_authority_that_would_end_before_what_it_signs_is_replaced(tmp_path: Path) -> None:
    first = write_ca(tmp_path, now=NOW - timedelta(days=340))
    second = write_ca(tmp_path)
    assert second.certificate != first.certificate


@pytest.mark.parametrize("node", ["", "Iad", "../x", "a.b", "-a", "x" * 64])
def test_a_node_name_that_is_none(ca: Ca, tmp_path: Path, node: str) -> None:
    with pytest.raises(ValueError, match="is no DNS label"):
        issue(ca, node, [], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_is_none(ca: Ca, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'here'"):
        issue(ca, "n", ["here"], tmp_path)
