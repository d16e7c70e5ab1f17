"""What each of two processes does in tests/rl/test_sharded.py: `python -m tests.rl.sharded_ranks FOLDER`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

from swirl.comb.attention import Sequences, head, read
from swirl.comb.combs import tokens_of
from swirl.config import presets
from swirl.config.params import validate
from swirl.config.presets import laid_over
from swirl.core.checkpoints import Checkpoints
from swirl.core.distributed import ALONE, Processes, join
from swirl.core.layout import Layout
from swirl.models import adapters
from swirl.models.loading import load_tokenizer, save
from swirl.models.masters import Masters
from swirl.models.room import training_ahead
from swirl.models.sharding import compute_dtype, release, shard, trained_weights, whole
from swirl.rl.supervised import comb_of, supervised_gradients
from swirl.rl.trainer import Trainer
from swirl.rollout.engine import Policy
from swirl.wiring.trainable import deal_out, finished, load_trainable
from tests import tiny
from tests.rl.test_trainer import CHAT, SETTINGS, Rewards, steps

BATCHES = [
    [steps(3, "a"), steps(1, "b"), steps(4, "c")],
    [steps(2, "d")],  # the second process has nothing to do
    [steps(2, "e"), steps(5, "f"), steps(2, "g"), steps(1, "h")],
]
CASES: dict[str, tuple[Any, bool, bool]] = {
    "tied": (tiny.qwen3, False, False),
    "adapter": (tiny.llama, True, False),
    "recomputed": (tiny.gemma2, False, True),
}
"""Family, whether an adapter is trained, and whether activations are recomputed."""
SAVED: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "weights": ({"dtype": "bfloat16"}, None),
    "adapter": ({}, {"rank": 2, "alpha": 4, "targets": ["all-linear"]}),
    "adapter in bfloat16": ({"dtype": "bfloat16"}, {"rank": 2, "alpha": 4, "targets": ["all-linear"]}),
}
"""Changes of `runtime`, and `train.lora`, of models that are saved in the end."""
ROOT = Path(__file__).resolve().parents[2]
AFTER = 2
"""Updates after which there is a checkpoint."""
TOKENS = [3, 5, 8, 4]


def learner(case: str, processes: Processes = ALONE, sharded: bool = False) -> Trainer:
    """A trainer of a tiny policy in float32; where it is sharded, policy and reference are dealt out."""
    family, adapter, recompute = CASES[case]
    model, reference = (family(16, seed=seed).float() for seed in (0, 1))
    if adapter:
        reference = None
        adapters.add(model, 2, 4, ["all-linear"], 7)
    else:
        reference.requires_grad_(False)
    if sharded:
        for one in (model, reference) if reference is not None else (model,):
            shard(one)
    settings = dataclasses.replace(SETTINGS, token_budget=60, recompute=recompute)
    policy = Policy("p", model, CHAT, 128)
    return Trainer(policy, reference, Rewards(lambda token: token / 16), settings, processes)


def narrow(sharded: bool) -> tuple[Any, Masters]:
    """A tiny policy in bfloat16 and its masters."""
    model = tiny.llama(16).bfloat16()
    if sharded:
        shard(model)
    return model, Masters(model)


def fine_tune(model: Any, masters: Masters, processes: Processes) -> float:
    """Set the gradients of supervised fine-tuning on one batch; returns the loss."""
    return supervised_gradients(model, masters, BATCHES[0], True, 60, 1, processes)


def logits(model: Any) -> torch.Tensor:
    """(tokens, V), below no module's forward but ours."""
    with torch.no_grad():
        hidden = read(model, torch.tensor(TOKENS), torch.arange(len(TOKENS)), Sequences([len(TOKENS)]))
        return head(model, hidden)


