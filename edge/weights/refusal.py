"""What an object store's own word for a refusal means to whoever has to mend it.

Pure: the text of an error in, a sentence out. S3 puts the word into <Code>; Azure and GCS answer alike.
Knows no library and no path.
"""

import re
from typing import Final

_CODE: Final = re.compile(r"<Code>\s*([A-Za-z0-9.]{1,64})\s*</Code>")
_SAID: Final = re.compile(r"<Message>\s*([^<]{1,160})")
#: What the library says before the reason: method, address, and how long it took, never the same twice.
_PREFACE: Final = re.compile(
    r"^.{0,80}?Error performing [A-Z]+ .{1,600}? in [0-9.]+[a-zµ]+(?:, after .{1,80}?)? - "
)
#: How the library's TLS calls a certificate that it does not take, at the end of a long text.
_CERTIFICATE: Final = re.compile(r"InvalidCertificate\(\s*([A-Za-z]+)")
_NO_REGION: Final = "incorrectly configured region"

_REGION: Final = "set AWS_REGION to the bucket's region"
_EXPIRED: Final = "its credentials have expired, renew them"
_UNKNOWN: Final = "check its credentials"
_CURES: Final = {
    "AccessDenied": (
        "check its credentials and their rights; who may not list a bucket is told this of what is not "
        "there, too"
    ),
    "AuthenticationFailed": _UNKNOWN,
    "AuthorizationHeaderMalformed": _REGION,
    "ExpiredToken": _EXPIRED,
    "IllegalLocationConstraintException": _REGION,
    "InvalidAccessKeyId": _UNKNOWN,
    "InvalidToken": _EXPIRED,
    "PermanentRedirect": _REGION,
    "RequestTimeTooSkewed": "set the clock of this machine",
    "SignatureDoesNotMatch": _UNKNOWN,
    "TokenRefreshRequired": _EXPIRED,
}
_CERTIFICATES: Final = {
    "Expired": "; renew it, or set the clock of this machine",
    "NotValidForName": "; the origin's URL must have a name that is in it",
    "NotValidYet": "; set the clock of this machine",
    "UnknownIssuer": "; name a file with its authority in SSL_CERT_FILE and start anew",
}


def code(error: str) -> str:
    """The store's word for it; empty if it said none."""
    found = _CODE.search(error)
    return found[1] if found else ""


def cure(error: str) -> str:
    """What helps, and in brackets what the store said; empty where another try may be all that is needed."""
    word = code(error)
    if word in _CURES:
        return f"{_CURES[word]} ({_said(error)})"
    return _REGION if not word and _NO_REGION in error else ""


def reason(error: str) -> str:
    """In one line: what the store said, or the first line as the library has it."""
    if bad := _CERTIFICATE.search(error):
        word = bad[1].removesuffix("Context")
        return f"its certificate is refused ({word})" + _CERTIFICATES.get(word, "")
    return _said(error) or _PREFACE.sub("", error.partition("\n")[0])[:200]


def _said(error: str) -> str:
    sentence = _SAID.search(error)
    word = code(error)
    return f"{word}: {sentence[1].strip()}" if word and sentence else word
