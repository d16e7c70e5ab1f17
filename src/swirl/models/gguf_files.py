"""GGUF files: read once by transformers, and kept as an ordinary model's folder in a cache.

Reading one takes half a minute for 100 MB, and every stage loads the model, so the weights are dequantised once, to
float32, into Hugging Face's cache of other files (`HF_HOME`/assets/swirl), under the file's SHA-256.
"""

from __future__ import annotations

import fcntl
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swirl.core.checksums import checksum
from swirl.core.errors import ModelError

SUFFIX = ".gguf"
_SUMS = "SHA256SUMS"
"""The file in a converted folder that lists the others, as `sha256sum` writes it."""
_DIGITS_APART = ("smollm",)
"""Kinds of byte-level tokenizers that split text as GPT-2's does, but every digit apart (`tokenizer.ggml.pre`).

transformers takes them for GPT-2's, which cuts the white space before a digit in another way.
"""


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file, which may not exist."""
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def converted(path: Path, sha256: str, weights: bool = True) -> Path:
    """The folder with the model of a GGUF file whose SHA-256 is `sha256`: configuration, float32 weights, tokenizer.

    It is made when it is not there, or when its files (without `weights`: all but the weights) are not what was
    written. Raises `ModelError` when the file has another SHA-256, is no GGUF file or not a whole one, when
    transformers reads no such architecture or tokenizer, when there is no chat template, and without the package gguf.
    """
    from huggingface_hub import cached_assets_path, constants
    from transformers import __version__

    cache = cached_assets_path("swirl", "gguf", sha256, assets_dir=constants.HF_ASSETS_CACHE)
    place = cache / f"transformers-{__version__}"
    if _whole(place, weights):
        return place
    if checksum(path).sha256 != sha256:
        raise ModelError(
            f"{path} is not the file of SHA-256 {sha256}; put that one back, or take the new one with "
            "`dvc repro -f -s base_model reward_model`"
        )
    metadata = _metadata(path)
    _check_readable(path, metadata)
    with (cache / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _whole(place):  # another process may have made it meanwhile
            _make(path, str(metadata.get("tokenizer.ggml.pre", "")), place)
    return place


def _make(path: Path, split: str, place: Path) -> None:
    """Write the folder `place` anew; whoever is killed meanwhile leaves nothing that looks whole."""
    partial = place.with_name("partial")
    for folder in (partial, place):
        shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir()
    _convert(path, split, partial)
    lines = [f"{checksum(file).sha256}  {file.name}\n" for file in sorted(partial.iterdir())]
    (partial / _SUMS).write_text("".join(lines), encoding="utf-8")
    partial.rename(place)


def _whole(folder: Path, weights: bool = True) -> bool:
    """Whether a converted folder's files (without `weights`: all but the weights) are what was written."""
    sums = folder / _SUMS
    if not sums.is_file():
        return False
    lines = [line.split("  ", 1) for line in sums.read_text(encoding="utf-8").splitlines()]
    names = {name: digest for digest, name in lines}
    read = {name: digest for name, digest in names.items() if weights or not name.endswith(".safetensors")}
    return all((folder / name).is_file() for name in names) and all(
        checksum(folder / name).sha256 == digest for name, digest in read.items()
    )


def _metadata(path: Path) -> Mapping[str, Any]:
    """What the file's header says. Raises `ModelError` when it is no GGUF file, or not a whole one."""
    from transformers.integrations.gguf.reader import GgufHeader, read_gguf_metadata

    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path} is no GGUF file: it does not begin with GGUF")
    try:
        metadata, _ = read_gguf_metadata(str(path))
        header = GgufHeader.from_file(str(path))
    except (struct.error, UnicodeDecodeError, KeyError, IndexError, OverflowError, TypeError, ZeroDivisionError):
        raise ModelError(f"{path} is cut short or damaged: its header cannot be read; get the file again") from None
    except ValueError as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    size = path.stat().st_size
    whole = header.data_start + max((tensor.offset + tensor.nbytes for tensor in header.tensors), default=0)
    if size < whole:
        wanted = f"{whole:,}" if whole < 2**63 else "more than any file can have"
        raise ModelError(f"{path} is cut short or damaged: it has {size:,} bytes of {wanted}; get the file again")
    scaled = {tensor.name for tensor in header.tensors} & {"rope_freqs.weight", "rope_factors_long.weight"}
    if scaled or metadata.get(f"{header.architecture}.rope.scaling.type", "none") != "none":
        raise ModelError(
            f"{path} scales its rotary positions, which transformers does not read from a GGUF file, so the model "
            "would be another; use its safetensors weights"
        )
    return metadata


def _check_readable(path: Path, metadata: Mapping[str, Any]) -> None:
    """Raise `ModelError` for what transformers would refuse deep inside, or read in another way than it was meant."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS, GGUF_TOKENIZER_TYPES
    from transformers.utils.import_utils import is_gguf_available

    if not is_gguf_available():
        raise ModelError(f"{path} needs the extra gguf: pip install -c constraints.txt -e '.[gguf]'")
    kind, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind not in GGUF_TOKENIZER_TYPES:
        raise ModelError(
            f"{path} has a tokenizer of kind {kind!r}; transformers reads {', '.join(GGUF_TOKENIZER_TYPES)}"
        )
    known = ("gpt-2", *_DIGITS_APART, *GGUF_PRE_TOKENIZER_SPLITS)
    if kind == "gpt2" and split not in known:
        raise ModelError(
            f"{path} splits text in the way {split!r} (tokenizer.ggml.pre), which would be read as another; known are "
            f"{', '.join(known)}"
        )
    if not metadata.get("tokenizer.chat_template"):
        raise ModelError(f"{path} has no chat template (tokenizer.chat_template); use an instruction-tuned model")


def _convert(path: Path, split: str, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into `folder`, as transformers saves them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given: dict[str, Any] = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    try:
        read: Any = AutoModelForCausalLM.from_pretrained(**given, dtype=torch.float32, output_loading_info=True)
        tokenizer: Any = AutoTokenizer.from_pretrained(**given)
    except Exception as error:  # transformers' reader meets an unknown file in many ways
        reason = (str(error).splitlines() or [""])[0][:300]
        raise ModelError(
            f"{path} holds no language model that transformers can read ({type(error).__name__}: {reason})"
        ) from error
    model, found = read
    if lacking := sorted(found["missing_keys"]):
        raise ModelError(f"{path} lacks weights of {type(model).__name__}: {', '.join(lacking[:5])}")
    if split in _DIGITS_APART:
        _split_digits(tokenizer)
    config = model.config
    del config.quantization_config  # so that it can be saved; the weights are plain numbers by now
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _split_digits(tokenizer: Any) -> None:
    """Let a byte-level tokenizer split every digit apart, which transformers does not read from a GGUF file."""
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
