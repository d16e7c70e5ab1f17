"""Models that the pipeline did not make, reached by pointer or behind servers: stages use them like their own."""

from __future__ import annotations

import html
import math
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.checksums import checksum
from swirl.core.errors import DataError, ModelError
from swirl.core.layout import Layout
from swirl.core.records import load, load_json, save, save_json
from swirl.core.types import OUTCOME, Derivation, Prediction, Question, Stop, Trajectory, Verdict
from swirl.endpoints import client
from swirl.endpoints.client import UnavailableError
from swirl.models.loading import load_chat
from swirl.models.skipped import why_skipped
from swirl.pipeline.progress import Progress
from swirl.reporting import text
from swirl.stages import evaluate, train
from swirl.wiring.policies import load_policy
from swirl.wiring.servers import SERVER
from tests import gguf_writer
from tests.families import smollm2
from tests.servers import Reply, Scripted, refused, said, scripted, serving
from tests.stages.conftest import clone, run_stages


def served(url: str, model: str = "vllm", api: str = "completions") -> dict[str, Any]:
    return {"url": url, "model": model, "api": api, "key_env": "", "chat_template_kwargs": {}}


PATIENT = {
    "concurrency": 4, "requests_per_minute": 0, "tokens_per_minute": 0, "timeout_s": 60.0, "retries": 0,
    "cost_per_million_input": 0.0, "cost_per_million_output": 0.0,
}  # fmt: skip


def pointer(folder: str, **more: Any) -> dict[str, Any]:
    return {"source": "pretrained", "model": folder, "revision": "", "trust_remote_code": False, **more}


WRITES = {"max_tokens": 12, "votes": 1, "temperature": 0.0}


def changed(params: Params, **changes: Any) -> Params:
    return validate(laid_over(params.model_dump(), {"clients": {"default": PATIENT}, **changes}), "tests")


def out_of_order(text: str, fails: Callable[[int], bool]) -> Scripted:
    """A server that answers `text`, but fails on the n-th request, counted from 1, where `fails(n)`."""
    numbers = count(1)
    return Scripted(lambda _: refused(500, "out of order") if fails(next(numbers)) else said(text))


@pytest.fixture(scope="module")
def url(project: Layout) -> Iterator[str]:
    with serving(project.model("base")) as address:
        yield address


@pytest.mark.slow
def test_greedy_synthesis_on_a_server_is_synthesis_here(params: Params, copy: Layout, url: str) -> None:
    here = {"samples": 1, "temperature": 0.0}
    run_stages(changed(params, synthesize=here), copy, "synthesize")
    ours = load(Trajectory, copy.trajectories)
    run_stages(changed(params, synthesize={**here, "server": served(url)}), copy, "synthesize", "check_trajectories")
    theirs = load(Trajectory, copy.trajectories)
    assert [(t.id, t.prompt_ids, t.stop) for t in theirs] == [(t.id, t.prompt_ids, t.stop) for t in ours]
    ends = load_chat(copy.model("base")).end_ids
    for mine, other in zip(ours, theirs, strict=True):
        assert not other.retokenised
        assert [s.observation for s in other.steps] == [s.observation for s in mine.steps]
        for k, (step, far) in enumerate(zip(mine.steps, other.steps, strict=True)):
            # The server stops at the closing tag, so the end of turn after it is the template's, not the model's.
            ended = len(step.token_ids) - (step.token_ids[-1] in ends)
            assert far.token_ids in (step.token_ids, step.token_ids[:ended])
            assert far.logprobs == pytest.approx(step.logprobs[: len(far.logprobs)], abs=1e-4)
            assert other.state_ids(k) == mine.state_ids(k)


