"""What each child is told when it starts, and with which rights.

The parent reads certificates, keys and tokens as itself and hands over their content, so
that no child needs a right to read them. The fields are those of the boot structs that
the roles define; the parent does not import the roles.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

import edge
from edge import clock
from edge.config import NodeConfig, size_bytes
from edge.parent.jail import Cell
from edge.parent.sockets import Listeners

MAX_SECRET_BYTES: Final = 1024 * 1024
MIN_TOKEN_CHARS: Final = 16
#: Any child may take this long to end in order; the proxy has drain's times beside it.
GRACE_S: Final = 4.0
#: Where this very code lies; children start with it as their only extra path.
CODE_ROOT: Final = str(Path(edge.__file__).resolve().parent.parent)
#: A proxy or a worker has no business with the operator's environment; an origin's credentials are in it.
#: A library that is to be loaded first (another malloc, a false clock) is the operator's word to all of them.
_HARMLESS: Final = (
    *("PATH", "LANG", "LC_", "TZ", "LD_LIBRARY_PATH", "CUDA_", "NVIDIA_", "OMP_", "MALLOC_"),
    *("LD_PRELOAD", "FAKETIME", "DONT_FAKE_"),
)


class BootError(Exception):
    """A file that the node needs at start can't be used; the text names setting, file and remedy."""


@dataclass(frozen=True)
class Role:
    """One child to be: its name is the role and, for workers, an index.

    `boot` makes its boot struct's fields, given the number of its fd to the parent. It has
    `grace_s` to end when asked. With `overlap` a new process may run beside one that ends.
    """

    role: str
    name: str
    cell: Cell
    fds: tuple[int, ...]
    environment: dict[str, str]
    silent_ms: float
    grace_s: float
    boot: Callable[[int], dict[str, Any]]
    overlap: bool = False


def envelope(role: Role, log_level: str, parent_fd: int) -> bytes:
    """The bytes that edge/parent/child.py reads."""
    return msgspec.msgpack.encode({"cell": role.cell, "log_level": log_level, "boot": role.boot(parent_fd)})


def plan_roles(config: NodeConfig, listeners: Listeners, drained: Callable[[], bool]) -> list[Role]:
    """All children of a node: weights first, the proxy last; their secrets are read now. Raises BootError.

    A proxy that starts is told whether the node is `drained` at that moment.
    """
    mesh = _mesh_secrets(config)
    roles = [_weights(config, listeners, mesh)]
    roles.extend(
        _worker(config, index, listeners.workers[index].fileno()) for index in range(len(config.workers))
    )
    roles.append(_proxy(config, listeners, mesh, drained))
    return roles


def _mesh_secrets(config: NodeConfig) -> dict[str, str]:
    mesh = config.mesh
    return {
        "mesh_ca": _secret("mesh.ca", mesh.ca) if mesh else "",
        "mesh_certificate": _secret("mesh.certificate", mesh.certificate) if mesh else "",
        "mesh_key": _secret("mesh.key", mesh.key) if mesh else "",
    }


def _weights(config: NodeConfig, listeners: Listeners, mesh: dict[str, str]) -> Role:
    if listeners.weights is None:
        raise ValueError("the listeners are not open")
    store = config.weights.store
    listen_fd = listeners.weights.fileno()
    blobs_fd = listeners.blobs.fileno() if listeners.blobs else None
    password = _password(config)
    return Role(
        role="weights",
        name="weights",
        cell=Cell(config.users.weights, network=True, readable=(store, *_origin_paths(config)), umask=0o022),
        fds=(listen_fd, *(() if blobs_fd is None else (blobs_fd,))),
        environment={**os.environ, "PYTHONPATH": CODE_ROOT},
        silent_ms=15_000.0,
        grace_s=GRACE_S,
        boot=lambda parent_fd: {
            "node": config.node,
            "region": config.region,
            "boot": secrets.token_hex(8),
            "weights": config.weights,
            "listen_fd": listen_fd,
            "blobs_fd": blobs_fd,
            "parent_fd": parent_fd,
            "index_password": password,
            **mesh,
        },
    )


def _worker(config: NodeConfig, index: int, fd: int) -> Role:
    worker = config.workers[index]
    memory = size_bytes(worker.memory_bytes) if worker.memory_bytes and worker.device == "cpu" else 0
    cache_dir = str(_cache_dir(config, index))
    return Role(
        role="worker",
        name=f"worker-{index}",
        cell=Cell(
            config.users.worker,
            network=False,
            readable=(config.weights.store, cache_dir),
            data_bytes=memory,
        ),
        fds=(fd,),
        # ONNX Runtime would otherwise look for a place and a network to send its telemetry.
        environment={**_harmless_environment(), "ORT_DISABLE_TELEMETRY": "1"},
        silent_ms=15_000.0,
        grace_s=GRACE_S,
        boot=lambda parent_fd: {
            "index": index,
            "worker": worker,
            "blobs_dir": str(Path(config.weights.store) / "blobs"),
            "listen_fd": fd,
            "parent_fd": parent_fd,
            "max_body_bytes": config.public.limits.max_body_bytes,
            "served_by": f"{config.node}/{index}",
            "cache_dir": cache_dir,
        },
    )