def _trained(case: str, folder: Path, processes: Processes) -> dict[str, Any]:
    """Train from the start, and from a checkpoint that one process wrote; leave one that another may go on from."""
    one, again = learner(case, processes, True), learner(case, processes, True)
    rows = [one.update(number, batch) for number, batch in enumerate(BATCHES[:AFTER])]
    named, optimizer = one.masters.named, one.optimizer
    if processes.main:
        Checkpoints(folder / case / "two", "print").save(AFTER, named, [optimizer], {})
    else:
        Checkpoints(folder / case / "other", "print").attend(named, [optimizer])
    rows += [one.update(number, batch) for number, batch in enumerate(BATCHES) if number >= AFTER]
    processes.wait()
    Checkpoints(folder / case / f"one-for-{processes.rank}", "print").restore(
        AFTER, again.masters.named, [again.optimizer]
    )
    again.masters.publish()
    for number in range(AFTER, len(BATCHES)):
        again.update(number, BATCHES[number])
    model = one.policy.model
    with whole(model):
        read_outside = [logits(model) for _ in range(1 + 2 * processes.rank)]  # not equally often
    release(model)
    held = sum(part.to_local().numel() for part in model.parameters())
    return {
        "rows": rows,
        "weights": trained_weights(model, True),
        "resumed": trained_weights(again.policy.model, True),
        "logits": read_outside,
        "held": processes.gather(held),
        "moments": processes.gather(sum(state["exp_avg"].to_local().numel() for state in one.optimizer.state.values())),
        "all": sum(part.numel() for part in model.parameters()),
        "tokens": processes.gather(tokens_of(one.deal.mine([comb_of(group) for group in BATCHES[-1]]), True)[0]),
        "trained": sum(part.numel() for part in model.parameters() if part.requires_grad),
    }


def _summed(case: str, processes: Processes) -> dict[str, Any]:
    """Train with the whole model on each process."""
    one = learner(case, processes)
    rows = [one.update(number, batch) for number, batch in enumerate(BATCHES)]
    return {"rows": rows, "weights": dict(one.masters.named)}


def saved(item: str, folder: Path, processes: Processes = ALONE) -> Path:
    """Train the base in the folder `project` by one step, as stage `train` does; returns where the result is saved."""
    layout = Layout(folder / "project")
    sharding = {"processes": processes.count, "sharding": "full"} if processes.count > 1 else {}
    changes = {"runtime": {"workers": 1, **sharding, **SAVED[item][0]}, "train": {"lora": SAVED[item][1]}}
    params = validate(laid_over(presets.tree(ROOT, "mini"), changes), "tests")
    model = load_trainable(params, layout, item).model
    deal_out(params, model)
    masters = Masters(model)
    fine_tune(model, masters, processes)
    masters.clip(1.0)
    torch.optim.SGD(masters.tensors(), lr=2.0).step()
    masters.publish()
    whole_model = finished(params, layout, item, model, processes)
    place = folder / f"{item}-{processes.count}"
    if processes.main:
        save(whole_model, load_tokenizer(layout.model("base")), place, layout.model("base"), layout.root)
    return place


def _half(processes: Processes) -> dict[str, Any]:
    model, masters = narrow(True)
    loss = fine_tune(model, masters, processes)
    with whole(model):
        computes = {parameter.dtype for parameter in model.parameters()}
    grads = {name: master.grad.full_tensor() for name, master in masters.named.items()}  # type: ignore[union-attr]
    kinds = {master.dtype for master in masters.tensors()}
    found = {"loss": loss, "gradients": grads, "computes": computes, "masters": kinds, "norm": masters.clip(0.5)}
    return found | {"planned": training_ahead(model, True, processes.count), "computed": compute_dtype(model)}


def main() -> None:
    folder, processes = Path(sys.argv[1]), join("cpu")
    found: dict[str, Any] = {case: _trained(case, folder, processes) for case in CASES}
    found["none"] = {case: _summed(case, processes) for case in CASES}
    for item in SAVED:
        saved(item, folder, processes)
    found["half"] = _half(processes)
    if processes.main:
        torch.save(found, folder / "found.pt")
    processes.wait()
    processes.leave()


if __name__ == "__main__":
    main()
