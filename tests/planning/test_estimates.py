"""`swirl plan`: numbers worked out by hand, and every preset planned without a model or a network."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from swirl.config import presets
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.planning import estimates
from swirl.planning.workload import expected_states, questions, rl_updates, rollouts

ROOT = Path(__file__).parents[2]


def params(name: str = "mini", **changes: object) -> Params:
    return validate(laid_over(presets.tree(ROOT, name), changes), name)


def planned(chosen: Params, root: Path = ROOT) -> dict[str, estimates.Planned]:
    return {one.stage: one for one in estimates.plan(chosen, root)}


def is_unknown(value: float | None) -> bool:
    return value is not None and math.isnan(value)


def test_a_judge_learns_from_questions_of_pretrain_besides() -> None:
    stages = planned(params("smollm2-135m"))
    # two passes of its own 60 + 240 questions, and of the 400 of pretrain
    assert stages["reward_model"].does.endswith(": 1,400 conversations, passes counted")


def test_the_default_by_hand() -> None:
    stages = planned(params())
    # 400 search questions of 5 steps and 400 problems of 10, two trajectories each
    assert stages["synthesize"].calls == 400 * 2 * 5 + 400 * 2 * 10 == 12_000
    # a prompt of 250 tokens; each step an action of 32 and a result of 1000 characters
    assert stages["synthesize"].tokens == 800 * (250 + 5 * (32 + 250)) + 800 * (250 + 10 * (32 + 250))
    assert stages["judge"].verdicts == 12_000
    # at most 12,000 / 24 updates of up to 24 states and 9 more of a last trajectory of ten; a look before the first and
    # after every tenth at 100 + 100 development questions
    assert stages["train@swirl"].calls == 500 * 33 * 8 + 51 * (100 * 5 + 100 * 10)
    assert stages["train@swirl"].verdicts == stages["train@swirl"].calls
    assert stages["train@sft"].calls == 2 * (100 * 5 + 100 * 10)  # one look per epoch
    # four layers of 128, and at most 2000 words; the base and the ceiling in float32
    weights = 4 * (4 * 128 * 128 + 3 * 128 * 384) + 128 * 2000
    assert stages["base_model"].disk == 2 * 4 * weights
    # the model, and checkpoints of the weights and two moments: two of looks, two since, one in the making
    assert stages["train@swirl"].disk == 4 * weights + 5 * 12 * weights
    # every benchmark with tools, and the four search benchmarks also without
    assert stages["evaluate@base"].calls == 400 * 10 + 4 * 400 * 5 + 4 * 400
    five = planned(params(evaluate={"samples": 5, "temperature": 1.0}), ROOT)["evaluate@base"]
    assert five.calls == 5 * stages["evaluate@base"].calls
    assert list(stages) == [
        "download", "check_questions", "index", "base_model", "reward_model", "synthesize", "check_trajectories",
        "judge", "filter", "check_steps", "train@sft", "train@swirl", "evaluate@ceiling", "evaluate@base",
        "evaluate@sft", "evaluate@swirl", "report",
    ]  # fmt: skip


def test_what_rl_visits_of_the_expected_states() -> None:
    short = params(train={"swirl": {"updates": 60, "passes": None}})
    does = planned(short)["train@swirl"].does
    # of the 12,000 steps allowed 45% are taken, and of the trajectories 40% are kept
    assert does.startswith("60 updates of 24 states x 8 actions, 67% of about 2,160 kept states; looks")
    assert planned(params())["train@sft"].does.startswith("2 passes over the kept steps")
    swirl = {"swirl": {"updates": None, "passes": 1.5}}
    stage = planned(params(train=swirl))["train@swirl"]
    # 1.5 x 2160 / 24, and at most 1.5 x 12,000 / 24
    said = "135 updates (at most 750) of 24 states x 8 actions, 1.5 passes over all of about 2,160 kept states"
    assert stage.does == f"{said}; looks at development questions: 76"
    assert stage.calls == 750 * 33 * 8 + 76 * (100 * 5 + 100 * 10)


@pytest.mark.parametrize(
    ("limits", "states"),
    [
        ({"strategy": "none"}, 5400),
        ({"max_trajectories": 100}, 337.5),
        ({"max_trajectories": ["both"]}, 1890),
        ({"max_per_benchmark": 30}, 202.5),
    ],
)
def test_the_expected_states_follow_the_filter(limits: dict[str, object], states: float) -> None:
    chosen = params(filter=limits)
    assert expected_states(chosen, rollouts(chosen, ROOT, "train", 2)) == pytest.approx(states)


def test_fewer_states_than_a_batch_are_a_batch() -> None:
    assert rl_updates(params(train={"swirl": {"updates": None, "passes": 3.0}}), 10) == 3


@pytest.mark.parametrize("name", ["qwen3-0.6b", "gemma-2-2b", "gemma-2-9b", "gemma-2-27b"])
def test_a_presets_comment_says_the_updates_of_its_plan(name: str) -> None:
    said = re.search(r"about ([\d,]+) updates by `swirl plan`", (ROOT / f"presets/{name}.yaml").read_text())
    assert said and planned(params(name))["train@swirl"].does.startswith(f"{said[1]} updates (at most ")


@pytest.mark.parametrize("name", presets.names(ROOT))
def test_every_preset_can_be_planned(name: str) -> None:
    text = estimates.text(estimates.plan(params(name), ROOT))
    assert text.splitlines()[0].split()[:3] == ["stage", "actions", "tokens"]
    assert "Counts are upper bounds" in text


def test_the_papers_run() -> None:
    stages = planned(params("gemma-2-27b"))
    assert stages["synthesize"].calls == 10_000 * 5 * 5 + 7_473 * 5 * 10
    assert "by http://127.0.0.1:8000/v1" in stages["synthesize"].does
    assert stages["evaluate@ceiling"].calls is None
    assert stages["base_model"].disk == pytest.approx(54.5e9, rel=0.001)  # 27.2 billion weights of two bytes on the hub
    # rank x (inputs + outputs), in 46 layers: for q; for k and v; for o; for gate, up and down
    adapter = 46 * 32 * ((4608 + 4096) + 2 * (4608 + 2048) + (4096 + 4608) + 3 * (4608 + 36_864))
    assert adapter == 228_360_192
    asked = stages["train@swirl"].verdicts
    assert asked is not None
    answers = asked * 512 * 4  # what the judge writes is kept
    assert stages["train@swirl"].disk == 2 * adapter + 5 * 12 * adapter + answers


def test_a_judge_that_is_paid_has_a_price() -> None:
    tree = presets.tree(ROOT, "gemma-2-27b")
    reward, clients = tree["reward_model"], tree["clients"]
    priced = {**clients["default"], "cost_per_million_input": 2.0, "cost_per_million_output": 8.0}
    stages = planned(params("gemma-2-27b", clients={**clients, reward["server"]["url"]: priced}))
    asked = 2 * (10_000 * 5 * 5 + 7_473 * 5 * 10)  # every step, and once more if it got no verdict
    step = 256 + 400  # tokens of an action and of a result
    # at most twice, the judge reads each state with its action
    search = 5 * (250 + 256) + step * (0 + 1 + 2 + 3 + 4)
    calculate = 10 * (250 + 256) + step * sum(range(10))
    read = asked * 300 + 2 * (10_000 * 5 * search + 7_473 * 5 * calculate)
    price = (read * 2.0 + asked * reward["max_tokens"] * 8.0) / 1e6
    assert stages["judge"].verdicts == asked + 2 * (10_000 + 7_473) * 5  # and a grade for every answer
    assert f"{read:,} prompt tokens, at most {price:,.2f} by its prices" in stages["judge"].does


def test_a_judge_that_is_no_part_of_the_reward_is_asked_for_no_verdict() -> None:
    rewards = [{"name": "mine:Mine", "weight": 1.0, "options": {}}]
    stages = planned(params("gemma-2-27b", judge={"rewards": rewards}))
    assert stages["judge"].verdicts == 2 * (10_000 + 7_473) * 5  # a grade for every answer, once more if there is none
    assert stages["judge"].does == "a verdict for every step, by judge.rewards alone"
    assert stages["train@swirl"].verdicts == 0
    matched = planned(params(judge={"rewards": rewards}))
    assert matched["judge"].disk == 12_000 * 100  # its verdicts are stored all the same
    assert matched["evaluate@base"].verdicts == 0


def test_what_is_not_known_is_said_to_be_so() -> None:
    own = {"source": "own", "files": {"train": "a.jsonl"}, "corpus": "c", "task": "search", "train": "all"}
    chosen = params(download={"benchmarks": {"staff": own}})
    stages = planned(chosen)
    for unknown in ("download", "index", "synthesize", "judge", "filter"):
        assert is_unknown(stages[unknown].disk)
    assert is_unknown(stages["train@sft"].tokens)
    assert is_unknown(stages["synthesize"].calls)
    assert is_unknown(stages["judge"].verdicts)
    assert stages["train@swirl"].does.startswith("? updates (at most ?) of 24 states x 8 actions; looks")
    short = params(download={"benchmarks": {"staff": own}}, train={"swirl": {"updates": 60, "passes": None}})
    updates = planned(short)["train@swirl"]
    assert updates.calls == 60 * 33 * 8  # no looks: there are no development questions
    assert updates.does.startswith("60 updates of 24 states x 8 actions; looks")
    shown = {line.split()[0]: line.split() for line in estimates.text(list(stages.values())).splitlines() if line}
    assert shown["synthesize"][1:4] == ["?", "?", "?"]
    assert shown["index"][1] == "?"
    nameless = {"source": "pretrained", "model": "someone/model", "revision": "", "trust_remote_code": False}
    stages = planned(params("qwen3-0.6b", base_model=nameless))
    assert is_unknown(stages["base_model"].disk)


def test_rows_that_are_here_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "data/official"
    (folder / "c").mkdir(parents=True)
    (folder / "c/a.txt").write_text("t" * 100)
    (folder / "a.jsonl").write_text("{}\n{}\n\n{}")
    (folder / "ids.txt").write_text("x\ny\n")
    own = {"source": "own", "files": {"train": "a.jsonl"}, "corpus": "c", "task": "search", "train": "all"}
    own["eval_ids"] = "ids.txt"
    stages = planned(params(download={"benchmarks": {"staff": own}}, evaluate={"without_tools": False}), tmp_path)
    assert stages["synthesize"].calls == 3 * 2 * 5
    assert stages["evaluate@base"].calls == 2 * 5
    assert stages["download"].disk == 100 + len("{}\n{}\n\n{}")


def test_listed_ids_are_counted_and_not_the_whole_split(tmp_path: Path) -> None:
    (tmp_path / "data/official").mkdir(parents=True)
    musique = {"source": "hub", "eval_ids": "ids.txt"}
    chosen = params(download={"benchmarks": {"musique": musique}}, evaluate={"without_tools": False})
    assert planned(chosen, tmp_path)["evaluate@base"].calls == 2417 * 5
    (tmp_path / "data/official/ids.txt").write_text("".join(f"id{n}\n" for n in range(500)))
    assert planned(chosen, tmp_path)["evaluate@base"].calls == 500 * 5
    gone = params(download={"benchmarks": {"hotpotqa": {"source": "hub", "eval_ids": "gone.txt"}}})
    assert questions(gone, tmp_path, "evaluation") == {"hotpotqa": 7405}  # without the list, all that there are
    drawn = {"source": "file", "files": {"train": "train.json"}, "evaluation": "all"}
    whole = params(download={"benchmarks": {"hotpotqa": drawn}})
    assert questions(whole, tmp_path, "evaluation") == {"hotpotqa": 90_447}  # all rows of the train file


def test_the_hubs_data_is_as_large_as_the_lock_file_says(tmp_path: Path) -> None:
    chosen = params(download={"benchmarks": {"gsm8k": {"source": "hub", "train": 10, "evaluation": 10}}})
    assert is_unknown(planned(chosen, tmp_path)["download"].disk)
    (tmp_path / "data/official").mkdir(parents=True)
    names = ("main/train-00000-of-00001.parquet", "main/test-00000-of-00001.parquet")
    files = {name: {"bytes": 1000, "sha256": ""} for name in names}
    (tmp_path / "data/official/hub.lock.json").write_text(
        json.dumps({"openai/gsm8k": {"commit": "c" * 40, "files": files}})
    )
    assert planned(chosen, tmp_path)["download"].disk == 2 * 2000


def test_only_questions_to_evaluate_on_can_be_planned() -> None:
    stages = planned(params("gemma-2-27b", download={"benchmarks": {"gsm8k": {"source": "hub", "evaluation": 5}}}))
    assert stages["synthesize"].calls == 0
    assert stages["evaluate@base"].calls == 5 * 10


def test_what_a_tool_shows_is_counted_in_its_unit() -> None:
    words = {"search_output_limit": 1000, "search_output_unit": "characters"}
    more, less = planned(params("qwen3-0.6b")), planned(params("qwen3-0.6b", tools=words))
    tokens, fewer = more["synthesize"].tokens, less["synthesize"].tokens
    assert tokens is not None and fewer is not None
    assert tokens - fewer == (1000 * 2 * 5 + 1000 * 2 * 10) * (400 - 250)


def test_a_second_judge_is_planned_where_it_judges() -> None:
    pointed = {"source": "pretrained", "model": "google/gemma-2-2b-it", "revision": "", "trust_remote_code": False}
    second = {**pointed, "verdict": "rationale", "max_tokens": 100, "votes": 3, "temperature": 1.0}
    before, after = planned(params()), planned(params(evaluate={"judge": second}))
    changed = [name for name in after if after[name] != before[name]]
    assert changed == ["evaluate@ceiling", "evaluate@base", "evaluate@sft", "evaluate@swirl"]
    calls = after["evaluate@base"].calls
    assert calls is not None
    assert after["evaluate@base"].verdicts == 3 * calls


def test_what_is_off_is_said_to_be_off() -> None:
    stages = planned(params(train={"methods": ["swirl"]}))
    assert stages["train@sft"].does == "off (train.methods)"
    assert stages["evaluate@sft"].calls is None
    assert stages["train@swirl"].calls == planned(params())["train@swirl"].calls


@pytest.mark.parametrize("rank", [None, 4])
def test_a_cold_start_by_hand(rank: int | None, tmp_path: Path) -> None:
    """A Llama of two layers of 8, 40 questions shown three times."""
    shape = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16}
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text(json.dumps({**shape, "vocab_size": 100, "tie_word_embeddings": True}))
    base = {
        "source": "cold_start", "model": "m", "revision": "", "epochs": 3, "batch_size": 8, "token_budget": 4096,
        "lora": {"rank": rank, "alpha": 8, "targets": ["all-linear"]} if rank else None, "lr": 1e-4, "warmup": 0,
        "weight_decay": 0.0, "clip": 1.0, "gradient_checkpointing": False, "mixed_precision": "bf16",
    }  # fmt: skip
    judge = {"source": "pretrained", "model": "m", "revision": "", "trust_remote_code": False, "verdict": "token"}
    judge |= {"max_tokens": 8, "votes": 1, "temperature": 0.0}
    data = {"benchmarks": {"hotpotqa": {"source": "file", "files": {"train": "h"}, "pretrain": 40, "evaluation": 9}}}
    stage = planned(params(base_model=base, reward_model=judge, download=data), tmp_path)["base_model"]
    assert stage.tokens == 3 * 40 * (250 + 5 * (32 + 250))
    weights = 100 * 8 + 2 * (4 * 8 * 8 + 3 * 8 * 16)
    adapter = 4 * 2 * (4 * (8 + 8) + 3 * (8 + 16))
    trained = adapter if rank else weights
    assert stage.disk == 4 * weights + 3 * 12 * trained
