"""Environment, settings and fixtures of all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# Clears what a user, a git hook or a CI service may have set, before a test module imports anything that reads it.
for _names in (
    ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_OFFLINE"),
    ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "SWIRL_RUN_ID", "RANK", "WORLD_SIZE"),
    ("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"),
    ("FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
    ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"),
):
    for _name in _names:
        os.environ.pop(_name, None)
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
_own = Path(tempfile.mkdtemp(prefix="swirl-tests-"))
atexit.register(shutil.rmtree, _own, ignore_errors=True)
(_own / "gitconfig").write_text("[safe]\n\tdirectory = *\n", encoding="utf-8")
os.environ["GIT_CONFIG_GLOBAL"] = str(_own / "gitconfig")  # a user's may sign commits
os.environ["DVC_SITE_CACHE_DIR"] = str(_own / "dvc")  # DVC's own is never cleared
os.environ["DO_NOT_TRACK"] = "1"
os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ["GX_ANALYTICS_ENABLED"] = "False"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"

# No deadline: how long a Hypothesis example takes depends on how busy the machine is.
settings.register_profile("swirl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("swirl")


@pytest.fixture(autouse=True)
def _own_accelerator() -> Iterator[None]:
    """Resets Accelerate, which fixes the mixed precision once for a process: stages have one each, tests share one."""
    yield
    if "accelerate.state" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project root."""
    return ROOT


@pytest.fixture
def swirl(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the `swirl` command in a folder (the test's own by default), its output captured."""

    def run(*arguments: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "swirl", *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run
