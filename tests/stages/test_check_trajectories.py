"""The gate on trajectories: each violation, put into an otherwise sound file, stops it and is located."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from swirl.config.params import Params, load
from swirl.config.trajectories import CheckTrajectories
from swirl.core import parquet
from swirl.core.errors import DataError, GateError, ModelError
from swirl.core.layout import Layout
from swirl.core.records import load_json, read_table, save
from swirl.core.types import Action, Observation, Question, Step, Stop, Trajectory
from swirl.stages import check_trajectories

WORDS = ["<end>", "<search_query>", "</search_query>", "<answer>", "</answer>", "Oslo", "Bergen", "hmm"]
"""The vocabulary; a word's token id is its position."""

PARAMS = load(Path(__file__).parents[2] / "params.yaml")
LIMITS = CheckTrajectories(
    max_malformed_rate=0.25, max_cut_rate=0.25, max_tool_error_rate=0.5, max_failed_rate=0.5, min_benchmark_share=0.25
)


def params(**limits: float) -> Params:
    tasks = {**PARAMS.tasks, "search": PARAMS.tasks["search"].model_copy(update={"max_steps": 3})}
    return PARAMS.model_copy(update={"tasks": tasks, "check_trajectories": LIMITS.model_copy(update=limits)})


def step(index: int, kind: str, text: str, observation: str = "", tool_error: bool = False) -> Step:
    ids = (*(WORDS.index(word) for word in text.split()), 0)
    called = kind if kind != "malformed" else ""
    seen = (Observation(observation, tool_error, called),) if observation else ()
    return Step(index, Action(kind, text, ""), seen, ids, (-0.5,) * len(ids), (1, 2))


def search(index: int, tool_error: bool = False) -> Step:
    return step(index, "search", "<search_query> Oslo </search_query>", "Oslo -> Bergen", tool_error)


def answer(index: int) -> Step:
    return step(index, "answer", "<answer> Bergen </answer>")


def attempt(identifier: str, question: str, steps: tuple[Step, ...], stop: Stop = Stop.ANSWERED) -> Trajectory:
    return Trajectory(identifier, question, "mini-hotpotqa", 0, "base", 1, (5, 6), steps, stop, "")


QUESTIONS = [
    Question("q-0", "mini-hotpotqa", "train", "Where?", ("Bergen",), 1, ("search",)),
    Question("q-1", "mini-hotpotqa", "train", "Where then?", ("Oslo",), 1, ("search",)),
    Question("q-2", "mini-hotpotqa", "evaluation", "Where now?", ("Oslo",), 1, ("search",)),
]
TRAJECTORIES = [
    attempt("t-0", "q-0", (search(0), answer(1))),
    attempt("t-1", "q-1", (search(0, tool_error=True), search(1), search(2)), Stop.STEP_LIMIT),
    attempt("t-2", "q-1", (step(0, "malformed", "hmm hmm", "call or answer"), answer(1))),
    attempt("t-3", "q-0", (), Stop.CONTEXT_FULL),
]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="hmm"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    return folder


@pytest.fixture
def layout(tmp_path: Path, tokenizer_folder: Path) -> Layout:
    layout = Layout(tmp_path)
    save(QUESTIONS, Question, layout.questions)
    save(TRAJECTORIES, Trajectory, layout.trajectories)
    layout.model("base").parent.mkdir(parents=True)
    layout.model("base").symlink_to(tokenizer_folder)
    return layout


def stopped(layout: Layout, **limits: float) -> str:
    """The message with which the gate stops; the data is left as it was."""
    before = layout.trajectories.read_bytes()
    with pytest.raises(GateError) as caught:
        check_trajectories.run(params(**limits), layout)
    assert not layout.quality("trajectories").exists()
    assert layout.trajectories.read_bytes() == before
    return str(caught.value)


def test_a_sound_file_passes_and_the_report_holds_its_rates(layout: Layout) -> None:
    check_trajectories.run(params(), layout)
    report = load_json(layout.quality("trajectories"))
    assert report["success"] is True
    assert report["rows"] == {"trajectories": 4, "steps": 7, "observations": 5, "questions": 3}
    assert report["statistics"] == {
        "steps_per_trajectory": 1.75,
        "malformed_rate": pytest.approx(1 / 7),
        "cut_rate": 0.0,
        "tool_error_rate": 0.25,
        "failed_rate": 0.0,
        "retokenised_rate": 0.0,
        "stop/answered": 0.5,
        "stop/step_limit": 0.25,
        "stop/malformed": 0.0,
        "stop/context_full": 0.25,
        "stop/tool_failed": 0.0,
        "share/mini-hotpotqa": 1.0,
    }


