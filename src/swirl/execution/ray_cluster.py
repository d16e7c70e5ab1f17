"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from swirl.config.execution import Execution
from swirl.core.errors import ParamsError, SwirlError

_HERE = ("localhost", "127.0.0.1", "::1")


def connect(settings: Execution, cpus: int) -> None:
    """Join the cluster of `execution.address`, once a process; each worker reserves `cpus` CPUs.

    A cluster that is started here has no dashboard, listens on 127.0.0.1 alone and ends with this process, however that
    ends. Raises `ParamsError` when Ray is not installed, and when nothing answers at the address.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ParamsError(
            "execution.engine is ray, which needs the extra ray: pip install -c constraints.txt -e '.[ray]'"
        ) from None
    if ray.is_initialized():
        return
    address = settings.address
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or "local"
    local = address == "local" or address.rpartition(":")[0] in _HERE
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = not local  # False: 127.0.0.1 is not exchanged for another address
    options: dict[str, Any] = {"log_to_driver": True, "logging_level": "ERROR"}
    if address == "local":
        _start(max(os.cpu_count() or 1, settings.workers * cpus), options)
        return
    _answers(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ParamsError(
            f"execution.address = {settings.address!r}: {address} is no cluster of Ray {ray.__version__} that lets "
            f"this process in; one that wants a token wants RAY_AUTH_MODE=token in the environment: {error}"
        ) from None


def _start(cpus: int, options: dict[str, Any]) -> None:
    """Start a cluster here; on a busy machine Ray's own half a minute for that may not do, so it is tried again."""
    import ray

    own_token()
    for last in (False, False, True):
        try:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **options)
            return
        except Exception as error:
            ray.shutdown()
            if last:
                raise SwirlError(f"Ray cannot start a cluster on this machine: {error}") from None


def own_token() -> None:
    """Make the token that Ray asks for, `~/.ray/auth_token`, unless there is one, and let nobody else read it.

    Ray makes one itself, which every user of the machine may read, and with which each could run code as this one.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    with contextlib.suppress(OSError, RuntimeError):  # of a home that is none, or cannot be written to, Ray says more
        path = Path.home() / ".ray/auth_token"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        made = path.with_name(f"{path.name}.{os.getpid()}")
        made.touch(mode=0o600)
        made.write_text(secrets.token_hex(32), encoding="utf-8")
        try:
            os.link(made, path)  # at once whole, and never in place of another process's
        except FileExistsError:
            path.chmod(0o600)
        finally:
            made.unlink()


def _answers(address: str) -> None:
    """Raise `ParamsError` if nothing listens at HOST:PORT: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise ParamsError(
            f"execution.address: no cluster of Ray answers at {address} ({error}); start one there with `ray start "
            "--head`, name another, or set execution.address to local"
        ) from None
