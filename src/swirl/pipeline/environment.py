"""Process settings of a stage; they take effect only when they are set before torch is imported."""

from __future__ import annotations

import os
import sys

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}

ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
}
"""Lets glibc keep freed memory instead of returning it and asking for it again; read once, when a process starts."""

_RESTARTED = "SWIRL_RESTARTED"


def disable_telemetry() -> None:
    """Turn every library's telemetry off, unless the user's environment says otherwise."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)


def bypass_proxy_for_localhost() -> None:
    """Exempt servers on this machine from the environment's proxy, which could not reach them."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if known.strip() != "*":
        names = [name.strip() for name in known.split(",") if name.strip()]
        known = ",".join([*names, *(name for name in ("127.0.0.1", "localhost", "::1") if name not in names)])
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = known


def set_torch_variables(threads: int) -> None:
    """Set the variables that torch reads when it is imported, and which bars the libraries show.

    Unlike `set_up_process`, this never restarts the process.
    """
    _set_variables(threads)
    _choose_bars()


def _set_variables(threads: int) -> None:
    """Set the variables that torch reads.

    Waiting threads sleep instead of spinning, which on busy cores is a hundred times faster. The number of
    threads changes the last bits of a sum, so the environment never overrides it.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _choose_bars() -> None:
    """Show the hub library's bars on a terminal, where a download may take long, and none of transformers.

    transformers has one for each model that it loads or saves; it asks the hub library whether to show them.
    """
    if "HF_HUB_DISABLE_PROGRESS_BARS" in os.environ:
        return
    if not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        return
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    enable_progress_bars("huggingface_hub")


def set_up_process(threads: int) -> None:
    """Set this process up for torch on `threads` CPU cores; call before torch is imported.

    This does what `set_torch_variables` does, and on Linux restarts the process, once, if the allocator settings are
    not in its environment yet.
    """
    _set_variables(threads)
    if sys.platform == "linux" and _RESTARTED not in os.environ and not ALLOCATOR.keys() <= os.environ.keys():
        environment = {**ALLOCATOR, **os.environ, _RESTARTED: "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    _choose_bars()
