"""What each child is told when it starts, and with which rights.

The parent reads certificates, keys and tokens as itself and hands over their content, so
that no child needs a right to read them. The fields are those of the boot structs that
the roles define; the parent does not import the roles.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

import edge
from edge.config import NodeConfig, size_bytes
from edge.parent.jail import Cell
from edge.parent.sockets import Listeners

MAX_SECRET_BYTES: Final = 1024 * 1024
MIN_TOKEN_CHARS: Final = 16
#: Where this very code lies; children start with it as their only extra path.
CODE_ROOT: Final = str(Path(edge.__file__).resolve().parent.parent)
#: A proxy or a worker has no business with the operator's environment; an origin's credentials are in it.
_HARMLESS: Final = ("PATH", "LANG", "LC_", "TZ", "LD_LIBRARY_PATH", "CUDA_", "NVIDIA_", "OMP_", "MALLOC_")


class BootError(Exception):
    """A file that the node needs at start can't be used; the text names setting, file and remedy."""


@dataclass(frozen=True)
class Role:
    """One child to be: its name is the role and, for workers, an index.

    `boot` makes its boot struct's fields, given the number of its fd to the parent.
    """

    role: str
    name: str
    cell: Cell
    fds: tuple[int, ...]
    environment: dict[str, str]
    silent_ms: float
    boot: Callable[[int], dict[str, Any]]


def envelope(role: Role, log_level: str, parent_fd: int) -> bytes:
    """The bytes that edge/parent/child.py reads."""
    return msgspec.msgpack.encode({"cell": role.cell, "log_level": log_level, "boot": role.boot(parent_fd)})


def plan_roles(config: NodeConfig, listeners: Listeners) -> list[Role]:
    """All children of a node: weights first, the proxy last. Raises BootError."""
    if listeners.weights is None:
        raise ValueError("the listeners are not open")
    store = Path(config.weights.store)
    weights_fd = listeners.weights.fileno()
    roles = [
        Role(
            role="weights",
            name="weights",
            cell=Cell(
                config.users.weights, network=True, readable=(str(store), *_origin_paths(config)), umask=0o022
            ),
            fds=(weights_fd,),
            environment={**os.environ, "PYTHONPATH": CODE_ROOT},
            silent_ms=15_000.0,
            boot=lambda parent_fd: {
                "node": config.node,
                "weights": config.weights,
                "listen_fd": weights_fd,
                "parent_fd": parent_fd,
            },
        )
    ]
    roles.extend(
        _worker(config, index, listeners.workers[index].fileno()) for index in range(len(config.workers))
    )
    roles.append(_proxy(config, listeners))
    return roles


def _worker(config: NodeConfig, index: int, fd: int) -> Role:
    worker = config.workers[index]
    memory = size_bytes(worker.memory_bytes) if worker.memory_bytes and worker.device == "cpu" else 0
    return Role(
        role="worker",
        name=f"worker-{index}",
        cell=Cell(config.users.worker, network=False, readable=(config.weights.store,), data_bytes=memory),
        fds=(fd,),
        # ONNX Runtime would otherwise look for a place and a network to send its telemetry.
        environment={**_harmless_environment(), "ORT_DISABLE_TELEMETRY": "1"},
        silent_ms=15_000.0,
        boot=lambda parent_fd: {
            "index": index,
            "worker": worker,
            "blobs_dir": str(Path(config.weights.store) / "blobs"),
            "listen_fd": fd,
            "parent_fd": parent_fd,
            "max_body_bytes": config.public.limits.max_body_bytes,
            "served_by": f"{config.node}/{index}",
        },
    )


def _proxy(config: NodeConfig, listeners: Listeners) -> Role:
    token = ""
    if config.admin.token_file:
        token = _secret("admin.token_file", config.admin.token_file).strip()
        if len(token) < MIN_TOKEN_CHARS:
            raise BootError(
                f"admin.token_file: {config.admin.token_file} holds {len(token)} characters; "
                f"write at least {MIN_TOKEN_CHARS}, as from: openssl rand -hex 32"
            )
    mesh = config.mesh
    secrets = {
        "token": token,
        "mesh_ca": _secret("mesh.ca", mesh.ca) if mesh else "",
        "mesh_certificate": _secret("mesh.certificate", mesh.certificate) if mesh else "",
        "mesh_key": _secret("mesh.key", mesh.key) if mesh else "",
    }
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
        boot=lambda parent_fd: {
            "config": config,
            "public_fds": public,
            "mesh_fd": mesh_fd,
            "admin_fds": admin,
            "parent_fd": parent_fd,
            "weights_socket": str(run_dir / "weights.sock"),
            "worker_sockets": [str(run_dir / f"worker-{index}.sock") for index in range(len(config.workers))],
            **secrets,
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


def _origin_paths(config: NodeConfig) -> tuple[str, ...]:
    """The origin's directory when it lies on this machine; one that is not there yet may come later."""
    path = config.weights.origin.removeprefix("file://")
    return (path,) if path != config.weights.origin and Path(path).exists() else ()


def _harmless_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(_HARMLESS)}
    return {**kept, "PYTHONPATH": CODE_ROOT}


def _secret(setting: str, path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
        if len(raw) > MAX_SECRET_BYTES:
            raise BootError(
                f"{setting}: {path} is larger than {MAX_SECRET_BYTES} bytes; is it the right file?"
            )
        return raw.decode("ascii")
    except OSError as error:
        raise BootError(f"{setting}: can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BootError(f"{setting}: {path} is not PEM or plain text") from error
