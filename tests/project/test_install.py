"""`.ci/install` chooses the build of torch: by the GPU that is there, by hand, by whether PyTorch's index answers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WANTED = next(
    line.removeprefix("torch==")
    for line in (ROOT / "constraints-compute.txt").read_text().splitlines()
    if line.startswith("torch==")
)
PLAIN = f"install --quiet -c constraints.txt torch=={WANTED}"
CPU = f"install --quiet -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu torch=={WANTED}"
DROP = "uninstall --quiet --yes torch"
REST = "install --quiet -c constraints.txt -e .[dev]"

PYTHON = """#!/bin/bash
# Stands for a Python: torch has the version in the file `torch`; pip installs what `found` holds; PyTorch's index
# answers if there is a file `answers`.
cd "{here}"
case "$*" in
    *version*) cat torch 2>/dev/null ;;
    *urlopen*) test -e answers ;;
    "-m pip"*)
        echo "${{*:3}}" >> asked
        case "$*" in
            *uninstall*) rm torch ;;
            *torch==*) cp found torch ;;
            *"-c /"*) cat "${{6%/*}}"/constraints*.txt > constraints ;;
        esac ;;
esac
"""

Install = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Runs a copy of the script with stubs; returns its exit status, what it said and what pip was asked."""
    here = tmp_path / "a b"
    (here / ".ci").mkdir(parents=True)
    for name in (".ci/install", "constraints.txt", "constraints-compute.txt"):
        shutil.copy(ROOT / name, here / name)
    (here / "bin").mkdir()
    for name, text in {
        "python": PYTHON.format(here=here),
        "nvidia-smi": f'#!/bin/bash\ntest -e "{here}/gpu"\n',
        "uname": "#!/bin/bash\necho ${SYSTEM:-Linux}\n",
    }.items():
        (here / "bin" / name).write_text(text)
        (here / "bin" / name).chmod(0o755)

    def run(
        torch: str = "", *there: str, have: str = "", found: str = WANTED, **more: str
    ) -> tuple[int, str, list[str]]:
        (here / "found").write_text(found)
        if have:
            (here / "torch").write_text(have)
        for name in there:
            (here / name).touch()
        done = subprocess.run(
            [here / ".ci/install", here / "bin/python", torch],
            cwd="/",
            env={**os.environ, "PATH": f"{here / 'bin'}:{os.environ['PATH']}", **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        asked = (here / "asked").read_text().splitlines() if (here / "asked").exists() else []
        return done.returncode, done.stdout + done.stderr, asked

    return run


def test_without_a_gpu_the_cpu_build_comes_from_pytorch_s_index(install: Install) -> None:
    assert install("", "answers", found=f"{WANTED}+cpu") == (0, "", [CPU, REST])


def test_where_that_index_does_not_answer_pip_takes_what_it_finds_and_it_is_said(install: Install) -> None:
    status, said, asked = install()
    assert (status, asked) == (0, [PLAIN, REST])
    assert said == (
        "https://download.pytorch.org/whl/cpu does not answer, so torch comes from where pip finds it: "
        "on plain Linux 2.7 GB, with CUDA\n"
    )


def test_with_a_gpu_the_ordinary_index_is_asked(install: Install) -> None:
    assert install("", "gpu", "answers") == (0, "", [PLAIN, REST])


def test_with_a_gpu_and_only_a_cpu_build_to_be_found_it_is_said(install: Install) -> None:
    status, said, asked = install("", "gpu", found=f"{WANTED}+cpu")
    assert (status, asked) == (0, [PLAIN, REST])
    assert said.startswith(f"pip finds no torch {WANTED} with CUDA, only the CPU build: look at its index-url")


@pytest.mark.parametrize("have", [WANTED, f"{WANTED}+cpu", f"{WANTED}+cu130"])
def test_the_right_version_stays_whatever_its_build(have: str, install: Install) -> None:
    assert install("", "gpu", "answers", have=have) == (0, "", [REST])


def test_by_hand_cpu_wins_over_a_gpu_and_takes_the_place_of_cuda(install: Install) -> None:
    assert install("cpu", "gpu", "answers", have=WANTED, found=f"{WANTED}+cpu") == (0, "", [DROP, CPU, REST])


def test_what_is_there_is_not_dropped_when_the_other_cannot_be_had(install: Install) -> None:
    status, said, asked = install("cpu", have=WANTED)
    assert (status, asked) == (0, [PLAIN, REST])
    assert "does not answer" in said


def test_by_hand_cuda_takes_the_place_of_the_cpu_build_or_fails(install: Install) -> None:
    assert install("cuda", have=f"{WANTED}+cpu") == (0, "", [DROP, PLAIN, REST])
    status, said, asked = install("cuda", have=f"{WANTED}+cpu", found=f"{WANTED}+cpu")
    assert (status, asked[3:]) == (1, [DROP, PLAIN])
    assert "pip finds no torch" in said


def test_skip_keeps_another_version(install: Install, tmp_path: Path) -> None:
    status, said, asked = install("skip", "gpu", have="2.99.0+own")
    assert (status, said, len(asked)) == (0, "", 1)
    pinned = (tmp_path / "a b/constraints").read_text().splitlines()
    assert "torch===2.99.0+own" in pinned and f"torch=={WANTED}" not in pinned and "transformers==5.23.0" in pinned


def test_skip_needs_a_torch(install: Install) -> None:
    status, said, asked = install("skip")
    assert (status, asked) == (1, [])
    assert "TORCH=skip keeps the torch that is installed, and" in said


def test_other_words_are_refused(install: Install) -> None:
    assert install("gpu") == (1, "TORCH is cpu, cuda or skip, not gpu\n", [])


def test_elsewhere_the_ordinary_index_has_one_build(install: Install) -> None:
    assert install("", "answers", SYSTEM="Darwin") == (0, "", [PLAIN, REST])
