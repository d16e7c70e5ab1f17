"""`swirl evaluate`: any models, any official file, scores and tests that were worked out by hand."""

from __future__ import annotations

import gc
import json
import re
import shutil
import subprocess
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

from swirl.cli import models as naming
from swirl.cli.evaluate import as_dict, compare_all
from swirl.config.params import Params, validate
from swirl.config.presets import laid_over
from swirl.core import records
from swirl.core.errors import DataError, ModelError, SwirlError
from swirl.core.layout import Layout
from swirl.core.types import Question
from swirl.evaluation.comparison import Compared, Estimate
from swirl.mlflow_store.settings import Settings
from swirl.mlflow_store.stores import destination
from swirl.models.adapters import add
from swirl.models.loading import load_model, load_tokenizer, save
from swirl.models.skipped import mark_skipped
from swirl.registry.model_registry import promote
from swirl.reporting.text import show_comparison
from swirl.serving.measuring import Drawing
from swirl.wiring import policies
from swirl.wiring.given_rows import GivenRows
from tests import asked, gguf_writer, taught
from tests.families import smollm2
from tests.servers import Reply, Scripted, held_port, said, scripted

Swirl = Callable[..., subprocess.CompletedProcess[str]]
GREEDY = Drawing(1, 0.0, 0)
ADA = [["Ada", ["Ada was born in Oslo."]], ["Bo", ["Bo was born in Rome."]]]


def hotpotqa(number: int, question: str, answer: str) -> dict[str, Any]:
    facts, kind = [["Ada", 0]], {"type": "bridge", "level": "hard"}
    return {
        "_id": f"h{number}",
        "question": question,
        "answer": answer,
        "supporting_facts": facts,
        "context": ADA,
        **kind,
    }