def test_log_probabilities_may_be_missing_only_where_the_trajectory_says_so(layout: Layout) -> None:
    bare = replace(TRAJECTORIES[0], steps=tuple(replace(step, logprobs=()) for step in TRAJECTORIES[0].steps))
    save([bare, *TRAJECTORIES[1:]], Trajectory, layout.trajectories)
    assert "row 0, trajectory_id t-0, step 1, value 0 for 4 tokens" in stopped(layout)
    save([replace(bare, retokenised=True), *TRAJECTORIES[1:]], Trajectory, layout.trajectories)
    check_trajectories.run(params(), layout)
    assert load_json(layout.quality("trajectories"))["statistics"]["retokenised_rate"] == 0.25
    layout.quality("trajectories").unlink()
    some = replace(bare, retokenised=True, steps=(replace(bare.steps[0], logprobs=(-0.5,)), bare.steps[1]))
    save([some, *TRAJECTORIES[1:]], Trajectory, layout.trajectories)
    assert "value 1 for 4 tokens" in stopped(layout)


@pytest.mark.parametrize(
    ("row", "change", "message"),
    [
        (2, {"id": "t-0"}, "expect_column_values_to_be_unique on trajectories.id: 2 of 4 rows violate that every "
         "trajectory has an id of its own: row 0, id t-0, value t-0; row 2, id t-0, value t-0"),
        (2, {"id": None}, "expect_column_values_to_not_be_null on trajectories.id: 1 of 4 rows violate that id is "
         "never null: row 2, id None, value None"),
        (2, {"steps": None}, "expect_column_values_to_not_be_null on trajectories.steps: 1 of 4"),
        (2, {"question_id": "q-2"}, "trajectories.question_id_problem: 1 of 4 rows violate that every trajectory tries "
         "a question of the train split: row 2, id t-2, value q-2 is of the evaluation split"),
        (2, {"question_id": "q-9"}, "row 2, id t-2, value there is no question q-9"),
        (2, {"benchmark": "mini-gsm8k"}, "trajectories.benchmark_problem: 1 of 4 rows violate that a trajectory has "
         "its question's benchmark: row 2, id t-2, value mini-gsm8k, but its question is of mini-hotpotqa"),
        (2, {"stop": "tired"}, "trajectories.stop: 1 of 4 rows violate that every stop is a known one: row 2, id t-2, "
         "value tired"),
        (0, {"steps": (search(0), answer(2))}, "trajectories.index_problem: 1 of 4 rows violate that the steps are "
         "numbered 0, 1, 2 and so on: row 0, id t-0, value numbered 0, 2"),
        (0, {"steps": (search(0), search(1), search(2), answer(3))}, "trajectories.length_problem: 1 of 4 rows violate "
         "that no trajectory has more steps than its limit: row 0, id t-0, value 4 steps, the limit is 3"),
        (0, {"steps": (answer(0), search(1))}, "trajectories.ending_problem: 1 of 4 rows violate that an answer is "
         "the last action of an answered trajectory and nothing else: row 0, id t-0, value answers at step 1 of 2 "
         "and goes on"),
        (0, {"steps": (search(0),)}, "row 0, id t-0, value stop is answered, the last action is search"),
        (0, {"stop": Stop.STEP_LIMIT}, "row 0, id t-0, value stop is step_limit, the last action is answer"),
        (3, {"stop": Stop.ANSWERED}, "row 3, id t-3, value stop is answered, the last action is missing"),
    ],
)  # fmt: skip
def test_a_broken_trajectory_stops_the_gate(layout: Layout, row: int, change: dict[str, Any], message: str) -> None:
    trajectories = list(TRAJECTORIES)
    trajectories[row] = replace(trajectories[row], **change)
    save(trajectories, Trajectory, layout.trajectories)
    assert message in stopped(layout)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_ids": (3, 5, 4, 0)}, "steps.token_ids_problem: 1 of 7 rows violate that an action's token ids decode "
         "to its text: row 2, trajectory_id t-2, step 2, value decode to '<answer> Oslo </answer>', the text is "
         "'<answer> Bergen </answer>'"),
        ({"token_ids": (3, 6, 4, 99)[::-1], "logprobs": (0.0,) * 4}, "step 2, value decode to"),
        ({"token_ids": (3, -6, 4, 0)}, "row 2, trajectory_id t-2, step 2, value token id -6"),
        ({"token_ids": (), "logprobs": ()}, "row 2, trajectory_id t-2, step 2, value no tokens"),
        ({"token_ids": (3, None, 4, 0)}, "expect_column_values_to_not_be_null on steps.token_ids: 1 of 7 rows violate "
         "that token_ids is never null: row 2, trajectory_id t-2, step 2"),
        ({"index": None}, "expect_column_values_to_not_be_null on steps.index: 1 of 7 rows violate that index is never "
         "null: row 2, trajectory_id t-2, index None"),
        ({"logprobs": (-0.5, -0.5, 0.25, 0.0)}, "steps.logprobs_problem: 1 of 7 rows violate that every token has one "
         "finite log-probability, 0 at most: row 2, trajectory_id t-2, step 2, value 0.25 at token 2"),
        ({"logprobs": (-0.5, float("nan"), -0.5, 0.0)}, "step 2, value nan at token 1"),
        ({"logprobs": (float("-inf"), -0.5, -0.5, 0.0)}, "step 2, value -inf at token 0"),
        ({"logprobs": (-0.5,)}, "step 2, value 1 for 4 tokens"),
        ({"observations": (Observation("Oslo -> Bergen", False),)}, "steps.observation_problem: 1 of 7 rows violate "
         "that an observation follows every call, and no answer: row 2, trajectory_id t-2, step 2, value an answer is "
         "followed by 'Oslo -> Bergen'"),
    ],
)  # fmt: skip
def test_a_broken_step_stops_the_gate(layout: Layout, change: dict[str, Any], message: str) -> None:
    broken = replace(TRAJECTORIES[2], steps=(TRAJECTORIES[2].steps[0], replace(answer(1), **change)))
    save([*TRAJECTORIES[:2], broken, TRAJECTORIES[3]], Trajectory, layout.trajectories)
    assert message in stopped(layout)


