"""The model card of an exported model, README.md: what it is, what it was made of, its scores, what nobody tested.

All of it comes from params and from the reports of the project's last run. What is not known is not said, and scores of
other weights than those that are exported are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swirl.config.base_model import ColdStart, EmbeddedBase, EndpointBase, Pretrained
from swirl.config.params import Params
from swirl.config.trajectories import Imported
from swirl.config.yaml_text import dump, read
from swirl.core import records
from swirl.core.errors import DataError
from swirl.core.layout import Layout
from swirl.core.splits import SPLITS, counts
from swirl.core.types import Score, StateAction
from swirl.evaluation.state_scores import state_measures
from swirl.models.pointers import Pointer, read_pointer
from swirl.pipeline.dvc_file import dvc_hash
from swirl.pretraining.cold_start_base import ADAPTER
from swirl.serving.export_folder import CARD, MARK, Form

_MODELS = ("base", "sft", "swirl")
_LIBRARIES: Mapping[Form, str] = {"adapter": "peft", "merged": "transformers", "gguf": "llama.cpp"}
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""
_UNKNOWN = ("Not known here: this folder is no model of the project that exported it.\n",)


def write_card(folder: Path, form: Form, model: Path, params: Params, layout: Layout, rank: int = 0) -> None:
    """Write the card of what was exported from `model` into `folder`; `rank` is an adapter's."""
    item = next((name for name in _MODELS if layout.model(name).resolve() == model.resolve()), None)
    below = model if item is None else layout.model("base")
    base = read_pointer(below) or read_pointer(below / ADAPTER)
    head: dict[str, Any] = {"library_name": _LIBRARIES[form], "pipeline_tag": "text-generation", "tags": ["swirl"]}
    if base and base.revision:
        head["base_model"] = base.model
    parts = [
        f"---\n{dump(head)}---\n\n# {folder.resolve().name}\n",
        _what(item, form, params),
        "## How to load it\n",
        *_loading(folder, form, rank),
        "## Base\n",
        _base(params, base.revision if base else "") if item else _others(base),
        "## Data\n",
        *(_data(params, layout, item) if item else _UNKNOWN),
        "## Method\n",
        *(_method(params, layout, item) if item else _UNKNOWN),
        "## Scores\n",
        *_scores(model, layout, item),
        "## What it was not tested for\n",
        *_untested(params, form, item),
    ]
    (folder / CARD).write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def _what(item: str | None, form: Form, params: Params) -> str:
    kinds = {
        "swirl": "A language model that works through questions step by step with tools, tuned by step-wise RL (SWiRL)",
        "sft": "A language model that works through questions step by step with tools, tuned on filtered steps",
        "base": "The language model that tuning began with",
        None: "A language model",
    }
    forms = {
        "adapter": "a LoRA adapter",
        "merged": "whole weights",
        "gguf": "a GGUF file for llama.cpp",
    }
    prompts = "It was made and measured with the prompts in `prompts/`, and expects them."
    if all(one.source == "logs" for one in params.download.benchmarks.values()):
        prompts = (
            "It was made and measured in logged conversations, and expects their system turns and tools; it never saw "
            "the prompts in `prompts/`, with which `swirl ask` and `swirl evaluate` would ask it."
        )
    if item is None:
        prompts = "The prompts in `prompts/` and the settings beside them are those of the project that exported it."
    return f"{kinds[item]}, {MARK} as {forms[form]}. {prompts}\n"


def _loading(folder: Path, form: Form, rank: int) -> Iterator[str]:
    name = folder.resolve().name
    if form == "merged":
        yield (
            f'```python\nmodel = AutoModelForCausalLM.from_pretrained("{name}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n```\n'
        )
    elif form == "gguf":
        yield f"```bash\nllama-server -m {name}/{name}.gguf\n```\n"
    elif (folder / "base").is_dir():
        yield f'```python\nmodel = AutoPeftModelForCausalLM.from_pretrained("{name}")\n```\n'
        yield (
            "`adapter_config.json` names the folder `base` where it was written. In another place, load both:\n\n"
            f'```python\nbase = AutoModelForCausalLM.from_pretrained("{name}/base")\n'
            f'model = PeftModel.from_pretrained(base, "{name}")\n```\n'
        )
        yield _vllm(f"{name}/base", name, rank)
    elif (pointer := read_pointer(folder)) and pointer.revision:
        yield f'```python\nmodel = AutoPeftModelForCausalLM.from_pretrained("{name}")\n```\n'
        yield _vllm(f"{pointer.model} --revision {pointer.revision}", name, rank)
    else:
        yield (
            "It stands on the weights that `model.json` names, by a path from this folder. `swirl evaluate`, `swirl "
            "ask` and `swirl.models.loading.load_model` take it.\n"
        )


