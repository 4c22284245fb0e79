"""The lab's certificate authority: one CA for a fleet, one short-lived certificate per node.

For the mesh's mutual TLS: a node's certificate serves and dials, named by its node name
and its addresses. Knows X.509 and files; refuses to know who uses the certificates. Not
an authority for anything but a lab: its key lies beside it.
"""

import ipaddress
import os
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from netlab.clock import wall_s

CA_FILE = "ca.pem"
CA_KEY_FILE = "ca.key"
CA_DAYS = 365
NODE_DAYS = 30
SKEW = timedelta(hours=2)
"""Certificates begin in the past: clocks of one fleet differ, and `poplab fail` sets one an hour back."""

_NODE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Ca:
    """An authority that can sign; `path` is the PEM file that verifiers load."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    path: Path


def write_ca(directory: Path, *, now: datetime | None = None) -> Ca:
    """The CA of `directory` (`ca.pem`, `ca.key` with mode 0600); made if absent.

    One that is broken, or that would end before a node certificate it signs, is replaced:
    what it signed is refused from then on. OSError if the directory can't be written.
    """
    now = now or _now()
    directory.mkdir(parents=True, exist_ok=True)
    found = _read_ca(directory)
    if found is not None and _serves(found.certificate, now):
        (directory / CA_KEY_FILE).chmod(0o600)
        return found
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgepop lab CA")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(directory / CA_KEY_FILE, _pem(key), 0o600)
    _write(directory / CA_FILE, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return Ca(certificate, key, directory / CA_FILE)


def issue(
    ca: Ca,
    node: str,
    addresses: list[str],
    directory: Path,
    *,
    now: datetime | None = None,
    days: int = NODE_DAYS,
) -> tuple[Path, Path]:
    """Write `<node>.pem` and `<node>.key` (mode 0600), good for both ends of mutual TLS.

    The names are DNS `node` and every address of `addresses` (IPv4 or IPv6 literals).
    ValueError for a node that is no DNS label or an address that is none.
    """
    if not _NODE.fullmatch(node):
        raise ValueError(f"node {node!r} is no DNS label; write a-z, 0-9 and -, at most 63")
    now = now or _now()
    names: list[x509.GeneralName] = [x509.DNSName(node)]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    key = ec.generate_private_key(ec.SECP256R1())
    both_ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]))
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both_ends), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    directory.mkdir(parents=True, exist_ok=True)
    paths = directory / f"{node}.pem", directory / f"{node}.key"
    _write(paths[1], _pem(key), 0o600)
    _write(paths[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return paths


def _now() -> datetime:
    return datetime.fromtimestamp(wall_s(), UTC)


def _read_ca(directory: Path) -> Ca | None:
    try:
        certificate = x509.load_pem_x509_certificate((directory / CA_FILE).read_bytes())
        key = serialization.load_pem_private_key((directory / CA_KEY_FILE).read_bytes(), None)
    except (FileNotFoundError, ValueError, TypeError):  # absent, torn, or locked with a password
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return Ca(certificate, key, directory / CA_FILE)


def _serves(certificate: x509.Certificate, now: datetime) -> bool:
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
    lasts = certificate.not_valid_after_utc >= now + timedelta(days=NODE_DAYS)
    return is_ca and certificate.not_valid_before_utc <= now and lasts


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace the file whole; nobody ever sees half of it, or a key with a wider mode."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