def test_a_call_that_nothing_answers_stops_the_gate(layout: Layout) -> None:
    save(
        [replace(TRAJECTORIES[0], steps=(replace(search(0), observations=()), answer(1)))],
        Trajectory,
        layout.trajectories,
    )
    assert "trajectory_id t-0, step 1, value nothing follows a search action that is not the last" in stopped(layout)


def test_each_call_of_an_action_is_a_call_to_the_gate(layout: Layout) -> None:
    seen = (Observation("Oslo", False, "search", "a"), Observation("error: no", True, "search", "b"))
    several = replace(TRAJECTORIES[0], steps=(replace(search(0), observations=seen * 2), answer(1)))
    save([several, *TRAJECTORIES[1:]], Trajectory, layout.trajectories)
    check_trajectories.run(params(), layout)
    report = load_json(layout.quality("trajectories"))
    assert report["statistics"]["tool_error_rate"] == 3 / 7
    layout.quality("trajectories").unlink()
    message = stopped(layout, max_tool_error_rate=0.4)
    assert "calls.error: 3 of 7 rows violate" in message
    unanswered = (seen[0], Observation("", False, "search", "b"))
    save(
        [replace(several, steps=(replace(search(0), observations=unanswered), answer(1)))],
        Trajectory,
        layout.trajectories,
    )
    assert "trajectory_id t-0, step 1, value nothing follows a search action that is not the last" in stopped(layout)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_malformed_rate": 0.1}, "expect_column_values_to_be_in_set on steps.malformed: 1 of 7 rows violate that "
         "at most 10.0% of the actions are malformed: row 2, trajectory_id t-2, step 1, value True"),
        ({"max_cut_rate": 0.1}, "expect_column_values_to_be_in_set on steps.cut: 1 of 7 rows violate that "
         "at most 10.0% of the actions are cut off at their limit: row 2, trajectory_id t-2, step 2, value True"),
        ({"max_tool_error_rate": 0.24}, "calls.error: 1 of 4 rows violate that at most 24.0% of the tool calls "
         "give an error: row 1, trajectory_id t-1, step 1, value True"),
    ],
)  # fmt: skip
def test_too_many_bad_steps_stop_the_gate(layout: Layout, limits: dict[str, float], message: str) -> None:
    cut = replace(TRAJECTORIES[2], steps=(TRAJECTORIES[2].steps[0], step(1, "cut", "hmm")), stop=Stop.MALFORMED)
    save([*TRAJECTORIES[:2], cut, TRAJECTORIES[3]], Trajectory, layout.trajectories)
    assert message in stopped(layout, **limits)


