"""`swirl bench synthesis`: trajectories per minute of our engine, and of three ways to use transformers' generation.

All sides work through questions of the default run with the same base model, prompts, tools, temperature and limits:

- ours: conversations stay in their slots, and a step reads only its new tokens;
- batched: `generate` on all conversations together, padded on the left; it reads the whole prefix at every step;
- generate_batch: the same with transformers' continuous batching, 512 tokens per forward pass, started anew at every
  step;
- one at a time: `generate` on one conversation after another; it reads the whole prefix at every step.

A slow side works on fewer questions of the same mix. Ours attends as it is built to; each way of transformers is tried
with torch's fused attention (sdpa) and with plain operations (eager), and counts by the faster. Of a given model, only
the first two are run, and the floor: the time in which the model's own forward pass reads every token of ours once,
prompts and results 512 at a time (on a GPU 32 times as many) and the tokens of actions as many at a time as there are
conversations in flight, at the rates that it has here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swirl.bench.measure import Result, fastest, forget_peak, interleave, repeat, settle, taken_mb
from swirl.core.errors import DataError
from swirl.models.flops import matmul_flops

ATTENTION = ("sdpa", "eager")
"""What transformers' own ways are tried with."""

Say = Callable[[Sequence[tuple[int, ...]]], list[list[int]]]
"""Samples one action in each of the given states; states and actions are token ids."""


def synthesis(
    root: Path, cores: int, rounds: int, repeats: int, model: str | None = None, questions: int = 400
) -> Result:
    """Run the sides: all four with the run's own base, or with the model in the folder `model` ours and batched."""
    if model is not None and not (root / model).is_dir():
        raise DataError(f"there is no model {model!r} to measure: it is a model's folder, as models/base")
    common = {"bench": "synthesis", "repeats": repeats, "model": model or "models/base", "questions": questions}
    theirs = [{**common, "name": "batched"}]
    if model is None:
        theirs.append({**common, "name": "generate_batch", "questions": min(40, questions)})
        theirs.append({**common, "name": "one at a time", "questions": min(6, questions)})
    else:
        theirs.append({**common, "name": "floor"})
    sides: list[Result] = [{**common, "name": "ours", "threads": 1, "workers": cores}]
    sides += [{**side, "threads": cores, "attention": one} for side in theirs for one in ATTENTION]
    rows = fastest(interleave(root, sides, rounds), sides)
    if model is not None:
        rows[-1] |= _floor(rows[0], rows[-1])
    for row in rows:
        row["trajectories_per_minute"] = 60 * row["trajectories"] / row["seconds"]
        row["action_tokens_per_second"] = row["action_tokens"] / row["seconds"]
    return {"bench": "synthesis", "cores": cores, "rows": rows}


def _floor(ours: Result, rates: Result) -> Result:
    """How long the forward pass takes to read each token of ours once."""
    seconds = ours["read_tokens"] / rates["read_rate"] + ours["action_tokens"] / rates["action_rate"]
    same = {key: ours[key] for key in ("trajectories", "action_tokens", "read_tokens")}
    return {**same, "seconds": seconds, "fastest": seconds, "slowest": seconds}