SCRIPTED = [
    hotpotqa(0, "what is born", "Oslo"),  # searches, answers Oslo
    hotpotqa(1, "Ada", "oslo"),  # answers Oslo
    hotpotqa(2, "Rome Oslo", "Rome"),  # calculates, searches, answers Oslo: wrong
    hotpotqa(3, "born born", "Oslo in Norway"),  # is malformed, searches, answers Oslo: one word of three
    hotpotqa(4, "Oslo what", "Oslo"),  # is cut, then malformed: no answer
]
"""What `taught` says to these is known: 11 actions, 3 of which do nothing."""


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project that no test changes."""
    return asked.project(tmp_path_factory.mktemp("project"))


def written(folder: Path, *rows: object) -> Path:
    """The rows as JSON lines; a string is a line as it is."""
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def compared(
    layout: Layout,
    models: Sequence[str],
    path: Path,
    folder: Path,
    benchmark: str = "hotpotqa",
    drawing: Drawing = GREEDY,
    params: Params | None = None,
) -> list[Compared]:
    rows = GivenRows(benchmark, path, None, drawing.seed, folder / "indices")
    settings = params or asked.params_of(layout)
    named = [(model, naming.source(model, layout), settings) for model in models]
    return list(compare_all(named, rows, drawing, settings, layout, ""))


def test_the_score_of_a_scripted_model_is_what_its_script_earns(layout: Layout, tmp_path: Path) -> None:
    path, model = written(tmp_path, *SCRIPTED), str(layout.model("swirl"))
    shown = as_dict("hotpotqa", 5, compared(layout, [model], path, tmp_path), {"train": 2})
    (row,) = shown.pop("models")
    assert shown == {"benchmark": "hotpotqa", "n": 5, "seen": {"train": 2}}
    # Wilson for 2 of 5: (0.4 + z2/10 +- z sqrt(0.24/5 + z2/100)) / (1 + z2/5), with z2 = 3.8415
    assert row == {
        "model": model,
        "accuracy": 0.4,
        "ci_low": pytest.approx(0.1176, abs=5e-5),
        "ci_high": pytest.approx(0.7693, abs=5e-5),
        "em": 0.4,
        "f1": pytest.approx((1 + 1 + 0 + 0.5 + 0) / 5),  # Oslo of Oslo in Norway: 2 * 1 * 1/3 / (1 + 1/3)
        "answered": 0.8,
        "malformed": pytest.approx(3 / 11),
        "p_vs_first": None,
    }


@pytest.mark.slow
def test_the_paired_test_is_of_each_model_against_the_first(layout: Layout, tmp_path: Path) -> None:
    """The first alone is right on 6 questions, the server alone on one: 2 (C(7, 0) + C(7, 1)) / 2^7 = 0.125."""
    golden = ["Oslo"] * 6 + ["Rome", "Bern"]
    path = written(tmp_path, *(hotpotqa(i, "Ada", answer) for i, answer in enumerate(golden)))
    model = str(layout.model("swirl"))
    with scripted(said("<answer> Rome </answer>")) as server:
        results = compared(layout, [model, f"{server.url}#m", model], path, tmp_path)
    assert [row.accuracy.value for row in results] == [6 / 8, 1 / 8, 6 / 8]
    assert [row.p_vs_first for row in results] == [None, 0.125, 1.0]
    assert [row.model for row in results] == [model, f"{server.url}#m", model]


FORMATS: dict[str, tuple[dict[str, Any], str, str]] = {
    "gsm8k": (
        {"question": "How many?", "answer": "2*3=<<2*3=6>>6\n#### 6"},
        "<math_exp> 2 * 3 </math_exp>",
        "2 * 3 -> 6",
    ),
    "hotpotqa": (hotpotqa(0, "Where?", "6"), "<search_query> Ada </search_query>", "Ada -> Ada was born in Oslo."),
    "musique": (
        {
            "id": "2hop__1_2",
            "question": "Who leads?",
            "answer": "six",
            "answer_aliases": ["6"],
            "answerable": True,
            "question_decomposition": [{"id": 1}, {"id": 2}],
            "paragraphs": [{"title": "Tove", "paragraph_text": "Tove lies in Velda.", "is_supporting": True}],
        },
        "<search_query> Tove </search_query>",
        "Tove -> Tove lies in Velda.",
    ),
    "cofca": (
        {
            "id": "c1",
            "question": "Who?",
            "answers": ["6", "six"],
            "hops": 3,
            "context": [{"title": "Orrin", "text": "Orrin is a lighthouse."}],
        },
        "<search_query> Orrin </search_query>",
        "Orrin -> Orrin is a lighthouse.",
    ),
    "beerqa": (
        {"id": "b1", "src": "squad", "question": "When?", "answers": ["6"], "context": [["Orrin", "Orrin was lit."]]},
        "<search_query> Orrin </search_query>",
        "Orrin -> Orrin was lit.",
    ),
}


@pytest.mark.parametrize("benchmark", FORMATS)
def test_every_official_format_has_its_tool_and_its_own_passages(
    benchmark: str, layout: Layout, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    row, call, seen = FORMATS[benchmark]
    path = written(tmp_path, row)
    if benchmark == "beerqa":
        path.write_text(json.dumps({"data": [row]}))
    with scripted(said(call), said("<answer> 6 </answer>")) as server:
        (result,) = compared(layout, [f"{server.url}#m"], path, tmp_path, benchmark)
    assert [turn["content"] for turn in server.bodies[1]["messages"]] == [row["question"], call, seen]
    assert (result.accuracy.value, result.answered, result.malformed) == (1.0, 1.0, 0.0)
    assert [str(one.message) for one in recwarn if "official file" in str(one.message)] == []


def test_a_server_is_asked_many_questions_at_a_time_and_each_gets_its_own_answer(
    layout: Layout, tmp_path: Path
) -> None:
    numbers = range(60)
    path = written(tmp_path, *(hotpotqa(i, f"Say {i}", str(i)) for i in numbers))

    def answer(body: dict[str, Any]) -> Reply:
        return said(f"<answer> {body['messages'][0]['content'].split()[1]} </answer>")

    with Scripted(answer) as server:
        (row,) = compared(layout, [f"{server.url}#m"], path, tmp_path)
    assert row.accuracy.value == 1.0
    assert sorted(int(body["messages"][0]["content"].split()[1]) for body in server.bodies) == list(numbers)


def test_a_server_that_fails_too_often_is_not_scored(layout: Layout, tmp_path: Path) -> None:
    path = written(tmp_path, *(hotpotqa(i, "Ada", "Oslo") for i in range(4)))
    failing = Reply({"error": {"message": "no such option", "type": "error"}}, 400)
    with scripted(failing) as server, pytest.raises(SwirlError, match="no such option"):
        compared(layout, [f"{server.url}#m"], path, tmp_path)


@pytest.mark.slow
def test_samples_are_drawn_at_a_temperature_from_the_seed(layout: Layout, tmp_path: Path) -> None:
    """Three samples of a question are one question; the same seed gives the same numbers."""
    path, model = written(tmp_path, *SCRIPTED), str(layout.model("swirl"))

    def drawn(seed: int) -> Compared:
        return compared(layout, [model], path, tmp_path, drawing=Drawing(3, 3.0, seed))[0]

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert first == again != other
    assert first.accuracy.value * 15 == pytest.approx(round(first.accuracy.value * 15))


@pytest.mark.slow
def test_an_adapter_is_a_model_on_its_base(layout: Layout, tmp_path: Path) -> None:
    copy = asked.copy(layout, tmp_path / "copy")
    shutil.move(copy.model("swirl"), copy.model("base"))
    model = load_model(copy.model("base"), "cpu", "eager")
    add(model, 2, 4, ["all-linear"], seed=1)
    save(model, load_tokenizer(copy.model("base")), copy.model("swirl"), copy.model("base"), copy.root)
    path = written(tmp_path, *SCRIPTED)
    first, second = compared(copy, [str(copy.model("base")), str(copy.model("swirl"))], path, tmp_path)
    assert (first.accuracy, second.accuracy, second.p_vs_first) == (first.accuracy, first.accuracy, 1.0)
    with torch.no_grad():  # an adapter that shouts one token down
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(3.0)
    save(model, load_tokenizer(copy.model("base")), copy.model("swirl"), copy.model("base"), copy.root)
    (spoiled,) = compared(copy, [str(copy.model("swirl"))], path, tmp_path)
    assert spoiled.answered == 0.0


@pytest.mark.slow
def test_a_registered_agent_searches_the_files_passages_with_its_own_prompts(tmp_path: Path) -> None:
    layout = asked.project(tmp_path / "project")
    asked.predict(layout, "base", 0)
    asked.predict(layout, "swirl", 40)
    store = destination(layout, Settings())
    promote(store, layout, store.client.create_run(store.experiment, run_name="dvc repro").info.run_id)
    path, folder = written(tmp_path, *SCRIPTED), str(layout.model("swirl"))
    for name in ("search", "calculate", "closed_book"):
        (layout.root / f"words/{name}.txt").write_text("Rome Rome {question}", encoding="utf-8")
    registered, here = compared(layout, ["models:/swirl-policy@champion", folder], path, tmp_path)
    assert (registered.accuracy.value, registered.malformed) == (0.4, 3 / 11)
    assert here.malformed != 3 / 11, "the project's prompts are others now"


def test_a_grader_decides_where_params_say_so(tmp_path: Path) -> None:
    """Neither models/base nor models/reward is there; the answers of the grader are kept in .swirl alone."""
    with scripted(said("The same.\nYES")) as server:
        served = {"url": server.url, "model": "g", "api": "chat", "key_env": "", "chat_template_kwargs": {}}
        grading = {"outcome": "model", "grader": served}
        layout = asked.project(tmp_path / "project", judge=grading, prompts={"judge": "judge"})
        shutil.copytree(asked.ROOT / "src/swirl/prompts/judge", layout.root / "judge")
        before = listing(layout)
        (row,) = compared(layout, [str(layout.model("swirl"))], written(tmp_path, *SCRIPTED), tmp_path)
    assert row.accuracy.value == 0.8, "all that are answered"
    assert row.em.value == 0.4
    assert {name for name in listing(layout) if not name.startswith(".swirl/")} == before


def listing(layout: Layout) -> set[str]:
    return {path.relative_to(layout.root).as_posix() for path in layout.root.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_one_model_is_in_memory_at_a_time(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[weakref.ref[Any]] = []

    def watched(*arguments: Any) -> Any:
        assert [one for one in loaded if one() is not None] == []
        model = load_model(*arguments)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(policies, "load_model", watched)
    path, model = written(tmp_path, *SCRIPTED), str(layout.model("swirl"))
    compared(layout, [model, model, model], path, tmp_path)
    gc.collect()
    assert [one() for one in loaded] == [None] * 3


def test_a_server_of_params_is_that_of_the_projects_model_alone(layout: Layout, tmp_path: Path) -> None:
    """`evaluate.servers.swirl` has models/swirl, not some other folder of that name."""
    other = shutil.copytree(layout.model("swirl"), tmp_path / "other/swirl")
    path = written(tmp_path, *SCRIPTED)
    with scripted(said("<answer> Rome </answer>")) as server:
        served = {"url": server.url, "model": "m", "api": "chat", "key_env": "", "chat_template_kwargs": {}}
        tree = laid_over(asked.params_of(layout).model_dump(), {"evaluate": {"servers": {"swirl": served}}})
        named = [str(layout.model("swirl")), str(other)]
        there, here = compared(layout, named, path, tmp_path, params=validate(tree, "tests"))
    assert (there.accuracy.value, here.accuracy.value) == (0.2, 0.4)
    assert len(server.bodies) == 5


def test_all_models_are_looked_at_before_the_first_is_asked(layout: Layout, tmp_path: Path) -> None:
    path = written(tmp_path, *SCRIPTED)
    (tmp_path / "empty").mkdir()
    mark_skipped(tmp_path / "absent", "train.methods does not name it")
    (tmp_path / "weights.gguf").write_bytes(b"no weights")
    with scripted(said("<answer> Rome </answer>")) as server:
        for wrong, message in (
            (str(tmp_path / "empty"), "empty holds no model"),
            (str(tmp_path / "absent"), "train.methods does not name it"),
            (str(tmp_path / "weights.gguf"), "weights.gguf"),
            (f"{server.url}", "the model is missing"),
            ("models:/swirl-policy", "names no registered model"),
        ):
            with pytest.raises((ModelError, DataError), match=re.escape(message)):
                compared(layout, [f"{server.url}#m", wrong], path, tmp_path)
    assert server.bodies == []
    with pytest.raises(SwirlError, match="there is no model folder nowhere; .* a model is a folder, a .gguf file"):
        naming.source("nowhere", layout)
    assert naming.source(str(tmp_path / "weights.gguf"), layout) == tmp_path / "weights.gguf"


@pytest.mark.slow  # a server that is gone is asked six times
def test_results_of_the_models_before_one_that_fails_are_shown(layout: Layout, tmp_path: Path, swirl: Swirl) -> None:
    path = written(tmp_path, *SCRIPTED)
    with scripted(said("<answer> Rome </answer>")) as server, held_port() as port:
        asked_of = (f"{server.url}#m", f"http://127.0.0.1:{port}/v1#gone", "--benchmark", "hotpotqa")
        done = swirl("evaluate", *asked_of, "--file", str(path), "--json", cwd=layout.root)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert [row["model"] for row in json.loads(done.stdout)["models"]] == [f"{server.url}#m"]


def test_what_is_no_model_and_no_file_is_said(layout: Layout, tmp_path: Path, swirl: Swirl) -> None:
    common = ("--benchmark", "hotpotqa", "--file")
    done = swirl("evaluate", "models/swirl", *common, str(tmp_path), cwd=layout.root)
    assert done.stderr.startswith(f"swirl: {tmp_path} is no file but a folder or a pipe, ")
    done = swirl("evaluate", "", *common, str(written(tmp_path, *SCRIPTED)), cwd=layout.root)
    assert done.stderr == "swirl: the model's name is empty: is the variable that should hold it unset?\n"


def test_the_same_questions_are_drawn_for_every_model_and_more_keep_the_fewer(tmp_path: Path) -> None:
    path = written(tmp_path, *(hotpotqa(i, "Ada", "Oslo") for i in range(20)))

    def ids(count: int | None, seed: int = 0) -> list[str]:
        return [question.id for question in GivenRows("hotpotqa", path, count, seed, tmp_path).drawn]

    assert ids(5) == ids(5) == ids(9)[:5]
    assert ids(5) != ids(5, seed=1)
    assert set(ids(None)) == set(ids(20)) == {f"hotpotqa/evaluation/h{i}" for i in range(20)}
    with pytest.raises(DataError, match=r"21 questions are asked for, and .*rows.jsonl holds 20; ask for fewer"):
        ids(21)


def test_a_task_that_searches_needs_passages(layout: Layout, tmp_path: Path) -> None:
    """GSM8K's rows bring none, so params that let its task search are refused."""
    tasks = {"calculate": {"tools": ["calculator", "search"], "max_steps": 5}}
    tree = laid_over(asked.params_of(layout).model_dump(), {"tasks": {**asked.SETTINGS["tasks"], **tasks}})
    path = written(tmp_path, FORMATS["gsm8k"][0])
    with pytest.raises(DataError, match="rows.jsonl holds no passage to search in"):
        compared(layout, [str(layout.model("swirl"))], path, tmp_path, "gsm8k", params=validate(tree, "tests"))


