"""`swirl plan --time`: the arithmetic by hand with scripted speeds, and a tiny model that is really measured."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
import yaml

from swirl.config import presets
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.layout import Layout
from swirl.core.records import save
from swirl.core.types import Passage, Question
from swirl.planning import speeds as measuring
from swirl.planning.durations import durations, lines, seconds, text
from swirl.planning.earlier import Earlier, earlier, made_with
from swirl.planning.expected import NOT_KNOWN, STEPS, Expected, Talk, Work
from swirl.planning.speeds import Speeds
from tests import gguf_writer, made_up
from tests.families import smollm2

ROOT = Path(__file__).parents[2]
GSM8K = {"source": "file", "files": {"train": "gsm8k/train.jsonl"}}
HOTPOTQA = {"source": "file", "files": {"train": "hotpotqa/train.jsonl", "evaluation": "hotpotqa/dev.jsonl"}}
SETTINGS: dict[str, Any] = {
    "runtime": {"dtype": "bfloat16", "workers": 2, "processes": 1, "context": 1024},
    "tasks": {"search": {"tools": ["search"], "max_steps": 4}, "calculate": {"tools": ["calculator"], "max_steps": 8}},
    "tools": {"search_results": 2, "search_output_limit": 700, "search_output_unit": "characters"},
    "rollout": {"max_action_tokens": 90, "block_size": 32, "in_flight": 32},
    "download": {
        "benchmarks": {
            "hotpotqa": {**HOTPOTQA, "pretrain": 330, "reward": 60, "train": 150, "development": 60, "evaluation": 450},
            "gsm8k": {**GSM8K, "pretrain": 1900, "reward": 300, "train": 600, "development": 100, "evaluation": 400},
        }
    },
    "base_model": {"epochs": 3},
    "reward_model": {"epochs": 1, "heldout": 15, "samples": 3, "pretrain": {"hotpotqa": 20}},
    "synthesize": {"samples": 2},
    "filter": {"strategy": "process"},
    "train": {
        "methods": ["sft", "swirl"],
        "token_budget": 2048,
        "swirl": {"updates": 60, "passes": None, "states": 24, "samples": 8, "check_every": 20, "imitation": 0.0},
        "sft": {"epochs": 2},
    },
    "evaluate": {"samples": 1, "without_tools": False, "block_size": 32, "judge": "same"},
}
"""A base and a judge that are fine-tuned, and all that their work depends on."""
SERVER = {
    "url": "http://127.0.0.1:8000/v1", "model": "m", "api": "completions", "key_env": "", "chat_template_kwargs": {},
}  # fmt: skip
SEARCH, CALCULATE = Talk(100, 40, 3, 30, 180), Talk(100, 40, 4.3, 30, 17)
"""With prompts of 100 tokens, turns of 5, actions of at most 90, and results of 700 characters."""


class Scripted:
    """A chat whose lengths are these."""

    def prompt(self, text: str) -> tuple[int, ...]:
        return (0,) * 100

    def turn(self, text: str, closed: bool) -> tuple[int, ...]:
        return (0,) * (14 if text else 5)

    def count(self, text: str) -> int:
        return len(text.split())


SPEEDS = Speeds(start=5.0, read=1000.0, alone=0.05, full=0.36, in_flight=32, taught=400.0, tuned=500.0, cores=2.0)


def params(**changes: Any) -> Params:
    settings = laid_over(laid_over(presets.tree(ROOT, "smollm2-135m"), SETTINGS), changes)
    return validate(settings, "these settings")


def mini(**changes: Any) -> Params:
    return validate(laid_over(presets.tree(ROOT, "mini"), changes), "mini")


def expected(chosen: Params, found: Earlier | None = None) -> Expected:
    chat: Any = Scripted()
    return Expected(chosen, ROOT, chat, found or Earlier())


def work(chosen: Params, stage: str, found: Earlier | None = None) -> Work:
    return expected(chosen, found).stages()[stage]


def numbers(work: Work) -> list[float]:
    return [work.read + work.judged, work.written, work.passes, work.taught, work.tuned]


def test_seconds_by_hand() -> None:
    speeds = SPEEDS
    # 0.01 s for each further conversation of a pass, on each of two workers
    every = Work(read=2000, written=600, passes=40, taught=800, tuned=1500)
    assert seconds(every, speeds, 2) == pytest.approx(2.0 + 600 * 0.01 / 2 + 40 * 0.05 + 2.0 + 3.0)
    untaught = Speeds(5.0, 1000.0, 0.05, 0.36, 32, math.nan, math.nan, 2.0)
    assert seconds(Work(read=2000), untaught, 2) == 2.0  # a speed that nothing needs was not measured
    stages = {"synthesize": Work(read=2000), "judge": NOT_KNOWN, "train@sft": Work(tuned=1000), "evaluate@sft": Work()}
    two = params(runtime={"processes": 2})
    assert durations(two, stages, speeds) == {
        "synthesize": 7.0,
        "judge": pytest.approx(math.nan, nan_ok=True),
        "train@sft": 5.0 + 2.0 / 2,  # two processes
    }
    served = dataclasses.replace(speeds, served=100.0, asked=10.0)
    both = {"synthesize": Work(served=300), "train@swirl": Work(tuned=1000, asked=50)}
    assert durations(two, both, served) == {"synthesize": 5.0 + 3.0, "train@swirl": 5.0 + 2.0 / 2 + 5.0}


def test_workers_of_ray_by_hand() -> None:
    """The speeds are those of two threads; a worker rolls out on one, and judges on two."""
    drawn, judged = Work(read=2000, written=600, passes=40), Work(judged=3000)
    assert seconds(drawn, SPEEDS, 2) == pytest.approx(2.0 + 600 * 0.01 / 2 + 40 * 0.05)  # 7 s
    stages = {"base_model": drawn, "synthesize": drawn, "judge": judged, "evaluate@swirl": drawn + judged}

    def by(workers: int, threads: int = 2) -> dict[str, float]:
        ray = {"engine": "ray", "workers": workers}
        return durations(params(execution=ray, runtime={"workers": threads}), stages, SPEEDS)

    rolled, both = 5.0 + 7.0 / 2, 5.0 + 7.0 / 2 + 3.0 / 4  # on four threads instead of two; judged on eight
    assert list(by(4).values()) == pytest.approx([12.0, rolled, 5.0 + 3.0 / 4, both])
    assert list(by(1).values()) == pytest.approx([12.0, 5.0 + 14.0, 5.0 + 3.0, 5.0 + 14.0 + 3.0])
    assert by(4, threads=1)["synthesize"] == pytest.approx(5.0 + (2.0 + 600 * 0.01 + 40 * 0.05) / 4)
    here = durations(params(), stages, SPEEDS)
    assert list(here.values()) == pytest.approx([12.0, 12.0, 8.0, 15.0])
    elsewhere = dataclasses.replace(SPEEDS, served=100.0, asked=10.0)
    asked = {"synthesize": Work(served=300), "judge": Work(asked=50)}
    assert durations(params(execution={"engine": "ray", "workers": 4}), asked, elsewhere) == {
        "synthesize": 5.0 + 3.0,
        "judge": 5.0 + 5.0,
    }


def test_a_cold_start_by_hand() -> None:
    chosen = params()
    assert expected(chosen).talks("pretrain") == [(SEARCH, 330), (CALCULATE, 1900)]
    assert SEARCH.size == 100 + 40 + 3 * 30 + 2 * 180
    # three passes over 330 conversations of 590 tokens and 1,900 of 100 + 40 + 4.3 x 30 + 3.3 x 17
    assert work(chosen, "base_model").taught == pytest.approx(3 * (330 * 590 + 1900 * 325.1))


def test_a_judge_that_is_taught_by_hand() -> None:
    found = numbers(work(params(), "reward_model"))
    # 60 and 300 questions three times, of which 15 each are held out, and 20; a verdict takes 14 tokens and its own
    rolled = 3 * (80 * (40 + 2 * 180) + 300 * (40 + 3.3 * 17))
    heldout = 3 * 15 * ((590 - 100 + 3 * 15) + (325.1 - 100 + 4.3 * 15))
    written = 3 * (80 * 90 + 300 * 129)
    # each worker has 570 trajectories in 18 blocks of 32; the last of each block take as long again
    passes = written / 1140 * 18 * 2
    taught = 3 * (65 * (590 + 3 * 15) + 285 * (325.1 + 4.3 * 15))
    assert found == pytest.approx([rolled + heldout, written, passes, taught, 0])


def test_synthesis_and_judging_by_hand() -> None:
    chosen = params()
    written = 2 * (150 * 90 + 600 * 129)
    given = 2 * (150 * 400 + 600 * 96.1)
    assert numbers(work(chosen, "synthesize")) == pytest.approx([given, written, written / 1500 * 24 * 2, 0, 0])
    verdicts = 2 * (150 * 3 + 600 * 4.3) * 15
    assert work(chosen, "judge") == Work(judged=pytest.approx(given + written + verdicts))
    elsewhere = work(params(synthesize={"server": SERVER}), "synthesize")
    assert elsewhere == Work(served=pytest.approx(written))
    assert math.isnan(seconds(elsewhere, SPEEDS, 1))  # the server's time
    judge = {"source": "endpoint", "max_tokens": 8, "votes": 2, "temperature": 1.0, "server": SERVER}
    asked = params(reward_model=judge, judge={"outcome": "model", "grader": SERVER})
    # two votes on every step, and a grade for every answer
    assert work(asked, "judge") == Work(asked=pytest.approx(2 * (2 * (150 * 3 + 600 * 4.3) + 750)))
    own = {"rewards": [{"name": "mine:Mine", "weight": 1.0, "options": {}}]}
    assert work(params(reward_model=judge, judge=own), "judge") == Work()
    assert work(params(reward_model=judge, judge=own), "train@swirl").asked == 0


def test_training_by_hand() -> None:
    chosen = params()
    steps, size = (150 * 3 + 600 * 4.3) / 750, (150 * 590 + 600 * 325.1) / 750
    given, written, verdicts = 60 * 400 + 100 * 96.1, 60 * 90 + 100 * 129, (60 * 3 + 100 * 4.3) * 15
    # 80 development questions a worker, 32 at a time, and as long again
    look = Work(given, given + written + verdicts, written, written / 160 * (80 / 32 + 1))
    looks = numbers(look)
    kept = 2 * 160  # of 0.4 * 1500, at most 160 of each benchmark
    sft = [2 * one for one in looks]
    assert numbers(work(chosen, "train@sft")) == pytest.approx([*sft[:4], 2 * kept * size])
    trunks, different = 24 / steps * size, 24 * 3  # three of eight actions differ
    learned = trunks + different * 30
    # (trunks + 24 x 8 x 90 tokens) in forwards of 4 x 2,048: two for each of two workers, of twice an action's passes
    update = Work(trunks + (learned + different * 15) + learned, 0, different * 30, 2 * 2 * 30, 0, learned)
    rl = [60 * one + 4 * each for one, each in zip(numbers(update), looks, strict=True)]
    assert numbers(work(chosen, "train@swirl")) == pytest.approx(rl)
    assert work(params(train={"methods": ["sft"]}), "train@swirl") == Work()


def test_evaluation_by_hand() -> None:
    alone = params(evaluate={"without_tools": True})
    written, given = 450 * 90 + 400 * 129, 450 * 400 + 400 * 96.1
    verdicts = (450 * 3 + 400 * 4.3) * 15
    # 425 questions a worker, in 14 blocks of 32; and 225 closed-book, one action each, in 8
    both = [given + given + written + verdicts, written, written / 850 * 14 * 2, 0, 0]
    closed = [450 * 40 + 450 * (40 + 30 + 15), 450 * 30, 30 * 8 * 2, 0, 0]
    assert numbers(work(params(), "evaluate@base")) == pytest.approx(both)
    assert work(params(), "evaluate@base").judged == pytest.approx(given + written + verdicts)
    assert numbers(work(alone, "evaluate@base")) == pytest.approx([a + b for a, b in zip(both, closed, strict=True)])
    assert work(alone, "evaluate@ceiling") == Work()
    unjudged = work(params(evaluate={"judge": "none"}), "evaluate@base")
    assert numbers(unjudged) == pytest.approx([given, *both[1:]])


def test_what_cannot_be_measured_is_not_known() -> None:
    made = expected(mini()).stages()
    assert math.isnan(made["base_model"].read)  # trained from scratch
    assert not math.isnan(made["synthesize"].read)
    own = {"source": "own", "files": {"train": "a.jsonl"}, "corpus": "c", "task": "search", "train": "all"}
    unknown = expected(mini(download={"benchmarks": {"staff": own}})).stages()
    assert all(math.isnan(unknown[name].read) for name in ("synthesize", "train@swirl"))
    assert math.isnan(unknown["train@sft"].tuned)


def test_an_earlier_run_is_believed_where_it_had_the_same_settings(tmp_path: Path) -> None:
    chosen, layout = params(), Layout(tmp_path)
    locked = chosen.model_dump()
    names = {
        "download": {"download": locked["download"]},
        "base_model": {"base_model": locked["base_model"]},
        "synthesize": {
            "prompts.policy": locked["prompts"]["policy"],
            **{name: locked[name] for name in ("tasks", "tools", "rollout", "actions", "synthesize")},
        },
    }
    stages = {name: {"params": {"params.yaml": values}} for name, values in names.items()}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": json.loads(json.dumps(stages))}))
    questions = [Question(f"h{n}", "hotpotqa", "train", "one two three", ("a",), 2, ()) for n in range(7)]
    save(questions, Question, layout.questions)
    save([Passage("p", "ab", "c" * 198)], Passage, layout.corpus("hotpotqa", "train"))
    layout.metrics("synthesize").parent.mkdir(parents=True)
    layout.metrics("synthesize").write_text('{"steps_per_trajectory": 2.02, "tokens_per_action": 25.0}')
    found = earlier(chosen, tmp_path)
    assert (found.steps, found.action, found.different) == (2.02, 25.0, None)
    # half of the 4.04 steps assumed on average; two passages of 200 characters
    (search, number), (calculate, planned) = expected(chosen, found).talks("train")
    assert (search.question, search.action, search.seen, number) == (3, 25.0, 5 + 100, 7)
    assert (search.steps, calculate.steps) == (pytest.approx(1.5), pytest.approx(2.15))
    assert (calculate.question, planned) == (40, 600)  # not among the stored ones
    more = params(synthesize={"samples": 5})
    assert earlier(more, tmp_path) == found
    # where no question is trained on, or logs alone are, there is nothing to be in proportion to
    none = {name: {**one, "train": 0} for name, one in locked["download"]["benchmarks"].items()}
    assert expected(params(download={"benchmarks": none}), found)._steps("search") == STEPS
    longer = params(tasks={"search": {"tools": ["search"], "max_steps": 5}, "calculate": locked["tasks"]["calculate"]})
    assert earlier(longer, tmp_path).steps is None
    others = params(download={"benchmarks": {"gsm8k": locked["download"]["benchmarks"]["gsm8k"]}})
    assert earlier(others, tmp_path).questions == {}
    assert not made_with(chosen, tmp_path, "judge", "judge")


def test_the_lines_by_hand() -> None:
    taken = {"synthesize": 90.0, "judge": math.nan, "train@sft": 7200.0}
    speeds = Speeds(4.0, 900.0, 0.1, 0.4, 32, math.nan, 450.0, cores=1.2)
    assert text(taken, speeds, params(), SEARCH, Earlier()) == [
        "Time, about, if the machine stays as busy as it is:",
        "  synthesize  1.5 min",
        "  judge       ?",
        "  train@sft   2.0 h",
        "  together    2.0 h and what is marked ?",
        "  (not under 72.9 min if it were idle: the process had 1.2 of the 2 cores that it can use)",
        "Measured, in tokens a second: 900 read, 160 drawn in batches of 32, 20 singly, 450 trained on; 4 s to start a "
        "stage.",
        "Expected: 3.0 steps a trajectory and 30 tokens an action, assumed; 180 tokens a result; questions: assumed, "
        "40 tokens each. Tools, gates, saving and tracking come on top.",
    ]
    for cores in (1.9, math.nan):  # enough; on a GPU
        quiet = Speeds(4.0, 900.0, 0.1, 0.4, 32, 300.0, 450.0, cores)
        said = text({"synthesize": 90.0}, quiet, params(), SEARCH, Earlier(steps=2.0))
        assert said[1:3] == ["  synthesize  1.5 min", "  together    1.5 min"]
        assert "300 taught (base_model, reward_model), 450 trained on" in said[3]
        assert "30 tokens an action, as in an earlier run;" in said[4]


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4, "targets": ["all-linear"]}])
def test_a_tiny_model_is_measured(
    lora: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measuring, "LONG_ENOUGH_S", 0.0)
    shutil.copytree(ROOT / "src/swirl/prompts", tmp_path / "src/swirl/prompts")
    made_up.pretrained(tmp_path / "tiny", ["what is the capital of the country"])
    taught = {"model": "tiny", "lora": lora}
    chosen = params(
        runtime={"dtype": "bfloat16" if lora else "float32"},
        rollout={"in_flight": 3},
        base_model=taught,
        reward_model=taught,
        train={"lora": lora},
    )
    said = lines(chosen, tmp_path)
    assert "measuring this machine: 6/6 (100%), " in capsys.readouterr().err.splitlines()[-1]
    rows = {line.split()[0]: line.split()[1:] for line in said[1:10]}
    assert list(rows) == [
        "base_model", "reward_model", "synthesize", "judge", "train@sft", "train@swirl", "evaluate@base",
        "evaluate@sft", "evaluate@swirl",
    ]  # fmt: skip
    assert all(float(number) > 0 and unit in ("s", "min", "h") for number, unit in rows.values())
    measured = next(line for line in said if line.startswith("Measured"))
    assert "drawn in batches of 3," in measured
    assert "taught" in measured
    assert "trained on" in measured


def test_what_is_measured_is_the_base_of_these_settings_else_what_it_is_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    gguf_writer.write(tmp_path / "tiny.gguf", gguf_writer.model(len(smollm2())))
    chosen = params(base_model={"model": "tiny.gguf"})
    found = measuring.weights(chosen, tmp_path)
    assert found.is_relative_to(tmp_path / "assets")
    assert (found / "config.json").exists()
    base = Layout(tmp_path).model("base")
    base.mkdir(parents=True)
    assert measuring.weights(chosen, tmp_path) == found  # models/base may be another preset's
    stages = {"base_model": {"params": {"params.yaml": {"base_model": chosen.model_dump()["base_model"]}}}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": json.loads(json.dumps(stages))}))
    assert measuring.weights(chosen, tmp_path) == base


def test_the_first_call_warms_up_and_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, taken = [0.0], iter([10.0, 0.4, 0.6, 0.5])
    monkeypatch.setattr(
        measuring, "time", SimpleNamespace(perf_counter=lambda: clock[0], process_time=lambda: 1.5 * clock[0])
    )

    def work() -> None:
        clock[0] += next(taken)

    watch = measuring.Watch()
    assert watch.seconds_of(work) == pytest.approx(0.5)  # a second was over after two calls
    assert watch.cores == pytest.approx(1.5)


def test_without_the_weights_the_time_is_not_known(
    swirl: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    done = swirl("plan", "--preset", "smollm2-135m", "--time")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        "Time: not known, because it is measured with the policy: the weights of base_model.model, "
        "data/weights/SmolLM2-135M-Instruct.Q4_1.gguf, are not here; get them (a GGUF file: `make weights`; from the "
        "hub: `dvc repro base_model`), or name a folder that has them"
    )
    assert "Time" not in swirl("plan", "--preset", "smollm2-135m").stdout


def test_a_policy_elsewhere_or_not_made_yet_is_not_measured(tmp_path: Path) -> None:
    base = {"source": "endpoint", "tokenizer": "t", "revision": "", "context": 100, "server": SERVER}
    judge = {"source": "endpoint", "max_tokens": 8, "votes": 1, "temperature": 0.0, "server": SERVER}
    remote = mini(base_model=base, reward_model=judge, train={"methods": []})
    assert lines(remote, tmp_path)[0].endswith("the policy is on the server http://127.0.0.1:8000/v1")
    assert lines(mini(), tmp_path)[0].endswith("is not made yet; `dvc repro base_model` makes it")
