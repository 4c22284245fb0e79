"""TLS of the mesh: version 1.3, and both sides prove that they belong to this fleet.

Who dials checks that the certificate names the node it meant (`Dialer` passes the node's name);
who listens learns the name with `named`. Knows nothing of what is then said.
"""

import asyncio
import ssl
import tempfile
from pathlib import Path

from edge.fleet.beacon import NAME


def tls_context(purpose: ssl.Purpose, *, ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """A TLS 1.3 context that demands a certificate of `ca` from the other side. Arguments are PEM text.

    Raises ssl.SSLError when one of them can't be read, or when the key is another certificate's.
    """
    context = ssl.SSLContext(
        ssl.PROTOCOL_TLS_SERVER if purpose is ssl.Purpose.CLIENT_AUTH else ssl.PROTOCOL_TLS_CLIENT
    )
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=ca)
    # The ssl module reads a key from a file only; this one exists for the length of the call.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        Path(file.name).chmod(0o600)
        file.write(certificate + "\n" + key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def named(transport: asyncio.BaseTransport) -> tuple[str, ...]:
    """The node names in the verified certificate of the other side; empty without a certificate."""
    certificate = transport.get_extra_info("peercert") or {}
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    return tuple([name for name in names if NAME.fullmatch(name)])