def _vllm(base: str, name: str, rank: int) -> str:
    least = next((limit for limit in _RANKS if limit >= rank), None)
    if least is None:
        return f"vLLM serves ranks up to {_RANKS[-1]}; this one has {rank}: export it as merged for vLLM.\n"
    command = f"vllm serve {base} --enable-lora --max-lora-rank {least} --lora-modules {name}={name}"
    return f"```bash\n{command}\n```\n"


def _base(params: Params, commit: str) -> str:
    base = params.base_model
    if isinstance(base, Pretrained | ColdStart):
        at = f", commit {commit}" if commit else ""
        taught = ", taught the format of tool calls by demonstrations (a cold start)" * (base.source == "cold_start")
        return f"{base.model}{at}{taught}. Its licence and its limits hold for this model, too.\n"
    if isinstance(base, EndpointBase):
        return f"The model {base.server.model} of a server.\n"
    if isinstance(base, EmbeddedBase):
        return "A tiny model made from nothing in a generated, fictional world. It knows nothing of the real one.\n"
    return "A tiny model made from a benchmark's annotated solutions.\n"


def _others(base: Pointer | None) -> str:
    """What a model that is none of the project's stands on, by its own pointer."""
    if base is None:
        return _UNKNOWN[0]
    at = f", commit {base.revision}" if base.revision else ""
    name = base.model if base.revision else Path(base.model).name
    return f"{name}{at}, as the exported folder names it. Its licence and its limits hold for this model, too.\n"


def _data(params: Params, layout: Layout, item: str) -> Iterator[str]:
    for name, benchmark in params.download.benchmarks.items():
        splits = counts(benchmark)
        listed = ", ".join(f"{split} {splits[split]}" for split in SPLITS if split in splits)
        yield f"- {name} ({benchmark.source}): questions by split: {listed}"
    if item != "base" and layout.filters.exists():
        found = records.load_json(layout.filters)
        kept = found["kept"]
        imported = isinstance(params.synthesize, Imported)
        made = "logged conversations" if imported else "trajectories that the base made of the training questions"
        yield (
            f"\nOf {found['trajectories']} {made}, the filter "
            f"`{found['strategy']}` kept {kept['trajectories']}, with {kept['steps']} steps."
        )
    if params.actions.format == "native":
        calls = "It calls tools as its chat template does: give them as `tools`, and read calls in the template's form"
    else:
        calls = "It writes calls in tags, `<tool> ... </tool>`, which its prompts teach, not as its chat template does"
    thoughts = {"none": "without thoughts", "keep": "with thoughts that stay in the conversation"}
    how = thoughts.get(params.actions.thinking, "with thoughts, past ones as the template writes them")
    yield f"\n{calls}; it was trained {how} (`actions` in `swirl.yaml`)."
    yield ""


def _method(params: Params, layout: Layout, item: str) -> Iterator[str]:
    if item == "base":
        yield "Nothing of it was trained by reinforcement.\n"
        return
    way, rl, sft = params.train, params.train.swirl, params.train.sft
    weights = f"a LoRA adapter of rank {way.lora.rank}, alpha {way.lora.alpha}" if way.lora else "all weights"
    path = layout.metrics(f"train-{item}")
    measured: dict[str, Any] = records.load_json(path) if path.exists() else {}
    if item == "swirl":
        length = f"{measured['step']:g}" if "step" in measured else f"{rl.updates}" if rl.updates else "some"
        yield (
            f"Step-wise RL ([arXiv 2504.04736](https://arxiv.org/abs/2504.04736)) of {weights}: {length} updates of "
            f"{rl.states} states with {rl.samples} sampled actions each, estimator {rl.estimator}, KL weight "
            f"{rl.kl_coefficient:g}, learning rate {rl.lr:g}, temperature {rl.temperature:g}, seed {params.seed}.\n"
        )
        yield f"Reward: {_judge(params)}.\n"
    else:
        yield f"Supervised training of {weights} on the kept steps: {sft.epochs} epochs, learning rate {sft.lr:g}.\n"
        yield f"The steps were filtered by verdicts of: {_judge(params)}.\n"


def _judge(params: Params) -> str:
    judge = params.reward_model
    named = getattr(judge, "model", None) or getattr(getattr(judge, "server", None), "model", "")
    asked = f"a judge of source {judge.source}" + (f", {named}" if named else "")
    if not (parts := params.judge.rewards):
        return asked
    listed = [f"{asked if part.name == 'judge' else f'`{part.name}`'} (weight {part.weight:g})" for part in parts]
    return f"the mean by weights of {' and '.join(listed)}"


