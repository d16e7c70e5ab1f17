"""The RL step of `swirl.bench.rl_step` with TRL's GRPOTrainer (extra `bench`)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from swirl.bench.measure import Result, settle
from swirl.core.errors import SwirlError
from swirl.core.types import SubTrajectory
from swirl.models.flops import matrix_flops


def check_installed() -> None:
    """Raise `SwirlError` when TRL is not installed, without importing it."""
    if not (find_spec("trl") and find_spec("datasets")):
        raise SwirlError("rl-step compares with TRL, which is not here: pip install -c constraints.txt -e '.[bench]'")


def library() -> Any:
    """Import the classes that `steps` needs; separate from it, so that memory is measured after the imports."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    return SimpleNamespace(Dataset=Dataset, GRPOConfig=GRPOConfig, GRPOTrainer=GRPOTrainer, LoraConfig=LoraConfig)


def steps(
    library: Any,
    model: Any,
    groups: list[list[SubTrajectory]],
    side: Result,
    reward: Callable[[Sequence[int]], float],
) -> Result:
    """Seconds, tokens and FLOPs of the side's `repeats` steps on the states of `groups`."""
    from transformers import TrainerCallback

    from swirl.models.loading import load_tokenizer

    states = [list(step.state_ids) for group in groups for step in group]
    tokenizer = load_tokenizer(Path.cwd() / (side["model"] if side["source"] == "first" else "models/base"))
    warmup, length, lora = side["warmup"], side["length"], side.get("lora")

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            settle(model.device)
            self.seconds.append(time.perf_counter() - self.start)

    def rewards(prompts: Any, completions: Any, completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [reward(ids) for ids in completion_ids]

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(f"{folder}/model")  # TRL reads its reference from the same place
        config = library.GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=side["rows"],
            gradient_accumulation_steps=len(states) * 8 // side["rows"],
            model_init_kwargs={"attn_implementation": side["attention"], "dtype": side["dtype"]},
            num_generations=8,
            max_completion_length=length,
            generation_kwargs={"min_new_tokens": length},
            beta=side["kl"],
            learning_rate=1e-5,
            max_steps=warmup + side["repeats"],
            use_cpu=model.device.type == "cpu",
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            shuffle_dataset=False,
        )
        trainer = library.GRPOTrainer(
            model=f"{folder}/model",
            reward_funcs=rewards,
            args=config,
            train_dataset=library.Dataset.from_dict({"prompt": [str(number) for number in range(len(states))]}),
            processing_class=tokenizer,
            callbacks=[clock],
            peft_config=lora and _adapter(library, lora),
        )
        # A prompt is just the number of a state, whose token ids are used as they are.
        trainer._tokenize_prompts = lambda prompts: ([states[int(prompt)] for prompt in prompts], None, {})
        trainer.train()
    read = sum(8 * (len(state) + length) for state in states)
    predicted = 8 * length * len(states)
    flops = matrix_flops(model, read, predicted, False) + matrix_flops(model, read, predicted, True)
    flops += matrix_flops(model, read, predicted, False) if side["kl"] else 0.0
    return {"seconds": clock.seconds[warmup:], "tokens": read, "flops": flops}


def _adapter(library: Any, lora: Result) -> Any:
    """The adapter as peft describes it."""
    targets = "all-linear" if lora["targets"] == ["all-linear"] else lora["targets"]
    return library.LoraConfig(r=lora["rank"], lora_alpha=lora["alpha"], target_modules=targets)
