"""Logs in the model's own format through all stages: trajectories, verdicts, training, looks and evaluation."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from swirl.core.errors import DataError, ModelError
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.types import Question, StateAction, SubTrajectory, Trajectory
from swirl.models.loading import load_native_chat, load_tokenizer
from swirl.rl.kept_states import States
from tests import made_up
from tests.stages.conftest import run_stages
from tests.stages.test_logs import BASE, REWARD, ROOT, line, params_of, write
from tests.tool_templates import HERMES, THINKING

DESK = {**BASE["download"]["benchmarks"]["desk"], "development": 2}
SMALL: dict[str, Any] = {
    "download": {"benchmarks": {"desk": DESK}},
    "check_steps": {"min_rows": 1, "min_good_share": 0.0, "max_good_share": 1.0},
    "filter": {"strategy": "none"},
    "train": {
        "swirl": {"updates": 1, "passes": None, "states": 2, "samples": 2, "check_every": 1, "lr": 1e-6},
        "sft": {"epochs": 1, "batch_size": 4, "lr": 1e-6},
    },
}
FIRST = "\n\nFirst "
"""Beginning of the question that the user asks later on."""


PROMPTS = {"tags": {}, "native": {"policy": "src/swirl/prompts/native"}}
NATIVE: dict[str, Any] = {"actions": {"format": "native"}, "prompts": PROMPTS["native"]}


def params(**changes: Any) -> Any:
    return params_of(**SMALL, **changes)


def project(root: Path, template: str) -> Layout:
    """A project with ten logged conversations, and a random model with this chat template."""
    made_up.pretrained(root / "tiny", ["Question what is things tool_call name arguments"], 1024)
    tokenizer = load_tokenizer(root / "tiny")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(root / "tiny")
    shutil.copytree(ROOT / "src/swirl/prompts", root / "src/swirl/prompts")
    (root / "data/tools").mkdir(parents=True)
    (root / "data/tools/rewards_of_logs.py").write_text(REWARD)
    return Layout(root)


@pytest.fixture
def hermes(tmp_path: Path) -> Layout:
    layout = project(tmp_path, HERMES)
    write(layout, *(line(number) for number in range(10)))
    return layout


STAGES = ("download", "check_questions", "index", "base_model", "reward_model", "synthesize", "check_trajectories")


@pytest.mark.slow
def test_a_model_learns_to_call_as_its_template_does(hermes: Layout) -> None:
    """And it is looked at and evaluated in logged states, whose actions are read in that form."""
    native = params(**NATIVE)
    run_stages(native, hermes, *STAGES, "judge", "filter", "check_steps")
    chat = load_native_chat(hermes.model("base"))
    made = load(Trajectory, hermes.trajectories)
    assert len(made) == 6 and all(len(one.pieces) == 1 for one in made)
    for one in made:
        called, answered = one.steps
        (call,) = chat.grammar.read(called.action.text).calls
        assert (called.action.kind, call.name) == ("tool:answer", "answer")
        assert call.arguments == json.loads(called.action.payload)
        assert answered.action.text == str(call.arguments["n"] ** 2)
        assert chat.markup(one.prompt_ids).startswith("<|im_start|>system\nYou may call functions:\n<tools>\n")
    assert load_json(hermes.metrics("synthesize"))["train_cuts"] == 0
    assert load_json(hermes.quality("trajectories"))["success"]
    for item in ("sft", "swirl"):
        import_module("swirl.stages.train").run(native, hermes, item)
    import_module("swirl.stages.evaluate").run(native, hermes, "base")
    looks = [row for row in load_json(hermes.series("train-swirl")) if row["development.reward"] is not None]
    assert [row["step"] for row in looks] == [0, 1] and "development.same_calls" in looks[0]
    actions = load(StateAction, hermes.state_actions("base"))
    held = {q.id for q in load(Question, hermes.questions) if q.split == "evaluation"}
    assert {one.question_id for one in actions} == held and len(actions) == 4
    assert all(one.same_tools is not None for one in actions)


def test_the_format_counts_for_the_work_that_is_kept(hermes: Layout) -> None:
    run_stages(params(), hermes, *STAGES)
    tagged = load(Trajectory, hermes.trajectories)
    run_stages(params(**NATIVE), hermes, "synthesize")
    native = load(Trajectory, hermes.trajectories)
    assert tagged[0].steps[0].action.text.startswith("<answer> {")
    assert native[0].steps[0].action.text.startswith("<tool_call>\n{")


def test_prompts_that_teach_tags_are_refused_before_the_training(hermes: Layout) -> None:
    with pytest.raises(DataError, match="set prompts.policy to src/swirl/prompts/native"):
        run_stages(params(actions=NATIVE["actions"]), hermes, *STAGES)


def test_a_template_that_drops_tools_is_refused_by_name(tmp_path: Path) -> None:
    layout = project(tmp_path, made_up.TEMPLATE)
    write(layout, *(line(number) for number in range(10)))
    with pytest.raises(ModelError, match="leaves out the name of tools: use actions.format: tags"):
        run_stages(params(**NATIVE), layout, *STAGES)


def thoughtful(number: int, withheld: bool = False) -> dict[str, Any]:
    """A conversation whose assistant thinks before it calls and before it answers, and is asked again."""
    row = line(number)
    for index in (1, 3):
        row["messages"][index]["reasoning_content"] = f"Thought {index}."
    if withheld:
        del row["messages"][3]["reasoning_content"]
        row["messages"][3]["reasoning_details"] = [{"type": "reasoning.encrypted", "data": "x"}]
    row["messages"] += [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
    return row


@pytest.mark.parametrize("form", ["tags", "native"])
@pytest.mark.rare
def test_stripped_thoughts_cut_trajectories_into_pieces_that_are_trained_on(form: str, tmp_path: Path) -> None:
    """This template drops every past thought: a conversation with two is three pieces, in either format."""
    layout = project(tmp_path, THINKING)
    write(layout, *(thoughtful(number) for number in range(10)))
    stripped = params(actions={"format": form, "thinking": "strip"}, prompts=PROMPTS[form])
    run_stages(stripped, layout, *STAGES, "judge", "filter", "check_steps")
    made = load(Trajectory, layout.trajectories)
    chat = load_native_chat(layout.model("base"), True, True)
    assert [[len(piece) for piece in one.pieces] for one in made] == [[1, 1, 1]] * 6
    for one in made:
        assert [step.action.text.partition("</think>")[0].strip() for step in one.steps[:2]] == [
            "Thought 1.", "Thought 3."
        ]  # fmt: skip
        assert not any("Thought" in chat.markup(one.state_ids(index)) for index in range(3))
        assert [len(step.observation_ids) for step in one.steps] == [0, 0, 0]
    assert load_json(layout.metrics("synthesize"))["train_cuts"] == 12
    assert load_json(layout.metrics("synthesize"))["cuts"] == 12
    kept = load(SubTrajectory, layout.steps)
    assert [row.piece for row in kept if row.trajectory_id == made[0].id] == [0, 1, 2]
    assert States(layout.steps).sizes == [1] * 18
    for row in kept:
        (one,) = (t for t in made if t.id == row.trajectory_id)
        assert row.state_ids == one.state_ids(row.step)
    for item in ("sft", "swirl"):
        import_module("swirl.stages.train").run(stripped, layout, item)
    import_module("swirl.stages.evaluate").run(stripped, layout, "swirl")
    assert len(load(StateAction, layout.state_actions("swirl"))) == 6


@pytest.mark.parametrize("form", ["tags", "native"])
def test_a_withheld_thought_ends_a_conversation_where_thoughts_count(form: str, tmp_path: Path) -> None:
    layout = project(tmp_path, THINKING)
    write(layout, *(thoughtful(number, withheld=number == 3) for number in range(10)))
    everything = {**DESK, "evaluation": 0, "development": 0}
    changed = {**SMALL, "download": {"benchmarks": {"desk": everything}}}
    keeping = params_of(**changed, actions={"format": form, "thinking": "keep"}, prompts=PROMPTS[form])
    run_stages(keeping, layout, *STAGES)
    assert load_json(layout.too_long) == [
        {"file": "a.jsonl", "line": 4, "turn": 4, "steps": 2,
         "reason": "a thought that was withheld, where thoughts are kept"}
    ]  # fmt: skip
    assert sorted(len(one.steps) for one in load(Trajectory, layout.trajectories)) == [1, *[3] * 9]
