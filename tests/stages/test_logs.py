"""`source: logs` and `synthesize: {source: import}`: from an agent's logs to questions, trajectories and verdicts."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from swirl.config import presets
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core.errors import DataError, GateError, ModelError, ParamsError
from swirl.core.journal import Journal
from swirl.core.layout import Layout
from swirl.core.records import load, load_json
from swirl.core.types import LOGGED, OUTCOME, Conversation, Question, Stop, Trajectory, Verdict
from swirl.models.loading import load_chat
from swirl.wiring.judges import load_reward_model
from swirl.wiring.tools import Toolbox
from tests import made_up
from tests.stages.conftest import run_stages

ROOT = Path(__file__).parents[2]
TOOLS = [{"type": "function", "function": {"name": "answer", "description": "looks up", "parameters": {}}}]
REWARD = """
class Long:
    def scores(self, states, actions):
        return [min(1.0, len(action) / 40) for action in actions]
"""
BASE: dict[str, Any] = {
    "runtime": {"workers": 1, "context": 0},
    "rollout": {"max_action_tokens": 16, "block_size": 3},
    "tools": {"folder": "data/tools"},
    "download": {
        "folder": "data/official",
        "benchmarks": {"desk": {"source": "logs", "logs": ["a.jsonl"], "train": "all", "evaluation": 2}},
    },
    "check_questions": {"min_evaluation": 1, "max_skipped_share": 0.5},
    "base_model": {"source": "pretrained", "model": "tiny", "revision": "", "trust_remote_code": False},
    "reward_model": {"source": "none"},
    "synthesize": {"source": "import"},
    "judge": {"rewards": [{"name": "rewards_of_logs:Long", "weight": 1.0, "options": {}}]},
    "evaluate": {"judge": "same"},
}


def line(number: int, **more: Any) -> dict[str, Any]:
    """A conversation with a call of the tool `answer` and an answer."""
    asked = more.pop("asked", f"Question {number}: what is {number} things {'abcdefghij'[number % 10] * 5}?")
    call = {"id": "c", "type": "function", "function": {"name": "answer", "arguments": json.dumps({"n": number})}}
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": more.pop("result", f"it is {number * number}")},
            {"role": "assistant", "content": f"{number * number}"},
        ],
        "tools": TOOLS,
        **more,
    }


def params_of(**changes: Any) -> Params:
    tree = laid_over(presets.tree(ROOT, "smoke"), BASE)
    return validate(laid_over(tree, changes), "tests")


def write(layout: Layout, *rows: Any) -> None:
    path = layout.root / "data/official/a.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{one}\n" for one in lines), encoding="utf-8")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up.pretrained(tmp_path_factory.mktemp("model") / "tiny", ["Question what is things"], 512)


@pytest.fixture
def layout(tmp_path: Path, tiny: Path) -> Layout:
    """A project with ten logged conversations."""
    shutil.copytree(tiny, tmp_path / "tiny")
    shutil.copytree(ROOT / "src/swirl/prompts", tmp_path / "src/swirl/prompts")
    (tmp_path / "data/tools").mkdir(parents=True)
    (tmp_path / "data/tools/rewards_of_logs.py").write_text(REWARD)
    made = Layout(tmp_path)
    write(made, *(line(number) for number in range(10)))
    return made


def test_questions_are_first_turns_and_their_tools_do_not_run(layout: Layout) -> None:
    run_stages(params_of(), layout, "download", "check_questions")
    questions = load(Question, layout.questions)
    assert Counter(q.split for q in questions) == {"train": 8, "evaluation": 2}
    one = next(q for q in questions if q.text.startswith("Question 3"))
    assert (one.task, one.tools, one.answers, one.hops) == (LOGGED, ("logged:answer",), (), 0)
    assert one.id.startswith("desk/")
    assert {row.question_id for row in load(Conversation, layout.conversations)} == {q.id for q in questions}
    toolbox = Toolbox(params_of(), layout)
    assert toolbox.tags(one) == {"answer": "tool:answer"}
    with pytest.raises(ParamsError, match="is of a log, and its tool logged:answer does not run here"):
        toolbox.tools(one)
    [source] = load_json(layout.sources)
    assert (source["rows"], source["skipped"], source["parts"][0]["path"]) == (10, 0, "a.jsonl")
    assert len(source["parts"][0]["sha256"]) == 64


def test_a_session_and_a_first_turn_however_written_are_never_parted(layout: Layout) -> None:
    rows = [line(number, session_id=f"s{number // 2}") for number in range(12)]
    rows += [line(100 + number, asked="Where is it?" if number % 2 else "where  is it") for number in range(4)]
    write(layout, *rows)
    changed = params_of(download={"benchmarks": {"desk": {**BASE["download"]["benchmarks"]["desk"], "evaluation": 6}}})
    run_stages(changed, layout, "download", "check_questions")
    splits = {question.text: question.split for question in load(Question, layout.questions)}
    assert splits["Where is it?"] == splits["where  is it"]
    for number in range(0, 12, 2):
        mine = {
            split for text, split in splits.items() for n in (number, number + 1) if text.startswith(f"Question {n}:")
        }
        assert len(mine) == 1
    assert load_json(layout.imports)["desk"]["groups"] == 8


def test_what_is_left_out_is_counted_with_file_line_and_turn(layout: Layout) -> None:
    faulty = line(50)
    faulty["messages"][2]["tool_call_id"] = "gone"
    alone = {"messages": [{"role": "assistant", "content": "Hello, may I help?"}], "tools": TOOLS}
    write(layout, *(line(number) for number in range(6)), faulty, alone)
    run_stages(params_of(), layout, "download")
    found = load_json(layout.imports)["desk"]
    assert found["left_out"] == [
        {"file": "a.jsonl", "line": 7, "turn": 4, "unit": "step", "reason": "a result without its call"},
        {"file": "a.jsonl", "line": 8, "turn": 1, "unit": "conversation",
         "reason": "a conversation without a turn of the user or the system"},
    ]  # fmt: skip
    assert found["splits"] == {"evaluation": 2, "train": 5} and found["in_no_split"] == 0
    metrics = load_json(layout.metrics("download"))
    assert (metrics["desk.left_out"], metrics["desk.train.questions"], metrics["desk.labelled"]) == (2, 5, 0)


def test_a_bad_line_stops_or_is_skipped_and_counted(layout: Layout) -> None:
    write(layout, *(line(number) for number in range(4)), '{"messages": ', "[1, 2]")
    with pytest.raises(DataError, match=r"desk: a.jsonl, line 5: no JSON \(and 1 more\); download.on_bad_row: skip"):
        run_stages(params_of(), layout, "download")
    lenient = params_of(download={"on_bad_row": "skip"})
    run_stages(lenient, layout, "download")
    [source] = load_json(layout.sources)
    assert (source["rows"], source["skipped"]) == (6, 2)
    assert source["bad_rows"][0] == {"place": "line 5", "reason": "no JSON"}
    strict = params_of(download={"on_bad_row": "skip"}, check_questions={"max_skipped_share": 0.01})
    with pytest.raises(GateError, match="a file's rows are bad and were skipped"):
        run_stages(strict, layout, "check_questions")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"messages": [{"role": "user", "content": "Hello"}]}], "a.jsonl hold no action of an agent"),
        ([line(n, session_id="one") for n in range(6)], "split evaluation gets no conversation of 6. Groups are dealt "
         "out whole, and the largest has 6"),
    ],
)  # fmt: skip
def test_logs_that_give_nothing_say_why(rows: list[Any], said: str, layout: Layout) -> None:
    write(layout, *rows)
    with pytest.raises(DataError) as caught:
        run_stages(params_of(), layout, "download")
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_named(layout: Layout) -> None:
    (layout.root / "data/official/a.jsonl").unlink()
    with pytest.raises(DataError, match=r"a.jsonl does not exist; paths are relative to download.folder"):
        run_stages(params_of(), layout, "download")


def test_a_folder_and_the_same_bytes_twice(layout: Layout) -> None:
    folder = layout.root / "data/official/more"
    folder.mkdir()
    for name in ("b.jsonl", "a.json"):
        (folder / name).write_text(json.dumps(line(20 + len(name))) + "\n" + json.dumps(line(30 + len(name))))
    desk = {**BASE["download"]["benchmarks"]["desk"], "logs": ["more", "a.jsonl"]}
    run_stages(params_of(download={"benchmarks": {"desk": desk}}), layout, "download")
    first = [path.read_bytes() for path in (layout.questions, layout.conversations, layout.imports)]
    run_stages(params_of(download={"benchmarks": {"desk": desk}}), layout, "download")
    assert [path.read_bytes() for path in (layout.questions, layout.conversations, layout.imports)] == first
    assert [one["file"] for one in load_json(layout.sources)] == ["more/a.json", "more/b.jsonl", "a.jsonl"]


def test_an_outcome_filter_without_golden_labels_is_refused_early(layout: Layout) -> None:
    run_stages(params_of(), layout, "download")
    said = "filter.strategy names outcome, .* none of the 8 training conversations has a golden label; log one"
    with pytest.raises(DataError, match=said):
        run_stages(params_of(filter={"strategy": "outcome"}), layout, "check_questions")
    arms = {"strategy": "process", "max_trajectories": ["process", "both"]}
    with pytest.raises(DataError, match="filter.max_trajectories names both"):
        run_stages(params_of(filter=arms), layout, "check_questions")
    write(layout, *(line(number, answer=str(number * number)) for number in range(10)))
    run_stages(params_of(), layout, "download")
    run_stages(params_of(filter={"strategy": "outcome"}), layout, "check_questions")


def imported(layout: Layout, params: Params) -> list[Trajectory]:
    run_stages(params, layout, "download", "index", "base_model", "reward_model", "synthesize", "check_trajectories")
    return load(Trajectory, layout.trajectories)


def test_trajectories_are_the_logged_ones_and_held_out_ones_lie_apart(layout: Layout) -> None:
    made = imported(layout, params_of())
    split = {question.id: question.split for question in load(Question, layout.questions)}
    assert {split[one.question_id] for one in made} == {"train"} and len(made) == 8
    assert sorted(split[one.question_id] for one in load(Trajectory, layout.logged)) == ["evaluation"] * 2
    one = made[0]
    number = json.loads(one.steps[0].action.payload)["n"]
    chat = load_chat(layout.model("base"))
    assert [step.action.kind for step in one.steps] == ["tool:answer", "answer"]
    assert [chat.text(step.token_ids) for step in one.steps] == [
        f'<answer> {{"n": {number}}} </answer>',
        str(number * number),
    ]
    assert one.steps[0].observation == f"it is {number * number}" and one.stop is Stop.ANSWERED
    assert f"Question {number}:" in chat.text(one.prompt_ids) and "looks up" in chat.text(one.prompt_ids)


@pytest.mark.slow
def test_logs_of_split_pretrain_teach_the_base(layout: Layout) -> None:
    desk = {**BASE["download"]["benchmarks"]["desk"], "pretrain": 4}
    base = {
        "source": "cold_start", "model": "tiny", "revision": "", "lora": None, "epochs": 60, "batch_size": 2,
        "token_budget": 2048, "lr": 1e-2, "warmup": 0, "weight_decay": 0.0, "clip": 1.0,
        "gradient_checkpointing": False, "mixed_precision": "no",
    }  # fmt: skip
    tree = laid_over(presets.tree(ROOT, "smoke"), BASE)
    params = validate({**laid_over(tree, {"download": {"benchmarks": {"desk": desk}}}), "base_model": base}, "tests")
    made = imported(layout, params)
    splits = Counter(question.split for question in load(Question, layout.questions))
    assert splits == {"pretrain": 4, "train": 4, "evaluation": 2} and len(made) == 4
    metrics = load_json(layout.metrics("base_model"))
    assert metrics["demonstrations.desk"] == 4
    first, *_, last = (row["loss"] for row in load_json(layout.series("base_model")))
    assert last < first / 3
    write(layout, *(line(number, asked=f"{'abcdefghij'[number] * 5} " * 300) for number in range(10)))
    run_stages(params, layout, "download")
    with pytest.raises(DataError, match=r"desk in split pretrain becomes a demonstration \(no_room: 4\)"):
        run_stages(params, layout, "base_model")


def test_outcomes_are_judged_where_there_is_a_golden_label_alone(layout: Layout) -> None:
    rows = [line(number, **({"answer": str(number * number)} if number % 2 else {})) for number in range(10)]
    write(layout, *rows)
    imported(layout, params_of())
    chosen = params_of(filter={"strategy": "outcome"})
    run_stages(chosen, layout, "judge", "filter")
    labelled = {q.id for q in load(Question, layout.questions) if q.answers and q.split == "train"}
    verdicts = [verdict for verdict in load(Verdict, layout.verdicts) if verdict.step == OUTCOME]
    assert {verdict.trajectory_id.rpartition("/")[0] for verdict in verdicts} == labelled
    assert all(verdict.good for verdict in verdicts)
    counts = load_json(layout.filters)
    assert counts["strategies"]["outcome"]["trajectories"] == len(labelled) > 0
    assert counts["strategies"]["none"] == {
        "trajectories": 8, "steps": 16, "correct": 1.0, "by_benchmark": {"desk": 8}
    }  # fmt: skip


def test_a_conversation_longer_than_the_context_ends_before_and_is_counted(layout: Layout) -> None:
    write(layout, *(line(number, result="long " * 200 if number == 3 else "it is") for number in range(8)), line(8),
          line(9, asked="word " * 500))  # fmt: skip
    desk = {**BASE["download"]["benchmarks"]["desk"], "evaluation": 0}
    changed = params_of(download={"benchmarks": {"desk": desk}}, check_questions={"min_evaluation": 1})
    made = {json.loads(t.steps[0].action.payload)["n"]: t for t in imported(layout, changed)}
    assert 9 not in made and len(made) == 9
    assert (len(made[3].steps), made[3].stop, made[3].steps[-1].observation_ids) == (1, Stop.CONTEXT_FULL, ())
    reason = "a state and its action are longer than the model's context"
    assert load_json(layout.too_long) == [
        {"file": "a.jsonl", "line": 4, "turn": 4, "steps": 1, "reason": reason},
        {"file": "a.jsonl", "line": 10, "turn": 2, "steps": 2, "reason": reason},
    ]
    metrics = load_json(layout.metrics("synthesize"))
    assert (metrics["train_too_long_steps"], metrics["trajectories"], metrics["stop.context_full"]) == (3, 9, 1 / 9)


def test_an_import_that_was_killed_goes_on_where_it_was(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stages(params_of(), layout, "download", "index", "base_model", "reward_model", "synthesize")
    whole = [path.read_bytes() for path in (layout.trajectories, layout.logged, layout.metrics("synthesize"))]
    shutil.rmtree(layout.root / ".swirl")
    commit, committed = Journal.commit, list[int]()

    def killed(journal: Journal, number: int, *rest: Any) -> None:
        if len(committed) == 2:
            raise KeyboardInterrupt
        commit(journal, number, *rest)
        committed.append(number)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            run_stages(params_of(), layout, "synthesize")
    assert committed == [0, 1]
    again = list[int]()
    monkeypatch.setattr(Journal, "commit", lambda journal, n, *rest: (again.append(n), commit(journal, n, *rest)))
    run_stages(params_of(), layout, "synthesize")
    assert again == [2, 0], "the last block of the train split, and the only one of the held-out"
    paths = (layout.trajectories, layout.logged, layout.metrics("synthesize"))
    assert [path.read_bytes() for path in paths] == whole


def test_a_text_that_the_tokenizer_writes_in_another_unicode_form_is_as_it_writes_it(layout: Layout) -> None:
    rows = [line(number) for number in range(10)]
    for row in rows:
        row["messages"][3]["content"] = "cafe\u0301"
    write(layout, *rows)
    texts = {t.steps[1].action.text for t in imported(layout, params_of())}
    assert texts == {"caf\u00e9"}
    assert load_json(layout.metrics("synthesize"))["train_rewritten_actions"] == 8


def test_first_turns_without_a_word_are_no_group(layout: Layout) -> None:
    asked = ["?", "!", "…", "?!", "!?", "--", "??", "!!", "...", "—"]
    write(layout, *(line(number, asked=text) for number, text in enumerate(asked)))
    run_stages(params_of(), layout, "download")
    splits = Counter(question.split for question in load(Question, layout.questions))
    assert splits == {"train": 8, "evaluation": 2}


def test_without_a_reward_model_there_is_none_to_ask(layout: Layout) -> None:
    run_stages(params_of(), layout, "reward_model")
    with pytest.raises(ModelError, match="reward_model.source is none"):
        load_reward_model(params_of(), layout)