def _scores(model: Path, layout: Layout, item: str | None) -> Iterator[str]:
    if item is None:
        yield "None: the project that exported it did not measure this folder.\n"
        return
    own, base = (_read(layout, name) for name in (item, "base"))
    states = _states(layout, item) if _is_of(model, layout, item) else []
    yield from states
    if states and not own:
        return
    if not own or not _is_of(model, layout, item):
        why = "the project's evaluation is of other weights" if own else "it was not evaluated"
        yield f"None: {why}.\n"
        return
    yield (
        "Accuracy in percent with its 95% Wilson interval over questions, and the p-value of the paired test against "
        "the base. Other seeds differ by more than these intervals say.\n"
    )
    yield "| benchmark | tools | questions | base | this model | p |\n|---|---|---|---|---|---|"
    for cell, score in own.items():
        before = base.get(cell)
        p = _p(layout, score) if item != "base" else None
        yield (
            f"| {score.benchmark} | {'yes' if score.with_tools else 'no'} | {score.n} | "
            f"{_percent(before)} | {_percent(score)} | {'' if p is None else '< 0.001' if p < 0.001 else f'{p:.2g}'} |"
        )
    yield ""


def _read(layout: Layout, name: str) -> dict[tuple[str, bool], Score]:
    path = layout.evaluation(name)
    rows = [records.from_dict(Score, row) for row in records.load_json(path)] if path.exists() else []
    return {(row.benchmark, row.with_tools): row for row in rows}


def _p(layout: Layout, score: Score) -> float | None:
    """The p-value that the report has for this score."""
    rows = records.load_json(layout.results)["scores"] if layout.results.exists() else []
    same = ("benchmark", "model", "with_tools", "n", "accuracy")
    found = [row["p_vs_base"] for row in rows if all(row[key] == getattr(score, key) for key in same)]
    return found[0] if found else None


def _percent(score: Score | None) -> str:
    if score is None:
        return ""
    return f"{100 * score.accuracy:.1f} ({100 * score.ci_low:.1f} to {100 * score.ci_high:.1f})"


def _states(layout: Layout, item: str) -> list[str]:
    """What the model does in the states of logged conversations, as lines of a table; empty if it was not asked."""
    paths = {name: layout.state_actions(name) for name in ("base", item)}
    actions = {name: records.load(StateAction, path) for name, path in paths.items() if path.exists()}
    try:
        measured = state_measures(actions)
    except DataError:  # of two judges, whose rewards are not compared: without the base
        measured = state_measures({item: actions[item]})
    found = [one for one in measured if one.model == item]
    if not found:
        return []
    lines = [
        "In the states of held-out logged conversations, in percent; differences to the base with a paired 95% "
        "bootstrap interval over conversations. Same tools and calls: as logged.\n",
        "| benchmark | measure | conversations | this model | over the base |\n|---|---|---|---|---|",
    ]
    for one in found:
        by = f" by `{one.judge}`, {one.judge_role}" if one.judge else ""
        more = ""
        if one.over_base is not None and one.over_base_low is not None and one.over_base_high is not None:
            more = f"{100 * one.over_base:+.1f} ({100 * one.over_base_low:+.1f} to {100 * one.over_base_high:+.1f})"
        name = one.measure.replace("_", " ")
        lines.append(f"| {one.benchmark} | {name}{by} | {one.n} | {100 * one.mean:.1f} | {more} |")
    return [*lines, ""]


def _is_of(model: Path, layout: Layout, item: str) -> bool:
    """Whether the evaluation that dvc.lock records, if any, read these weights; the base's is recorded by a report."""
    lock = layout.root / "dvc.lock"
    stages = (read(lock) or {}).get("stages") or {} if lock.exists() else {}
    deps = (stages.get(f"evaluate@{item}") or {}).get("deps") or []
    known = {dep["path"]: dep.get("md5") for dep in deps}
    path = layout.model(item).relative_to(layout.root).as_posix()
    return path not in known or known[path] == dvc_hash(model)


def _untested(params: Params, form: Form, item: str | None) -> Iterator[str]:
    if item is None:
        yield "- Anything: what it can do was not measured here."
        return
    names = [name for name, one in params.download.benchmarks.items() if counts(one).get("evaluation")]
    yield f"- Anything but {', '.join(names) or 'nothing'}, with the tools and prompts named here."
    yield "- Safety, bias, truthfulness, other languages, long conversations: none of these was measured."
    yield "- Whether it lost what its base could do elsewhere."
    if form == "gguf":
        yield "- This file: scores are those of the model before conversion. A quantised one will differ."
    elif form == "merged":
        yield "- Other numeric types and servers: scores are those of the run that made it."
    else:
        yield "- Servers that load adapters: scores are those of the run that made it."