def test_a_rate_exactly_at_its_limit_passes(layout: Layout) -> None:
    check_trajectories.run(params(max_tool_error_rate=0.25), layout)


def test_too_many_failed_trajectories_stop_the_gate(layout: Layout) -> None:
    failed = replace(TRAJECTORIES[3], stop=Stop.TOOL_FAILED, error="index is gone")
    save([*TRAJECTORIES[:3], failed], Trajectory, layout.trajectories)
    assert (
        "trajectories.failed: 1 of 4 rows violate that at most 20.0% of the trajectories end in an error: row 3, id t-3"
    ) in stopped(layout, max_failed_rate=0.2)


def test_a_benchmark_with_too_few_trajectories_stops_the_gate(layout: Layout) -> None:
    extra = Question("g-0", "mini-gsm8k", "train", "How many?", ("3",), 1, ("calculate",))
    save([*QUESTIONS, extra], Question, layout.questions)
    assert (
        "expect_column_values_to_be_between on mix.share: 1 of 2 rows violate that every training benchmark has at "
        "least 25.0% of the trajectories: benchmark mini-gsm8k, value 0.0"
    ) in stopped(layout)


def test_more_than_five_offending_rows_are_counted(layout: Layout) -> None:
    save([TRAJECTORIES[0]] * 7, Trajectory, layout.trajectories)
    message = stopped(layout)
    assert "trajectories.id: 7 of 7 rows" in message
    assert "row 4, id t-0, value t-0; and 2 more" in message
    assert "row 5" not in message


def test_hundreds_of_malformed_actions_pass_within_the_limit_and_stop_beyond_it(layout: Layout) -> None:
    save([replace(TRAJECTORIES[2], id=f"t-{n}") for n in range(201)], Trajectory, layout.trajectories)
    assert "steps.malformed: 201 of 402 rows" in stopped(layout, max_malformed_rate=0.49)
    check_trajectories.run(params(max_malformed_rate=0.5), layout)
    assert load_json(layout.quality("trajectories"))["statistics"]["malformed_rate"] == 0.5


def test_a_corrupted_file_is_named(layout: Layout) -> None:
    data = bytearray(layout.trajectories.read_bytes())
    data[len(data) // 2 :] = b""
    layout.trajectories.write_bytes(data)
    with pytest.raises(DataError, match=r"trajectories\.parquet is not a readable Parquet file"):
        check_trajectories.run(params(), layout)


def test_bytes_that_are_no_text_are_named(layout: Layout) -> None:
    table = read_table(Trajectory, layout.trajectories)
    raw = pa.array([b"Oslo \xff\xff Bergen"] * len(table)).view(pa.string())
    parquet.write(
        [table.set_column(table.column_names.index("error"), "error", raw)], table.schema, layout.trajectories
    )
    with pytest.raises(DataError, match=r"trajectories\.parquet holds bytes that are no Trajectory"):
        check_trajectories.run(params(), layout)


def test_a_missing_column_is_named(layout: Layout) -> None:
    table = read_table(Trajectory, layout.trajectories).drop_columns(["stop"])
    parquet.write([table], table.schema, layout.trajectories)
    with pytest.raises(DataError, match=r"trajectories\.parquet: column 'stop' is missing"):
        check_trajectories.run(params(), layout)


def test_no_trajectories_stop_the_gate(layout: Layout) -> None:
    save([], Trajectory, layout.trajectories)
    assert "on trajectories: observed 0, but there are trajectories" in stopped(layout)


def test_a_model_without_a_tokenizer_is_named(layout: Layout) -> None:
    layout.model("base").unlink()
    layout.model("base").mkdir()
    with pytest.raises(ModelError, match="holds no tokenizer"):
        check_trajectories.run(params(), layout)