def test_the_table_has_at_most_a_hundred_columns(capsys: pytest.CaptureFixture[str]) -> None:
    best = Estimate(1.0, 0.9, 1.0)
    worst = Estimate(0.0, 0.0, 0.1)
    long = "/a/very/long/path/of/a/folder/with/a/model/that/somebody/else/trained/examples/smollm2-135m/swirl\x1b[0m"
    results = [
        Compared(long, best, best, best, 1.0, 1.0, None),
        Compared("models/base", worst, worst, worst, 0.0, 0.0, 0.00001),
    ]
    show_comparison("hotpotqa: 150 of 250 questions of [red]rows.jsonl, greedy", results)
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines()) <= 100
    assert "\x1b" not in printed
    assert re.search(r"models/base +0\.0 ±5\.0 +0\.0 ±5\.0 +0\.0 ±5\.0 +0\.0% +0\.0% +<0\.001", printed)
    assert "100.0 ±5.0" in printed
    assert "questions of [red]rows.jsonl, greedy" in printed


@pytest.mark.slow
def test_the_command_prints_json_alone_and_changes_nothing(layout: Layout, tmp_path: Path, swirl: Swirl) -> None:
    path, before = written(tmp_path, *SCRIPTED), listing(layout)
    arguments = ("evaluate", "models/swirl", str(layout.model("swirl")), "--benchmark", "hotpotqa", "--file", str(path))
    done = swirl(*arguments, "--json", cwd=layout.root)
    found = json.loads(done.stdout)
    assert (found["benchmark"], found["n"], found["seen"]) == ("hotpotqa", 5, {"train": 1})
    assert "WARNING: some of the drawn questions are in this project's data: 1 in train." in done.stderr
    assert [(row["model"], row["accuracy"], row["p_vs_first"]) for row in found["models"]] == [
        ("models/swirl", 0.4, None),
        (str(layout.model("swirl")), 0.4, 1.0),
    ]
    assert re.search(r"^evaluate models/swirl: 5/5 \(100%\), \d+ s$", done.stderr, re.MULTILINE)
    assert listing(layout) == before
    own = tmp_path / "own.yaml"
    shutil.copytree(asked.ROOT / "presets", layout.root / "presets")
    own.write_text("prompts: {policy: words}\nrollout: {max_action_tokens: 16}\n")
    three = swirl(*arguments[:2], *arguments[3:], "--questions", "3", "--preset", str(own), cwd=layout.root)
    assert three.stdout.splitlines()[0].strip() == "hotpotqa: 3 of 5 questions of rows.jsonl, greedy"