def run_side(side: Result) -> Result:
    """Run one side in this process."""
    import torch

    from swirl.config import params as params_module
    from swirl.core.layout import Layout
    from swirl.wiring.attempts import attempts, roll_out_all
    from swirl.wiring.policies import load_policy
    from swirl.wiring.questions import questions_of

    root = Path.cwd()
    params, layout = params_module.load(root / "params.yaml"), Layout(root)
    given: Result = {key: side[key] for key in ("workers", "attention") if key in side}
    params = params.model_copy(update={"runtime": params.runtime.model_copy(update=given)})
    folder = root / side["model"]
    if not folder.exists():
        raise DataError(f"{folder} does not exist; the benchmark reads a run: `dvc repro` first")
    policy: Any = load_policy(params, folder, "base")  # of a folder, so that it has a model here
    torch.set_num_threads(side["threads"])
    if side["name"] == "floor":
        return _rates(policy, params.rollout.in_flight)
    questions = questions_of(layout, "train")
    names = list(dict.fromkeys(question.benchmark for question in questions))
    share = max(1, side["questions"] // len(names))
    chosen = [question for name in names for question in [q for q in questions if q.benchmark == name][:share]]
    todo = attempts(params, layout, chosen, 1)
    device = policy.model.device
    before = taken_mb(device)
    forget_peak(device)
    made: list[tuple[int, int, int]] = []
    if side["name"] == "ours":

        def once(number: int) -> None:
            done = roll_out_all(params, policy, todo, 1.0, number)
            acted = sum(len(step.token_ids) for t in done for step in t.steps)
            seen = sum(len(t.prompt_ids) + sum(len(step.observation_ids) for step in t.steps) for t in done)
            made.append((len(done), acted, seen))

    else:
        say = _sayer(side["name"], policy, params.rollout.max_action_tokens)

        def once(number: int) -> None:
            torch.manual_seed(number)
            width = 1 if side["name"] == "one at a time" else len(todo)
            counts = [_rounds(policy, todo[i : i + width], say, params) for i in range(0, len(todo), width)]
            made.append((len(todo), sum(counts), 0))

    seconds = repeat(once, 1, side["repeats"])
    peak = taken_mb(device, peak=True) - before
    return {
        "seconds": seconds,
        "trajectories": made[-1][0],
        "action_tokens": sum(acted for _, acted, _ in made[1:]) / len(made[1:]),
        "read_tokens": sum(seen for _, _, seen in made[1:]) / len(made[1:]),
        "peak_mb": peak,
        "matmul_gflops": matmul_flops(device, torch.float32, side.get("workers", 1)) / 1e9,
    }


def _rates(policy: Any, in_flight: int) -> Result:
    """Tokens a second of the model's own forward pass, over 512 tokens of one row and over one token of many rows.

    The seconds are those of one token read, by which the faster attention is told.
    """
    import torch

    def rate(rows: int, columns: int) -> float:
        ids = torch.randint(10, 1000, (rows, columns), generator=torch.Generator().manual_seed(0))
        ids = ids.to(policy.model.device)

        def once(_: int) -> None:
            with torch.no_grad():
                policy.model(input_ids=ids, use_cache=False, logits_to_keep=1)
            settle(policy.model.device)

        return rows * columns / min(repeat(once, 1, 5))

    rows = 1 if policy.model.device.type == "cpu" else 32  # what fills the device
    found = {"read_rate": rate(rows, 512), "action_rate": rate(in_flight, 1)}
    nothing = {"trajectories": 0, "action_tokens": 0, "peak_mb": 0.0, "matmul_gflops": 0.0}
    return {"seconds": [1 / found["read_rate"]], **nothing, **found}


def _rounds(policy: Any, todo: Sequence[Any], say: Say, params: Any) -> int:
    """The agent loop in lockstep, which reads every state in full; returns the number of action tokens."""
    from swirl.core.types import ActionKind
    from swirl.rollout.engine import observe
    from swirl.rollout.reading import Reader, reply_to, tags_of

    chat = policy.chat
    states = [chat.prompt(attempt.prompt) for attempt in todo]
    active, taken, faulty, tokens = list(range(len(todo))), [0] * len(todo), [0] * len(todo), 0
    while active:
        actions = say([states[i] for i in active])
        going = []
        for i, ids in zip(active, actions, strict=True):
            tokens += len(ids)
            taken[i] += 1
            tools = todo[i].tools
            reader = Reader(chat, tags_of(tools))
            said = reader.upto(tuple(ids))
            action = reader.read(said)
            faulty[i] = faulty[i] + 1 if action.faulty else 0
            if action.kind == ActionKind.ANSWER:
                continue
            seen = reply_to(action, len(said)) or observe(tools[action.kind], action.payload)
            states[i] = (*states[i], *said, *chat.turn(seen.text, said[-1] in chat.end_ids))
            full = len(states[i]) + params.rollout.max_action_tokens > policy.context
            if taken[i] < todo[i].max_steps and faulty[i] != params.rollout.max_malformed and not full:
                going.append(i)
        active = going
    return tokens


def _sayer(name: str, policy: Any, longest: int) -> Say:
    """A function that samples actions with transformers' own generation at temperature 1."""
    import torch
    from transformers import GenerationConfig

    model, ends = policy.model, sorted(policy.chat.end_ids)
    padding = policy.chat.tokenizer.pad_token_id
    config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=longest,
        eos_token_id=ends,
        pad_token_id=padding,
    )

    def until_end(ids: Sequence[int]) -> list[int]:
        found = [i for i, token in enumerate(ids) if token in ends]
        return list(ids[: found[0] + 1]) if found else list(ids)

    def padded(states: Sequence[tuple[int, ...]]) -> list[list[int]]:
        width = max(map(len, states))
        ids = torch.tensor([[*([padding] * (width - len(state))), *state] for state in states])
        mask = torch.tensor([[*([0] * (width - len(state))), *([1] * len(state))] for state in states])
        with torch.no_grad():
            out = model.generate(ids.to(model.device), attention_mask=mask.to(model.device), generation_config=config)
        return [until_end(row) for row in out[:, width:].tolist()]

    def continuous(states: Sequence[tuple[int, ...]]) -> list[list[int]]:
        from transformers import ContinuousBatchingConfig

        out = model.generate_batch(
            [list(state) for state in states],
            generation_config=config,
            continuous_batching_config=ContinuousBatchingConfig(num_blocks=256, max_batch_tokens=512),
            progress_bar=False,
        )
        made = sorted(out.values(), key=lambda output: int(str(output.request_id).rsplit("_", 1)[-1]))
        return [until_end(output.generated_tokens) for output in made]

    return continuous if name == "generate_batch" else padded