@pytest.mark.slow
def test_everything_behind_servers(
    params: Params, project: Layout, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = clone(project, tmp_path / "root")
    (layout.model("base")).rename(layout.root / "tokenizer")
    with scripted(said("It helps.\nGOOD")) as judge, scripted(said("It repeats a search.\nBAD")) as second:
        far = changed(
            params,
            base_model={
                "source": "endpoint", "tokenizer": "tokenizer", "revision": "", "context": 512, "server": served(url)
            },
            reward_model={"source": "endpoint", **WRITES, "server": served(judge.url, "judge", "chat")},
            synthesize={"samples": 1, "temperature": 0.0},
            filter={"strategy": "process"},
            train={"methods": []},
            evaluate={
                "without_tools": False,
                "judge": {"source": "endpoint", **WRITES, "server": served(second.url, "independent", "chat")},
            },
        )  # fmt: skip
        run_stages(far, layout, "base_model", "reward_model", "synthesize", "check_trajectories", "judge", "filter")
        verdicts = [v for v in load(Verdict, layout.verdicts) if v.step != OUTCOME]
        assert verdicts
        assert all(v.good and v.score == 1.0 and v.rationale == "It helps.\nGOOD" for v in verdicts)
        for item in ("sft", "swirl"):
            train.run(far, layout, item)
            evaluate.run(far, layout, item)
            assert why_skipped(layout.model(item)) == f"train.methods does not name {item}"
        assert not second.bodies
        asked = len(judge.bodies)
        evaluate.run(far, layout, "ceiling")
        evaluate.run(far, layout, "base")
        assert len(judge.bodies) == asked
        assert {body["model"] for body in second.bodies} == {"independent"}
        run_stages(far, layout, "report")
    scores = load_json(layout.results)["scores"]
    assert {row["model"] for row in scores} == {"base"}
    assert all(row["process_label_judge"] == 0.0 for row in scores if row["steps"])
    by = {(row["judge"], row["judge_role"]) for row in scores}
    assert by == {("endpoint:independent", "a second judge, not the reward")}
    page = " ".join(html.unescape(layout.page.read_text(encoding="utf-8")).split())
    assert 'by the judge "endpoint:independent", a second judge, not the reward, and by the oracle where there' in page
    save([], Derivation, layout.derivations)  # as of benchmarks without an oracle
    evaluate.run(far, layout, "base")
    run_stages(far, layout, "report")
    capsys.readouterr()
    text.show(layout)
    shown = " ".join(capsys.readouterr().out.split())
    assert 'by the judge "endpoint:independent", a second judge, not the reward' in shown


@pytest.mark.slow
def test_the_reward_model_grades_answers_that_a_second_judge_labels(params: Params, copy: Layout) -> None:
    with scripted(said("It is the same.\nYES")) as reward, scripted(said("It repeats a search.\nBAD")) as second:
        far = changed(
            params,
            base_model=pointer("unused"),
            reward_model={"source": "endpoint", **WRITES, "server": served(reward.url, "reward", "chat")},
            judge={"outcome": "model"},
            evaluate={
                "without_tools": False,
                "judge": {"source": "endpoint", **WRITES, "server": served(second.url, "independent", "chat")},
            },
        )
        evaluate.run(far, copy, "base")
    rows = load(Prediction, copy.predictions("base"))
    assert [row.correct for row in rows] == [row.stop == Stop.ANSWERED for row in rows]
    assert {row.process_label_judge for row in rows if row.steps} == {0.0}
    assert len(reward.bodies) <= sum(row.stop == Stop.ANSWERED for row in rows)


def test_a_folder_of_a_model_behind_a_server_that_lacks_a_field_is_named(params: Params, copy: Layout) -> None:
    path = copy.model("base") / SERVER
    save_json({"context": 512, "server": {**served("http://127.0.0.1:1/v1"), "chat_template_kwargs": 1}}, path)
    message = rf"{path}: server.chat_template_kwargs: Input should be a .*; `dvc repro base_model` writes it anew"
    with pytest.raises(ModelError, match=message):
        load_policy(params, copy.model("base"), "base")


@pytest.mark.slow
def test_a_pointed_base_and_judge_train(params: Params, copy: Layout) -> None:
    for name in ("base", "reward"):
        copy.model(name).rename(copy.root / name)
    near = changed(
        params,
        base_model=pointer("base"),
        reward_model=pointer("reward", verdict="token", **WRITES),
        train={"swirl": {"updates": 2, "check_every": 2}},
    )
    run_stages(near, copy, "base_model", "reward_model", "synthesize", "judge", "filter")
    assert not list(copy.model("base").glob("*.safetensors"))
    train.run(near, copy, "swirl")
    assert (copy.model("swirl") / "model.safetensors").exists()
    evaluate.run(near, copy, "swirl")
    assert load_json(copy.evaluation("swirl"))


@pytest.mark.slow
def test_a_gguf_file_is_a_base_and_a_judge(
    params: Params, copy: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    file = gguf_writer.write(copy.root / "data/weights/tiny.gguf", gguf_writer.model(len(smollm2())))
    pointed = pointer("data/weights/tiny.gguf")
    near = changed(
        params,
        base_model=pointed,
        reward_model={**pointed, "verdict": "token", **WRITES},
        synthesize={"samples": 1},
        rollout={"max_malformed": 0},
    )
    run_stages(near, copy, "base_model", "reward_model", "synthesize", "judge")
    for name in ("base", "reward"):
        assert [path.name for path in copy.model(name).iterdir() if path.name != "ceiling"] == ["model.json"]
        tree = load_json(copy.model(name) / "model.json")
        assert tree["model"] == "../../data/weights/tiny.gguf"
        assert tree["files"] == {"tiny.gguf": checksum(file).sha256}
    opening = load_chat(copy.model("base")).prompt("")[:10]
    made = load(Trajectory, copy.trajectories)
    assert made and all(trajectory.prompt_ids[:10] == opening for trajectory in made)
    asked = [v for v in load(Verdict, copy.verdicts) if v.step != OUTCOME and not v.rationale]  # not cut off
    assert asked and all(v.score is not None and 0 < v.score < 1 for v in asked)


def test_a_gguf_file_is_the_tokenizer_of_a_base_behind_a_server(
    params: Params, copy: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    gguf_writer.write(copy.root / "data/weights/tiny.gguf", gguf_writer.model(len(smollm2())))
    with scripted(said("<answer> 7 </answer>")) as server:
        far = changed(
            params,
            base_model={
                "source": "endpoint", "tokenizer": "data/weights/tiny.gguf", "revision": "", "context": 4096,
                "server": served(server.url),
            },
            reward_model=pointer("unused", verdict="token", **WRITES),
            synthesize={"samples": 1},
            train={"methods": []},
        )  # fmt: skip
        shutil.rmtree(copy.model("base"))
        run_stages(far, copy, "base_model", "synthesize")
    assert not list(copy.model("base").glob("*.safetensors"))
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    opening, answer = (smollm2()(text)["input_ids"] for text in (system, "<answer> 7 </answer><|im_end|>"))
    assert all(body["prompt"][: len(opening)] == opening for body in server.bodies)
    made = load(Trajectory, copy.trajectories)
    assert {trajectory.steps[0].token_ids for trajectory in made} == {tuple(answer)}
    missing = far.model_copy(update={"base_model": far.base_model.model_copy(update={"tokenizer": "none.gguf"})})
    with pytest.raises(DataError, match=r"none.gguf cannot be read: No such file"):
        run_stages(missing, copy, "base_model")


def test_a_judge_that_says_nothing_gives_null_and_no_reward(params: Params, copy: Layout) -> None:
    """The embedded reward model cannot write reasons: what it writes has no verdict on a line of its own."""
    copy.model("reward").rename(copy.root / "mute")
    mute = changed(params, base_model=pointer("unused"), reward_model=pointer("mute", verdict="rationale", **WRITES))
    run_stages(mute, copy, "reward_model", "judge")
    steps = [v for v in load(Verdict, copy.verdicts) if v.step != OUTCOME]
    null = [v for v in steps if v.good is None]
    assert null
    assert all(v.score is None for v in null)
    metrics = load_json(copy.metrics("judge"))
    assert metrics["steps_null"] == pytest.approx(len(null) / len(steps))
    assert not any(math.isnan(value) for value in metrics.values())


@pytest.mark.slow
def test_training_on_no_verdict_ends_with_metrics_and_without_a_reward(params: Params, copy: Layout) -> None:
    with scripted(said("I cannot tell.")) as judge:
        mute = changed(
            params,
            base_model=pointer("unused"),
            reward_model={"source": "endpoint", **WRITES, "server": served(judge.url, "judge", "chat")},
            train={"swirl": {"updates": 1, "check_every": 1, "states": 2, "samples": 2}},
        )
        train.run(mute, copy, "swirl")
    metrics = load_json(copy.metrics("train-swirl"))
    assert (metrics["stopped"], metrics["kept_step"]) == (1.0, 0)
    assert metrics["development.malformed"] >= 0.0
    assert "reward" not in metrics
    assert "development.reward" not in metrics


@pytest.mark.slow
def test_training_whose_judge_goes_away_ends_there_and_goes_on_from_its_checkpoint(
    params: Params, copy: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = False
    with Scripted(lambda _: refused(429, "quota used up") if broken else said("It helps.\nGOOD")) as judge:
        short = changed(
            params,
            base_model=pointer("unused"),
            reward_model={"source": "endpoint", **WRITES, "server": served(judge.url, "judge", "chat")},
            clients={"default": {**PATIENT, "concurrency": 1}},
            train={"swirl": {"updates": 2, "check_every": 1}},
        )

        def breaks_down(step: int) -> None:
            nonlocal broken
            broken = step == 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "_PATIENCE", 2)
            patch.setattr(client, "_PAUSE_S", 0.0)
            looked = train.Resuming.looked

            def look(run: Any, step: int, *rest: Any) -> None:
                looked(run, step, *rest)
                breaks_down(step)

            patch.setattr(train.Resuming, "looked", look)
            with pytest.raises(UnavailableError, match="quota used up; 2 requests in a row have failed"):
                train.run(short, copy, "swirl")
        assert not copy.metrics("train-swirl").exists()
        broken = False
        train.run(short, copy, "swirl")
    assert "resuming after 1" in capsys.readouterr().out
    assert load_json(copy.metrics("train-swirl"))["step"] == 2


def test_synthesis_keeps_what_did_not_fail(params: Params, copy: Layout) -> None:
    """The next run makes again only the blocks that have failures."""
    questions = [q for q in load(Question, copy.questions) if q.split == "train"]
    broken = True

    def answer(body: dict[str, Any]) -> Reply:
        fails = broken and questions[0].text in body["messages"][0]["content"]
        return refused(500, "out of order") if fails else said("<answer> 7 </answer>")

    copy.trajectories.unlink()
    with Scripted(answer) as server:
        far = changed(
            params,
            synthesize={"samples": 1, "server": served(server.url, "any", "chat")},
            rollout={"block_size": 2, "in_flight": 1},
            check_trajectories={"max_failed_rate": 0.0},
        )
        with pytest.raises(
            DataError, match=f"1 of {len(questions)} trajectories failed at the server(.|\n)*out of order"
        ):
            run_stages(far, copy, "synthesize")
        assert not copy.trajectories.exists()
        before, broken = len(server.bodies), False
        run_stages(far, copy, "synthesize")
    assert len(server.bodies) - before == 2  # one block: two trajectories of one action each
    assert all(t.stop is Stop.ANSWERED and not t.error for t in load(Trajectory, copy.trajectories))


def test_failures_before_a_judge_was_gone_are_asked_again(
    params: Params, copy: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of the run that broke off must hold no null that the next run would not ask about again."""
    monkeypatch.setattr(client, "_PAUSE_S", 0.0)
    gone = True

    with out_of_order("It helps.\nGOOD", lambda n: gone and (n == 2 or n > 6)) as server:
        far = changed(
            params,
            base_model=pointer("unused"),
            reward_model={"source": "endpoint", **WRITES, "server": served(server.url, "judge", "chat")},
            check_steps={"max_null_rate": 0.5},
        )
        with pytest.raises(UnavailableError, match=r"out of order; \d+ requests in a row"):
            run_stages(far, copy, "judge")
        gone = False
        run_stages(far, copy, "judge")
    assert all(verdict.good is not None for verdict in load(Verdict, copy.verdicts))


@pytest.mark.slow
def test_a_judge_that_fails_in_evaluation_ends_it(params: Params, copy: Layout) -> None:
    with out_of_order("It helps.\nGOOD", lambda n: n % 5 == 0) as server:
        far = changed(
            params,
            base_model=pointer("unused"),
            reward_model={"source": "endpoint", **WRITES, "server": served(server.url, "judge", "chat")},
            evaluate={"without_tools": False},
            check_steps={"max_null_rate": 0.1},
        )
        with pytest.raises(DataError, match=r"questions to the judge endpoint:judge failed(.|\n)*out of order"):
            evaluate.run(far, copy, "base")
    assert not copy.evaluation("base").exists()


def test_a_judge_whose_server_fails_too_often_is_asked_only_that_again(params: Params, copy: Layout) -> None:
    broken = True

    with out_of_order("It helps.\nGOOD", lambda n: broken and n % 5 == 0) as server:
        far = changed(
            params,
            base_model=pointer("unused"),
            reward_model={"source": "endpoint", **WRITES, "server": served(server.url, "judge", "chat")},
            check_steps={"max_null_rate": 0.1},
        )
        copy.verdicts.unlink()
        with pytest.raises(DataError, match=r"questions to the judge endpoint:judge failed(.|\n)*out of order"):
            run_stages(far, copy, "judge")
        assert not copy.verdicts.exists()
        asked, broken = len(server.bodies), False
        run_stages(far, copy, "judge")
    assert len(server.bodies) - asked <= asked // 5
    assert all(verdict.good is not None for verdict in load(Verdict, copy.verdicts))


CONTENT = "The prompt was flagged by our content policy."


def flagged(layout: Layout, benchmark: str) -> Scripted:
    """A judge that says GOOD, and refuses for good what is asked about the benchmark's last question."""
    texts = {q.id: q.text for q in load(Question, layout.questions)}
    *_, last = (texts[t.question_id] for t in load(Trajectory, layout.trajectories) if t.benchmark == benchmark)

    def answer(body: dict[str, Any]) -> Reply:
        return refused(400, CONTENT) if last in body["messages"][0]["content"] else said("It helps.\nGOOD")

    return Scripted(answer)


class Killed(BaseException):
    """What stands for a SIGKILL at a place in the code."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "benchmark",
    [
        pytest.param("mini-hotpotqa", id="in the middle"),
        pytest.param("mini-gsm8k", id="at the end", marks=pytest.mark.rare),
    ],
)
def test_what_is_refused_for_good_is_counted_over_the_whole_stage_however_often_it_is_killed(
    benchmark: str, params: Params, copy: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 of 72 trajectories are refused: 4% of all, and all of what a last process is left with."""
    blocks, left = 36, 0

    def dies(bar: Progress, count: int, **_: float) -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1

    with flagged(copy, benchmark) as server:
        far = changed(
            params,
            base_model=pointer("unused"),
            reward_model={"source": "endpoint", **WRITES, "server": served(server.url, "judge", "chat")},
            check_steps={"max_null_rate": 0.05},
        )
        run_stages(far, copy, "judge")
        uninterrupted = load(Verdict, copy.verdicts)
        copy.verdicts.unlink()
        monkeypatch.setattr(Progress, "update", dies)
        for number in range(0, blocks, 5):
            left = number
            with pytest.raises(Killed):
                run_stages(far, copy, "judge")
        left = blocks
        run_stages(far, copy, "judge")
    verdicts = load(Verdict, copy.verdicts)
    assert verdicts == uninterrupted
    null = [verdict for verdict in verdicts if verdict.good is None]
    assert 0 < len(null) <= 0.05 * sum(verdict.step != OUTCOME for verdict in verdicts)
    assert all(CONTENT in verdict.rationale for verdict in null)


def test_more_refused_for_good_than_the_limit_ends_it_at_once_and_after_a_restart_in_the_same_words(
    params: Params, copy: Layout
) -> None:
    steps = sum(len(trajectory.steps) for trajectory in load(Trajectory, copy.trajectories))
    message = rf"of {steps} questions to the judge endpoint:judge failed \(\d+ of them refused for what is in them\)"
    with scripted(refused(400, CONTENT)) as server:
        far = changed(
            params,
            base_model=pointer("unused"),
            reward_model={"source": "endpoint", **WRITES, "server": served(server.url, "judge", "chat")},
            check_steps={"max_null_rate": 0.05},
        )
        for _ in range(2):
            with pytest.raises(DataError, match=message):
                run_stages(far, copy, "judge")
    assert len(server.bodies) < steps / 2


@pytest.mark.slow
def test_a_score_that_would_tell_of_the_server_is_not_written(params: Params, copy: Layout) -> None:
    """The next evaluation asks the repaired server again."""
    broken = True

    with out_of_order("<answer> 7 </answer>", lambda n: broken and n % 2 == 1) as server:
        far = changed(
            params,
            evaluate={"without_tools": False, "servers": {"base": served(server.url, "any", "chat")}},
            check_trajectories={"max_failed_rate": 0.05},
        )
        with pytest.raises(DataError, match=r"30 of 60 trajectories failed at the server(.|\n)*out of order"):
            evaluate.run(far, copy, "base")
        assert not copy.evaluation("base").exists()
        broken = False
        evaluate.run(far, copy, "base")
    assert not any(trajectory.error for trajectory in load(Trajectory, copy.prediction_trajectories("base")))


@pytest.mark.slow
def test_a_grader_that_fails_is_no_text_match(params: Params, copy: Layout) -> None:
    with out_of_order("It is the same.\nYES", lambda n: n % 5 == 0) as grader:
        graded = changed(
            params,
            evaluate={"without_tools": False},
            judge={"outcome": "model", "grader": served(grader.url, "grader", "chat")},
            check_steps={"max_null_rate": 0.1},
        )
        with pytest.raises(DataError, match=r"questions to the judge endpoint:grader failed(.|\n)*out of order"):
            evaluate.run(graded, copy, "base")
        assert not copy.evaluation("base").exists()
        lenient = changed(graded, check_steps={"max_null_rate": 0.5})
        (copy.root / ".swirl/answers").rename(copy.root / "answers")
        evaluate.run(lenient, copy, "base")
    assert 0.1 < load_json(copy.metrics("evaluate-base"))["ungraded"] < 0.3


@pytest.mark.slow
def test_a_grader_decides_what_is_right(params: Params, copy: Layout) -> None:
    with scripted(said("It is the same.\nYES")) as grader:
        graded = changed(
            params,
            evaluate={"without_tools": False},
            judge={"outcome": "model", "grader": served(grader.url, "grader", "chat")},
        )
        evaluate.run(graded, copy, "base")
        assert grader.bodies
    rows = load(Prediction, copy.predictions("base"))
    assert any(row.correct for row in rows)
    assert [row.correct for row in rows] == [row.stop == Stop.ANSWERED for row in rows]
    assert not any(row.em for row in rows)  # matched by text, none is right
