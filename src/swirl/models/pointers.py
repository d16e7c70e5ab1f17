"""Model folders without weights: `model.json` names a pretrained model, its exact version and its files' checksums.

The model is on the hub, in a folder, or in a GGUF file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from swirl.core.checksums import checksum
from swirl.core.errors import ModelError
from swirl.models.gguf_files import converted, is_gguf

NAME = "model.json"
_PATTERNS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
_CODE = "*.py"
_LARGEST = 1 << 20
"""Maximum number of bytes that are read of a pointer file."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pretrained model on the Hugging Face hub, in a local folder or in a GGUF file."""

    model: str
    """Hub id, or a folder or GGUF file: absolute, or relative to the folder that the pointer is in."""
    revision: str
    """The commit on the hub; empty for what is local."""
    files: Mapping[str, str]
    """SHA-256 of every file that loading reads."""
    trust_remote_code: bool
    """Whether Python code that comes with the model may run."""


def write_pointer(
    folder: Path, model: str, revision: str = "", trust_remote_code: bool = False, root: Path | None = None
) -> Path:
    """Resolve `model`, write `folder`/model.json, and return where the weights are.

    `model` is a folder or a GGUF file (absolute, or relative to `root`, by default the current folder) or else a hub
    id; `revision` is a branch, tag or commit on the hub ("": main) and is stored as a commit. Files from the hub go to
    its own cache, downloaded with the environment's HF_TOKEN. Raises `ModelError`, saying what to do, when the model
    does not exist, is gated, cannot be reached, has no safetensors weights or configuration, or is a GGUF file that
    `gguf_files.converted` refuses.
    """
    given = Path(model).expanduser()
    place = ((root or Path.cwd()) / given).resolve()
    local = place.is_dir() or is_gguf(place)
    if local and revision:
        what = "folder" if place.is_dir() else "file"
        raise ModelError(f"{model} is a {what}, which has no revisions; leave out {revision!r}")
    if local:
        commit = ""
        name = str(given) if given.is_absolute() else os.path.relpath(place, folder.resolve())
    elif Path(model).is_absolute() or model.startswith((".", "~")) or not _HUB_ID.fullmatch(model):
        raise ModelError(f"{model!r} is neither a folder ({place}), a .gguf file nor a hub id such as Qwen/Qwen3-0.6B")
    else:
        place = _snapshot(model, revision or "main", trust_remote_code)
        name, commit = model, place.name
    if is_gguf(place):
        files = _checksums([_existing(place)])
        source = converted(place, files[place.name])
    else:
        check_complete(place, model)
        source, files = place, _checksums(_files(place, trust_remote_code))
    _write(Pointer(name, commit, files, trust_remote_code), folder)
    return source


def write_locked_pointer(
    folder: Path, model: str, revision: str, trust_remote_code: bool, root: Path, lock: Path
) -> None:
    """Like `write_pointer`, but for a hub model without a `revision` take the commit that the file `lock` has for it.

    If `lock` has none yet, the commit found is written there, so that later runs ask for the same weights.
    """
    known: dict[str, str] = {}
    if lock.exists():
        try:
            known = json.loads(lock.read_bytes()[:_LARGEST])
            assert all(isinstance(text, str) for pair in known.items() for text in pair)
        except (ValueError, AttributeError, AssertionError):
            raise ModelError(f"{lock} is no JSON object of model: commit; mend it, or delete it to lock anew") from None
    write_pointer(folder, model, revision or known.get(model, ""), trust_remote_code, root)
    made = read_pointer(folder)
    if made and made.revision and not revision and known.get(model) != made.revision:
        text = json.dumps({**known, model: made.revision}, indent=1, sort_keys=True)
        lock.write_text(text + "\n", encoding="utf-8")


def point_to_same(base: Path, folder: Path) -> None:
    """Write a pointer into `folder`: to what the model's folder `base` points to, or to `base` if it holds weights."""
    found = read_pointer(base)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_pointer(folder, os.path.relpath(base.resolve(), folder.resolve()), root=folder)
        return
    if not found.revision and not Path(found.model).is_absolute():
        found = replace(found, model=os.path.relpath((base / found.model).resolve(), folder.resolve()))
    _write(found, folder)


def target_of(folder: Path, root: Path) -> tuple[str, str]:
    """What the pointer in `folder` points to, for other libraries: a hub id and its commit, or a path and "".

    A path that is relative in the pointer starts at `root` here, and with `./` or `../`, so that it is no hub id.
    """
    pointer = read_pointer(folder)
    if pointer is None:
        raise ModelError(f"{folder} has no pointer ({NAME}) to a model")
    if pointer.revision or Path(pointer.model).is_absolute():
        return pointer.model, pointer.revision
    path = os.path.relpath((folder / pointer.model).resolve(), root.resolve())
    return (path if path.startswith("..") else f"./{path}"), ""