def _proxy(
    config: NodeConfig, listeners: Listeners, mesh: dict[str, str], drained: Callable[[], bool]
) -> Role:
    token = _token(config)
    keys_file = config.public.keys_file
    keys_text = _secret("public.keys_file", keys_file, "utf-8") if keys_file else ""
    public = [listener.fileno() for listener in listeners.public]
    mesh_fd = listeners.mesh.fileno() if listeners.mesh else None
    admin = [listener.fileno() for listener in listeners.admin]
    run_dir = Path(config.run_dir)
    return Role(
        role="proxy",
        name="proxy",
        cell=Cell(config.users.proxy, network=True, readable=(config.run_dir,)),
        fds=(*public, *admin, *(() if mesh_fd is None else (mesh_fd,))),
        environment=_harmless_environment(),
        silent_ms=5_000.0,
        grace_s=(config.drain.lame_duck_ms + config.drain.finish_ms) / 1000.0 + GRACE_S,
        overlap=True,
        boot=lambda parent_fd: {
            "config": config,
            "public_fds": public,
            "mesh_fd": mesh_fd,
            "admin_fds": admin,
            "parent_fd": parent_fd,
            "weights_socket": str(run_dir / "weights.sock"),
            "worker_sockets": [str(run_dir / f"worker-{index}.sock") for index in range(len(config.workers))],
            "drained": drained(),
            "boot_ms": round(clock.wall_s() * 1000),
            "token": token,
            "keys_text": keys_text,
            **mesh,
        },
    )


def make_store(config: NodeConfig, *, root: bool) -> None:
    """The store's directory, owned by the weights' uid; others may read it. Raises BootError."""
    store = Path(config.weights.store)
    try:
        store.mkdir(mode=0o755, parents=True, exist_ok=True)
        if root:
            store.chmod(0o755)
            os.chown(store, config.users.weights, config.users.weights)
    except OSError as error:
        raise BootError(
            f"weights.store: can't make {store}: {error.strerror}; name one that this user may create"
        ) from error


def make_caches(config: NodeConfig, *, root: bool) -> None:
    """Per worker the one directory that it may write to, closed to everybody else. Raises BootError."""
    for index in range(len(config.workers)):
        cache = _cache_dir(config, index)
        try:
            with contextlib.suppress(FileExistsError):
                cache.mkdir(mode=0o700)
            if not stat.S_ISDIR(cache.lstat().st_mode):
                raise BootError(f"run_dir: {cache} is no directory; remove it")
            if root:
                os.chown(cache, config.users.worker, config.users.worker, follow_symlinks=False)
        except OSError as error:
            raise BootError(
                f"run_dir: can't make {cache}: {error.strerror}; name one in which this user may"
            ) from error


def _cache_dir(config: NodeConfig, index: int) -> Path:
    return Path(config.run_dir) / f"worker-{index}.cache"


def _origin_paths(config: NodeConfig) -> tuple[str, ...]:
    """The origin's directory when it lies on this machine; one that is not there yet may come later."""
    path = config.weights.origin.removeprefix("file://")
    return (path,) if path != config.weights.origin and Path(path).exists() else ()


def _harmless_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(_HARMLESS)}
    return {**kept, "PYTHONPATH": CODE_ROOT}


def _token(config: NodeConfig) -> str:
    path = config.admin.token_file
    token = _secret("admin.token_file", path).strip() if path else ""
    if path and len(token) < MIN_TOKEN_CHARS:
        raise BootError(
            f"admin.token_file: {path} holds {len(token)} characters; "
            f"write at least {MIN_TOKEN_CHARS}, as from: openssl rand -hex 32"
        )
    return token


def _password(config: NodeConfig) -> str:
    index = config.weights.index
    if index is None or not index.password_file:
        return ""
    setting, path = "weights.index.password_file", index.password_file
    password = _secret(setting, path, "utf-8").strip()
    if not password:
        raise BootError(f"{setting}: {path} is empty; write the password of the Redis user into it")
    return password


def _secret(setting: str, path: str, encoding: str = "ascii") -> str:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
        if len(raw) > MAX_SECRET_BYTES:
            raise BootError(
                f"{setting}: {path} is larger than {MAX_SECRET_BYTES} bytes; is it the right file?"
            )
        return raw.decode(encoding)
    except OSError as error:
        raise BootError(f"{setting}: can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BootError(f"{setting}: {path} is not plain text ({encoding})") from error