def test_rows_that_the_project_trains_on_are_counted(tmp_path: Path) -> None:
    """Of five rows one is in `train`, but for capitals and spaces, and two in `reward`; `evaluation` is no matter."""
    rows = GivenRows("hotpotqa", written(tmp_path, *SCRIPTED), None, 0, tmp_path)
    project = Layout(tmp_path / "project")
    assert rows.seen(project) == {}, "a project without data"
    texts = [("train", "What is  BORN"), ("reward", "Ada"), ("reward", "Rome Oslo"), ("evaluation", "born born")]
    texts.append(("train", "who is Ada"))
    kept = [Question(text, "hotpotqa", split, text, ("x",), 2, ("search",)) for split, text in texts]
    project.questions.parent.mkdir(parents=True)
    records.save(kept, Question, project.questions)
    assert rows.seen(project) == {"train": 1, "reward": 2}


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ('{"_id": "h", "question": 7}', (), "rows.jsonl, line 2, field 'context'"),
        ("{", (), "rows.jsonl, line 2, expected one JSON object in UTF-8"),
        ("", ("--benchmark", "mini-hotpotqa"), "benchmark 'mini-hotpotqa' has no official files; those with are"),
        ("", ("--questions", "2"), "2 questions are asked for, and "),
        ("", ("--samples", "2"), "2 greedy samples of a question are all the same; add --temperature"),
        ("", ("--temperature", "inf"), "--temperature is inf; it is a finite number, 0 or more"),
        ("", ("--file", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
    ],
)
def test_a_mistake_gets_one_sentence(
    row: str, options: tuple[str, ...], message: str, layout: Layout, tmp_path: Path, swirl: Swirl
) -> None:
    path = written(tmp_path, SCRIPTED[0], row)
    done = swirl("evaluate", "models/swirl", "--benchmark", "hotpotqa", "--file", str(path), *options, cwd=layout.root)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("swirl: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert ("did you mean hotpotqa?" in done.stderr) == (options[1:] == ("mini-hotpotqa",))


def test_help_says_what_a_model_may_be(swirl: Swirl) -> None:
    printed = " ".join(swirl("evaluate", "--help").stdout.split())
    for word in ("--benchmark", "--file", "--questions", "--json", "--temperature", ".gguf", "hotpotqa"):
        assert word in printed


def test_the_taught_script_is_what_these_tests_think() -> None:
    assert list(taught.SCRIPT) == [row["question"] for row in SCRIPTED]


def test_a_gguf_file_is_a_model(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    file = gguf_writer.write(tmp_path / "tiny.gguf", gguf_writer.model(len(smollm2())))
    (row,) = compared(layout, [str(file)], written(tmp_path, *SCRIPTED), tmp_path)
    assert (row.accuracy.value, row.answered, row.malformed) == (0.0, 0.0, 1.0)
