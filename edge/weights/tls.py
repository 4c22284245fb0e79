"""TLS between nodes that give each other blobs: both sides prove that they belong to the fleet.

Knows certificates as texts; who asks for what over the connection is not known here.
"""

import ssl
import tempfile
from pathlib import Path
from typing import NamedTuple


class Papers(NamedTuple):
    """The fleet's authority, and this node's certificate and key; PEM texts."""

    ca: str
    certificate: str
    key: str


def context(purpose: ssl.Purpose, papers: Papers) -> ssl.SSLContext:
    """TLS 1.3 that demands a certificate of the fleet from the other side.

    `purpose` is that other side: CLIENT_AUTH makes a server's context. A client also checks
    that the certificate names the node it meant. Raises ssl.SSLError for unusable papers.
    """
    serving = purpose is ssl.Purpose.CLIENT_AUTH
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if serving else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cadata=papers.ca)
    # The ssl module reads a key from a file only; this one exists for the length of the call.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        Path(file.name).chmod(0o600)
        file.write(papers.certificate + "\n" + papers.key)
        file.flush()
        made.load_cert_chain(file.name)
    return made