def _write(pointer: Pointer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"source": "pretrained", **asdict(pointer)}, indent=1, sort_keys=True)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def read_pointer(folder: Path) -> Pointer | None:
    """The pointer in a model's folder, or None when there is none. Raises `ModelError` for one that is broken."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        tree = json.loads(path.read_bytes()[:_LARGEST])
        assert tree.pop("source") == "pretrained"
        pointer = Pointer(**tree)
        texts = (pointer.model, pointer.revision, *pointer.files, *pointer.files.values())
        assert all(isinstance(text, str) for text in texts) and isinstance(pointer.trust_remote_code, bool)
        assert all(Path(name).name == name for name in pointer.files) and "\0" not in pointer.model
        assert len(pointer.files) == 1 or pointer.revision or not is_gguf(Path(pointer.model))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError):
        raise ModelError(
            f"{path} is no pointer to a pretrained model (source, model, revision, files, trust_remote_code); "
            "run `dvc repro` to write it again"
        ) from None
    return pointer


def follow(folder: Path, weights: bool = True) -> tuple[Path, bool]:
    """The folder of a model's weights and tokenizer, and whether code that comes with them may run.

    A folder without a pointer holds its own weights; those of a GGUF file are in a cache (`gguf_files`). Raises
    `ModelError` when a file that the pointer names is missing or has changed (without `weights`, the weights themselves
    are not hashed), and, as `write_pointer` does, when files must be downloaded again and cannot be.
    """
    pointer = read_pointer(folder)
    if pointer is None:
        return folder, False
    place = _place(pointer, folder)
    if is_gguf(place):
        (digest,) = pointer.files.values()
        if weights and checksum(place).sha256 != digest:
            raise _changed([place.name], place.parent, folder)
        return converted(place, digest, weights), pointer.trust_remote_code
    _check(place, pointer, folder, weights)
    return place, pointer.trust_remote_code


def points_to_gguf(folder: Path) -> bool:
    """Whether a model's folder points to a GGUF file."""
    pointer = read_pointer(folder)
    return pointer is not None and not pointer.revision and is_gguf(folder / pointer.model)


def files_of(folder: Path) -> tuple[Path, str]:
    """The folder of the files that the pointer in `folder` names, and the GGUF file's name ("": it names others)."""
    pointer = read_pointer(folder)
    if pointer is None:
        raise ModelError(f"{folder} has no pointer ({NAME}) to a model")
    place = _place(pointer, folder)
    return (place.parent, place.name) if is_gguf(place) else (place, "")


def _place(pointer: Pointer, folder: Path) -> Path:
    """The folder or the GGUF file that a pointer in `folder` names."""
    if pointer.revision:
        return _snapshot(pointer.model, pointer.revision, pointer.trust_remote_code)
    place = (folder / pointer.model).resolve()
    if not place.is_dir() and not (is_gguf(place) and place.is_file()):
        raise ModelError(f"{folder / NAME} points to {place}, which is not there; put the model back")
    return place


def _existing(file: Path) -> Path:
    """The GGUF file itself. Raises `ModelError` when there is none."""
    if not file.is_file():
        raise ModelError(f"{file} is not there; `make weights` puts SmolLM2-135M-Instruct into data/weights")
    return file


def check_complete(source: Path, name: str) -> None:
    """Raise `ModelError` unless `source` holds a configuration and safetensors weights."""
    if (source / "adapter_config.json").exists():
        raise ModelError(f"{name} is an adapter, not a whole model; merge it into its base first")
    if not (source / "config.json").exists():
        raise ModelError(f"{name} has no config.json: it is no transformers model ({source})")
    if not any(source.glob("*.safetensors")):
        raise ModelError(
            f"{name} has no safetensors weights, and pickled ones (.bin, .pt) are not read since they may run code; "
            "convert them with save_pretrained, or choose a revision that has them"
        )


def _files(source: Path, code: bool) -> list[Path]:
    """The files that loading reads, sorted by name."""
    patterns = (*_PATTERNS, _CODE) if code else _PATTERNS
    return sorted({path for pattern in patterns for path in source.glob(pattern) if path.is_file()})


def _checksums(files: Iterable[Path]) -> dict[str, str]:
    files = list(files)
    with ThreadPoolExecutor(4) as pool:  # hashing releases the GIL
        return {path.name: found.sha256 for path, found in zip(files, pool.map(checksum, files), strict=True)}


def _check(source: Path, pointer: Pointer, folder: Path, weights: bool) -> None:
    """Raise `ModelError` unless the files are exactly those that the pointer names."""
    missing = [name for name in pointer.files if not (source / name).is_file()]
    if missing:
        raise ModelError(f"{source} lacks {', '.join(missing)}, which {folder / NAME} names; put the model back")
    files = _files(source, pointer.trust_remote_code)
    found = _checksums(path for path in files if weights or path.suffix != ".safetensors")
    changed = [name for name, digest in found.items() if pointer.files.get(name) != digest]
    if changed:
        raise _changed(changed, source, folder)


def _changed(names: Iterable[str], source: Path, folder: Path) -> ModelError:
    return ModelError(
        f"{', '.join(names)} in {source} is not what it was when {folder / NAME} was written; put the old files "
        "back, or take the new ones with `dvc repro -f -s base_model reward_model`"
    )


def _snapshot(model: str, revision: str, code: bool) -> Path:
    """Folder of a revision's files in the hub's cache; files that are there already are not downloaded again."""
    from huggingface_hub import errors, snapshot_download

    patterns = [*_PATTERNS, *([_CODE] if code else [])]
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except errors.GatedRepoError:
        raise ModelError(
            f"{model} is gated: accept its licence at https://huggingface.co/{model}, and set HF_TOKEN in the "
            "environment to a token of that account"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"{model} has no revision {revision!r} on the hub; look at its list of commits") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"the hub has no model {model}, or it is private: check the name, or set HF_TOKEN in the environment"
        ) from None
    except Exception as error:  # there are many ways in which a network fails
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        raise ModelError(
            f"{model} at {revision} is not whole in the cache and could not be downloaded ({reason}); go online once, "
            "or give the folder of a copy as the model"
        ) from None
