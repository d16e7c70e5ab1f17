"""A run whose policy acts in its own tool format, on a tiny model that was taught to call and then to answer."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.errors import DataError, ParamsError
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.types import Prediction, SubTrajectory, Trajectory
from swirl.models.loading import load_tokenizer
from swirl.models.loading import save as save_model
from swirl.models.native_chat import NativeChat
from swirl.rollout.native_reading import NativeReader
from swirl.wiring.attempts import attempts
from swirl.wiring.policies import load_policy
from swirl.wiring.prompts import read_prompts
from swirl.wiring.questions import questions_of
from tests import made_up
from tests.stages.conftest import clone, run_stages
from tests.tool_templates import HERMES

CALLS = {
    "search": '<tool_call>\n{"name": "search", "arguments": {"query": "Oslo"}}\n</tool_call>',
    "calculate": '<tool_call>\n{"name": "calculator", "arguments": {"expression": "3 + 4"}}\n</tool_call>',
}
ANSWER = "<answer> 7 </answer>"
NEITHER = "error: give one call or one answer"


def changed(params: Params, **changes: Any) -> Params:
    return validate(laid_over(params.model_dump(), changes), "tests")


@pytest.fixture(scope="module")
def native(params: Params, tmp_path_factory: pytest.TempPathFactory) -> Params:
    """The tiny project's params for a model of its own tool format, which judges itself."""
    folder = tmp_path_factory.mktemp("weights") / "model"
    model = {"model": str(folder), "revision": "", "source": "pretrained", "trust_remote_code": False}
    judge = {**model, "verdict": "token", "max_tokens": 8, "votes": 1, "temperature": 0.0}
    return changed(
        params,
        actions={"format": "native"},
        prompts={"policy": "src/swirl/prompts/native"},
        rollout={"max_action_tokens": 64},
        tools={"search_output_limit": 40},
        base_model=model,
        reward_model=judge,
        filter={"strategy": "none"},
        judge={"threshold": 0.0},
        train={"swirl": {"updates": 2, "states": 4, "samples": 2}},
    )


@pytest.fixture(scope="module")
def project(native: Params, made: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The project after synthesis, its gate, judge and filter."""
    layout = clone(made, tmp_path_factory.mktemp("native") / "root")
    shutil.rmtree(layout.model("base"))
    texts = [*CALLS.values(), ANSWER, *(p.read_text() for p in (layout.root / native.prompts.policy).iterdir())]
    folder = Path(native.base_model.model)  # type: ignore[union-attr]
    made_up.pretrained(folder, texts * 3, context=1024)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = HERMES
    tokenizer.save_pretrained(folder)
    run_stages(native, layout, "base_model")
    _teach(native, layout, folder)
    run_stages(native, layout, "base_model", "reward_model", "synthesize", "check_trajectories", "judge", "filter")
    return layout


def _teach(params: Params, layout: Layout, folder: Path) -> None:
    """A few seconds of maximum likelihood of a call and an answer, whatever the question."""
    policy = load_policy(params, layout.model("base"), "base")
    examples = []
    todo = attempts(params, layout, questions_of(layout, "train"), 1)
    results = ("7", "error: it is not there", "Oslo lies by the sea. | Oslo", "no result", NEITHER)
    for number, attempt in enumerate((*todo[:10], *todo[-10:])):  # of both tasks
        chat: Any = policy.chat
        reader = NativeReader(chat, _signatures(attempt))
        call, answer = (chat.reply(text) for text in (CALLS[attempt.question.task], ANSWER))
        prompt = reader.prompt(attempt.prompt, "")
        between = chat.turn(results[number % len(results)], closed=True)
        skip = [-100]
        labels = [*skip * len(prompt), *call, *skip * len(between), *answer]
        examples.append(([*prompt, *call, *between, *answer], labels))
    policy.model.train()
    optimizer = torch.optim.Adam(policy.model.parameters(), lr=3e-3)
    for step in range(400):
        ids, labels = examples[step * 7 % len(examples)]
        loss = policy.model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_model(policy.model, policy.chat.tokenizer, folder)


def _signatures(attempt: Any) -> Any:
    from swirl.tools.schemas import signatures_of

    return signatures_of(attempt.tools.values())


@pytest.mark.slow
def test_trajectories_hold_calls_in_the_models_own_format(native: Params, project: Layout) -> None:
    made = load(Trajectory, project.trajectories)
    chat = NativeChat(load_tokenizer(project.model("base")))
    kinds = [step.action.kind for trajectory in made for step in trajectory.steps]
    assert kinds.count("search") + kinds.count("calculate") > len(made) / 2
    assert kinds.count("answer") > len(made) / 2
    for trajectory in made:
        prompt = chat.markup(trajectory.prompt_ids)
        assert prompt.startswith("<|im_start|>system\nYou may call functions:\n<tools>\n")
        assert "<search_query>" not in prompt
        for step in trajectory.steps:
            assert chat.text(step.token_ids) == step.action.text
            for seen in step.observations:
                assert not seen.text.startswith("Oslo -> ")
    report = load_json(project.quality("trajectories"))
    assert report["success"]


@pytest.mark.slow
def test_what_follows_reads_them(native: Params, project: Layout, tmp_path: Path) -> None:
    """Step-wise RL, SFT and an evaluation; the development questions and the rewards are in the native format, too."""
    layout = clone(project, tmp_path / "root")
    steps = load(SubTrajectory, layout.steps)
    assert len(steps) > 10
    for item in ("swirl", "sft"):
        import_module("swirl.stages.train").run(native, layout, item)
    import_module("swirl.stages.evaluate").run(native, layout, "swirl")
    predictions = load(Prediction, layout.predictions("swirl"))
    assert any(prediction.answer == "7" for prediction in predictions)


@pytest.mark.slow
def test_what_is_written_in_tags_is_refused(native: Params, project: Layout, params: Params, tmp_path: Path) -> None:
    taught = changed(native, prompts={"policy": "src/swirl/prompts/real"})
    with pytest.raises(DataError, match=r"search.txt holds <search_query>, but actions.format is native"):
        read_prompts(taught, project)
    for name, source in (("base_model", params.base_model), ("reward_model", params.reward_model)):
        with pytest.raises(ParamsError, match=f"{name}.source is embedded, which is taught our tags"):
            changed(native, **{name: source.model_dump()})
    layout = clone(project, tmp_path / "root")
    (layout.root / native.prompts.policy / "system.txt").write_text("Be brief.\n", encoding="utf-8")
    assert read_prompts(native, layout).system == "Be brief."
    tags = changed(native, actions={"format": "tags"})
    with pytest.raises(DataError, match=r"system.txt: a system turn needs actions.format: native"):
        read_prompts(tags, layout)
