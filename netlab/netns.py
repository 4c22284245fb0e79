"""Network namespaces by name: make, enter, list, drop. Linux, root.

A thread enters a namespace, does one thing and ends; the process itself stays where it is. (A
child process per namespace costs 6 to 12 ms, a thread 1 to 2.) Names stand in /run/netns, so
that `ip netns` sees them too. It refuses to know what lies inside.
"""

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from netlab.names import PREFIX

RUN: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x4000_0000
_MS_BIND, _MS_REC, _MS_SHARED, _MNT_DETACH = 0x1000, 0x4000, 1 << 20, 2
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that dies with the namespace it entered; its exception is raised here."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 -- carried to the caller whole
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    try:
        thread.join()
    except BaseException:
        thread.join()  # Ctrl-C: what it was doing must be over before anybody cleans up behind it
        raise
    if errors:
        raise errors[0]
    return results[0]


def path_of(name: str) -> Path:
    """The file that stands for the namespace; the empty name is this process's own."""
    return RUN / name if name else Path("/proc/self/ns/net")


def enter(name: str) -> None:
    """Put the calling thread (or a process with one thread) into the namespace, for good."""
    descriptor = os.open(path_of(name), os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", descriptor, _CLONE_NEWNET)
    finally:
        os.close(descriptor)


def inside(name: str, work: Callable[[], T]) -> T:
    """`work()` done in the namespace. Sockets and processes that it makes stay there."""
    if not name:
        return work()

    def body() -> T:
        enter(name)
        return work()

    return _in_thread(body)


def missing() -> str:
    """Why this process may not make namespaces, in one sentence; empty when it may."""
    try:
        _in_thread(lambda: _call("unshare", _CLONE_NEWNET))
    except OSError as error:
        why = os.strerror(error.errno or 0)
        return f"no network namespace can be made here ({why}): in a container, run it with --privileged"
    return ""


def create(name: str, prepare: Callable[[], None]) -> None:
    """Make a namespace and name it; `prepare` runs inside it before it can be seen by anybody.

    Raises FileExistsError when the name is taken.
    """
    _ready_directory()

    def body() -> None:
        _call("unshare", _CLONE_NEWNET)
        prepare()
        target = path_of(name)
        os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0))
        own = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        try:
            _call("mount", own.encode(), str(target).encode(), b"none", _MS_BIND, None)
        except OSError:
            target.unlink()
            raise

    _in_thread(body)


def _ready_directory() -> None:
    """/run/netns as `ip netns` wants it: a shared mount, so that other mount namespaces follow."""
    RUN.mkdir(parents=True, exist_ok=True)
    where = str(RUN).encode()
    share = (b"", where, b"none", _MS_SHARED | _MS_REC, None)
    try:
        _call("mount", *share)
    except OSError as error:
        # Not a mount point yet. Asking the kernel is the only sound test: os.path.ismount does not see
        # a directory bound onto itself, and binding it again for each namespace doubles all mounts.
        if error.errno != errno.EINVAL:
            raise
        _call("mount", where, where, b"none", _MS_BIND | _MS_REC, None)
        _call("mount", *share)


def drop(name: str) -> None:
    """Take the name away; the kernel frees the namespace when nobody is in it any more."""
    target = path_of(name)
    try:
        while True:
            _call("umount2", str(target).encode(), _MNT_DETACH)
    except OSError:
        target.unlink(missing_ok=True)


def names() -> list[str]:
    """Namespaces whose name starts with our prefix; whether they are ours, their tag says."""
    if not RUN.is_dir():
        return []
    return sorted(entry.name for entry in RUN.iterdir() if entry.name.startswith(PREFIX))


def inode(name: str) -> int:
    """What /proc/PID/ns/net of a process in this namespace shows. Raises FileNotFoundError."""
    return path_of(name).stat().st_ino


def is_namespace(name: str) -> bool:
    """Whether the file really stands for a namespace (a crash can leave a bare file)."""
    try:
        return path_of(name).stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False
