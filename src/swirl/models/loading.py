"""Local causal LMs of transformers, loaded and saved. A model's folder holds weights, a pointer or an adapter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from swirl.core.devices import check_device
from swirl.core.errors import ModelError
from swirl.core.flights import out_of_memory
from swirl.models import adapters
from swirl.models.chat import Chat
from swirl.models.native_chat import NativeChat
from swirl.models.pointers import NAME as POINTER
from swirl.models.pointers import follow

Dtype = Literal["float32", "bfloat16"]
_SOME = ("config.json", "tokenizer_config.json")
"""A folder without a pointer must hold one of these, when its weights are not needed."""


def make_deterministic(threads: int) -> None:
    """Make torch reproducible: a fixed number of threads, and an error where a kernel is not deterministic.

    On a GPU there is a warning instead: torch has no deterministic cumulative sum there, which sampling needs.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the GPU is first used
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Filling uninitialised memory, which none of our code reads, would cost a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def load_model(folder: Path, device: str, attention: str, dtype: Dtype = "float32") -> Any:
    """The model of a folder, in evaluation mode: its own weights, those it points to, or an adapter on the latter.

    Weights have type `dtype`, an adapter's too. Raises `ModelError` when there is no model, when one of its weights is
    missing, of another shape or cut short, or when a file that a pointer names is missing or changed; and `ParamsError`
    for a device that torch cannot use.
    """
    check_device(device)
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    source, trusted = _find(folder, weights=True)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            attn_implementation=attention,
            trust_remote_code=trusted,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # a RecursionError is a RuntimeError
        if out_of_memory(error):
            raise
        again = "; get its files again" if isinstance(error, RuntimeError | SafetensorError) else ""
        raise ModelError(f"{source} holds no model that transformers can load: {error}{again}") from error
    model, found = loaded
    if lacking := sorted(found["missing_keys"]):
        raise ModelError(f"{source} lacks weights of {type(model).__name__}: {', '.join(lacking[:5])}; get it again")
    if is_adapter(folder):
        adapters.load(model, folder)
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, or of the model it points to. Raises `ModelError` when there is none."""
    from transformers import AutoTokenizer

    source, trusted = _find(folder, weights=False)
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trusted)
    except (OSError, ValueError) as error:
        raise ModelError(f"{source} holds no tokenizer that transformers can load: {error}") from error


def load_chat(folder: Path, thinking: bool = False, strip: bool = False) -> Chat:
    """The tokenizer of a folder with its chat template, and every token that the model may end a reply with."""
    return Chat(load_tokenizer(folder), _ends(folder), thinking, strip)


def load_native_chat(folder: Path, thinking: bool = False, strip: bool = False) -> NativeChat:
    """As `load_chat`, for the model's own tool format."""
    return NativeChat(load_tokenizer(folder), _ends(folder), thinking, strip)


def _ends(folder: Path) -> list[int]:
    """The ids that the generation config of a folder's model says end a reply."""
    from transformers import GenerationConfig

    source, _ = _find(folder, weights=False)
    ends: Any = None
    if (source / "generation_config.json").exists():
        ends = GenerationConfig.from_pretrained(source).eos_token_id
    return [ends] if isinstance(ends, int) else ends or []


def context_of(model: Any, limit: int = 0) -> int:
    """Longest conversation in tokens: the model's own maximum, or `limit` if that is shorter (0: no limit)."""
    own = int(model.config.get_text_config().max_position_embeddings)
    return min(own, limit) if limit else own


def configured_context(folder: Path, limit: int = 0) -> int:
    """`context_of` a model that is not loaded."""
    from transformers import AutoConfig

    source, trusted = _find(folder, weights=False)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trusted).get_text_config()
        own = int(config.max_position_embeddings)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{source} has no config.json that says how long a conversation may be: {error}") from error
    return min(own, limit) if limit else own


def save(model: Any, tokenizer: Any, folder: Path, base: Path | None = None, root: Path | None = None) -> None:
    """Save the tokenizer, and weights as safetensors, or just an adapter and a pointer to its `base`.

    transformers and peft load an adapter by its folder alone; when the base is in a folder that is not given by an
    absolute path, they do so from `root`, the project's folder (by default the current one).
    """
    folder.mkdir(parents=True, exist_ok=True)
    if adapters.is_on(model):
        if base is None:
            raise ValueError("an adapter is saved beside a pointer to its base; give the base's folder")
        adapters.save(model, base, folder, root or Path.cwd())
    else:
        model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def is_adapter(folder: Path) -> bool:
    """Whether a model's folder holds an adapter rather than weights."""
    return (folder / adapters.CONFIG).exists()


def _find(folder: Path, weights: bool) -> tuple[Path, bool]:
    """Where the files of a model's folder are, checked with or without weights, and whether their code may run."""
    if not any((folder / name).exists() for name in (POINTER, *(("config.json",) if weights else _SOME))):
        what = "model" if weights else "tokenizer"
        raise ModelError(f"{folder} holds no {what}; run `dvc repro` to make it, or give the folder of one")
    return follow(folder, weights)
