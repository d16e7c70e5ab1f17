"""What a process holds at most while it rolls out and while it trains: run as a process of its own, prints JSON.

The argument is JSON: `preset`, `changes` laid over it, and the `shape` of a random Qwen3. Conversations fill their
context, and updates their forward passes, as far as the params allow.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def resident(key: str) -> float:
    """Bytes: VmRSS now, VmHWM at the most since it was last set back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * int(next(line for line in lines if line.startswith(key)).split()[1])


def peak(work: Any) -> float:
    """The most that the process holds while it works."""
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return resident("VmHWM")


def main(order: dict[str, Any]) -> None:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    import swirl.stages.train
    import tests.tiny
    from swirl.config import presets
    from swirl.config.params import validate
    from swirl.config.presets import laid_over
    from swirl.core.memory import give_back
    from swirl.core.threads import spread
    from swirl.models import adapters
    from swirl.models.loading import make_deterministic

    imported = resident("VmRSS")
    params = validate(laid_over(presets.tree(ROOT, order["preset"]), order["changes"]), "peaks")
    make_deterministic(params.runtime.threads)
    shape, dtype = order["shape"], getattr(torch, params.runtime.dtype)

    def model() -> Any:
        torch.manual_seed(0)
        heads = shape["num_attention_heads"]
        config = Qwen3Config(
            **shape, head_dim=shape["hidden_size"] // heads, max_position_embeddings=params.runtime.context,
            attn_implementation=params.runtime.attention, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1,
        )  # fmt: skip
        return Qwen3ForCausalLM(config).to(dtype).eval()

    policy = model()
    give_back()  # what it took in float32, which a stage that loads it in another type never takes

    def roll_out(worker: int) -> None:
        from swirl.comb.sampling import Sampling, choose
        from swirl.comb.slots import Slots

        rng, most = random.Random(worker), params.runtime.context
        slots, asked = Slots(policy, most), params.rollout.in_flight
        at_once = max(1, 16384 // most)
        for first in range(0, asked, at_once):
            new = [[rng.randrange(2, shape["vocab_size"]) for _ in range(most - 8)] for _ in range(at_once)]
            slots.read([(slots.open(), ids) for ids in new[: asked - first]])
        for _ in range(3):
            logits = slots.read([(slot, [5]) for slot in range(asked)])
            choose(logits, torch.full((asked,), 0.5, dtype=torch.float64), Sampling(1.0, params.rollout.top_p))

    workers = params.runtime.workers
    rolled = peak(lambda: spread(roll_out, range(workers), workers))
    give_back()
    if params.train.lora:
        adapters.add(policy, params.train.lora.rank, params.train.lora.alpha, params.train.lora.targets, 0)
        reference = None
    else:
        reference = model().requires_grad_(False)
    train = swirl.stages.train
    chat = tests.tiny.chat(params.runtime.context)
    settings = train.Settings(
        params.train.swirl.states, params.train.swirl.samples,
        train.Sampling(max_tokens=params.rollout.max_action_tokens), 1e-4, 0, "rloo", 0.1, 1.0, params.train.packed,
        params.train.token_budget, workers, 0, params.train.gradient_checkpointing,
    )  # fmt: skip
    trainer = train.Trainer(train.Policy("p", policy, chat, params.runtime.context), reference, Judge(), settings)
    updated = peak(lambda: [trainer.update(number, batch(params, shape["vocab_size"])) for number in range(2)])
    print(json.dumps({"imported": imported, "rolled": rolled, "updated": updated, "tokens": trainer.work.tokens}))


class Judge:
    """Random rewards."""

    def scores(self, combs: Any) -> list[list[float]]:
        return [[random.random() for _ in comb.teeth] for comb in combs]


def batch(params: Any, vocabulary: int) -> list[list[Any]]:
    """Trajectories of five states each, which begin alike only by chance."""
    from swirl.core.types import SubTrajectory

    rng, made = random.Random(0), []
    length = params.runtime.context - params.rollout.max_action_tokens
    for name in range(params.train.swirl.states // 5):
        ids = tuple(rng.randrange(2, vocabulary) for _ in range(length))
        made.append([SubTrajectory(f"t{name}", "q", "b", k, ids[: length * (k + 1) // 5], (5,), 0.5) for k in range(5)])
    return made


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
