"""The whole pipeline once, at its smallest, in a temporary copy of the project: `make smoke`.

Copies the files that git knows or would add, lays params.smoke.yaml over params.yaml, runs `dvc repro`, prints
the results, and runs `dvc repro` again, which must find nothing to do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
NO_OP_SECONDS = 2.0
"""How long a `dvc repro` with nothing to do may take."""


def main() -> None:
    """Run the smoke test; ends with a message and a non-zero exit status when something is wrong."""
    with tempfile.TemporaryDirectory(prefix="swirl-smoke-") as folder:
        copy = Path(folder) / "project"
        copy_project(copy)
        small = merged(read_yaml(ROOT / "params.yaml"), read_yaml(ROOT / "params.smoke.yaml"))
        (copy / "params.yaml").write_text(yaml.safe_dump(small, sort_keys=False), encoding="utf-8")
        environment = {
            **os.environ,
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": f"{folder}/dvc",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(copy / "src"),
        }
        run(["git", "init", "-q"], copy, environment)
        run(["dvc", "repro"], copy, environment)
        run(["swirl", "report", "--text"], copy, environment)
        run(["dvc", "metrics", "show"], copy, environment)
        check_no_op(copy, environment)
    print("smoke: the pipeline ran and reported, and a second run had nothing to do")


def copy_project(target: Path) -> None:
    """Copy the working tree without what git ignores (data, models, the environment)."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file():  # git also lists what was deleted but not committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `changes` laid over it, section by section; lists are replaced whole."""
    result = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(value, dict), f"{path} holds no mapping"
    return value


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run a command with its output shown; ends this program when it fails."""
    print(f"smoke: {' '.join(command)}", flush=True)
    status = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    if status:
        sys.exit(f"smoke: {' '.join(command)} failed with exit status {status}")


def check_no_op(folder: Path, environment: dict[str, str]) -> None:
    """A `dvc repro` on an unchanged project runs nothing, and says so quickly (best of three: cores may be busy)."""
    seconds = float("inf")
    for _ in range(3):
        started = time.monotonic()
        done = subprocess.run(["dvc", "repro"], cwd=folder, env=environment, check=True, capture_output=True, text=True)
        seconds = min(seconds, time.monotonic() - started)
        if "Running stage" in done.stdout or "up to date" not in done.stdout:
            sys.exit(f"smoke: a second dvc repro did something:\n{done.stdout}")
    print(f"smoke: a second dvc repro took {seconds:.1f} s")
    if seconds > NO_OP_SECONDS:
        sys.exit(f"smoke: a second dvc repro took {seconds:.1f} s; it should take at most {NO_OP_SECONDS} s")


if __name__ == "__main__":
    main()
