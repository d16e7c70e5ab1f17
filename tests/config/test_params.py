"""params.yaml: what is refused, and how the refusal reads."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from swirl.benchmarks.embedded.miniatures import EMBEDDED
from swirl.benchmarks.hub import HUB
from swirl.benchmarks.official import OFFICIAL
from swirl.config import presets
from swirl.config.data import NAMES
from swirl.config.execution import Execution
from swirl.config.overrides import checked, parsed
from swirl.config.params import judged_here, label_judge_section, load, validate
from swirl.config.served import Served, client_settings
from swirl.config.yaml_text import inline, parse
from swirl.core.errors import ParamsError
from swirl.core.splits import counts

ROOT = Path(__file__).parents[2]
TREE: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def changed(path: str, value: Any) -> dict[str, Any]:
    """The committed params with one value replaced, or added."""
    tree = copy.deepcopy(TREE)
    *sections, last = path.split(".")
    section: Any = tree
    for name in sections:
        section = section[int(name)] if isinstance(section, list) else section[name]
    section[last] = value
    return tree


def refusal(tree: Any) -> list[str]:
    """The lines of the message with which `tree` is refused."""
    with pytest.raises(ParamsError) as caught:
        validate(tree, "params.yaml")
    return str(caught.value).splitlines()


def test_the_committed_params_are_valid() -> None:
    params = load(ROOT / "params.yaml")
    assert {name: task.max_steps for name, task in params.tasks.items()} == {"search": 5, "calculate": 10}
    assert params.filter.strategy == "process"
    assert params.download.benchmarks["mini-gsm8k"].evaluation == 400


def test_the_smoke_params_laid_over_them_are_valid() -> None:
    params = validate(presets.tree(ROOT, "smoke"), "smoke")
    assert params.download.worlds == 1
    assert params.download.changed_facts == 0.5


def test_greedy_samples_are_refused_because_they_are_all_the_same() -> None:
    (_, line) = refusal(changed("evaluate.samples", 5))
    assert "samples is 5 and temperature 0: greedy samples of a question are all the same; give samples: 1" in line
    evaluate = {**TREE["evaluate"], "samples": 5, "temperature": 1.0}
    assert validate(changed("evaluate", evaluate), "params.yaml").evaluate.samples == 5


@pytest.mark.parametrize(
    ("updates", "passes", "words"),
    [(60, 1.0, "updates is 60 and passes 1.0, but"), (None, None, "both are null, but")],
)
def test_the_length_of_rl_is_given_once(updates: int | None, passes: float | None, words: str) -> None:
    (_, line) = refusal(changed("train.swirl", {**TREE["train"]["swirl"], "updates": updates, "passes": passes}))
    assert line.startswith(f"  train.swirl: {words} one of them is the length of training and the other is null")
    assert "train.swirl.updates=60 with train.swirl.passes=null" in line


def test_an_override_of_one_length_says_to_null_the_other(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    swirl = {**TREE["train"]["swirl"], "updates": None, "passes": 1.5}
    path.write_text(yaml.safe_dump(changed("train.swirl", swirl)), encoding="utf-8")
    with pytest.raises(ParamsError, match=r"updates is 9 and passes 1.5, .* train.swirl.updates=60 with .*passes=null"):
        checked(path, parsed(["train.swirl.updates=9"]))
    swirl = checked(path, parsed(["train.swirl.updates=9", "train.swirl.passes=null"])).train.swirl
    assert (swirl.updates, swirl.passes) == (9, None)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: " + 100_000 * "[", "is not YAML: its values are nested more than 50 deep"),
        ("a: " + 50 * "[" + 50 * "]", "is not YAML: its values are nested more than 50 deep"),
        (
            "a: &a [1, 2]\nb: &b [" + 99 * "*a, " + "*a]\nc: &c [" + 999 * "*b, " + "*b]\nd: *c\n",
            "has 602,311 values with what its aliases repeat; 100,000 is",
        ),
        ('a: !!int ""', "is not YAML: "),
        ("a: !!bool maybe", "is not YAML: "),
        ("a: 2020-13-01", "is not YAML: month must be in 1..12"),
    ],
)
def test_a_file_of_settings_that_would_take_all_memory_is_refused(text: str, what: str) -> None:
    with pytest.raises(ParamsError, match=f"^swirl.yaml {re.escape(what)}"):
        parse(text, "swirl.yaml")


def test_aliases_may_repeat_what_is_short() -> None:
    assert str(parse("a: " + 49 * "[" + 49 * "]", "params.yaml")).count("[") == 49
    assert parse("a: &a [1, 2]\nb: *a\nc: {d: *a}", "params.yaml") == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}


def test_a_long_value_is_cut_in_the_message() -> None:
    (_, line) = refusal(changed("runtime.device", ["x" * 10_000]))
    assert len(line) < 400 and "runtime.device = ['xxx" in line
    (_, line) = refusal(changed("base_model.source", "x" * 10_000))
    assert len(line) < 600 and "base_model.source = 'xxx" in line


def test_params_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(ROOT / "params.yaml").seed = 1


def test_a_typo_is_refused_with_the_keys_there_are() -> None:
    assert refusal(changed("tools.search_result", 3)) == [
        "params.yaml: 1 wrong",
        "  tools.search_result: no such key; the keys here are folder, options, search_results, search_output_limit, "
        "search_output_unit; did you mean search_results?",
    ]
    (_, line) = refusal(changed("filtre", {}))
    assert line.startswith("  filtre: no such key; the keys here are seed, base_seed, runtime, prompts, tasks, tools,")


def test_sampling_settings_that_the_gradient_is_not_for_are_refused_with_the_reason() -> None:
    why = (
        "step-wise RL draws from the whole softmax, the distribution that its gradient, KL and entropy are of; leave "
        "it out (rollout.top_p and rollout.top_k are for synthesis and evaluation)"
    )
    swirl = {**TREE["train"]["swirl"], "top_p": 0.95, "top_k": 50, "top_q": 1}
    head, *lines = refusal(changed("train.swirl", swirl))
    assert head == "params.yaml: 3 wrong"
    assert lines[:2] == [f"  train.swirl.top_p = 0.95: {why}", f"  train.swirl.top_k = 50: {why}"]
    assert lines[2].startswith("  train.swirl.top_q: no such key; the keys here are ")
    for cold in (0, 0.0, -0.5):
        assert refusal(changed("train.swirl.temperature", cold)) == [
            "params.yaml: 1 wrong",
            f"  train.swirl.temperature: {cold:g} is not above 0: step-wise RL draws from the softmax at this "
            "temperature, and greedy actions of a state would all be the same",
        ]
    validate(changed("train.swirl.temperature", 1), "params.yaml")


def test_a_typo_inside_a_list_or_a_mapping_is_refused_with_the_keys_there_are() -> None:
    (_, line) = refusal(changed("download.benchmarks.mini-gsm8k.evaluate", 3))
    assert line == (
        "  download.benchmarks.mini-gsm8k.evaluate: no such key; the keys here are source, pretrain, reward, train, "
        "development, evaluation, files, eval_ids, drop_easy, max_hops, corpus, task, logs, logged_tools, by; did you "
        "mean evaluation?"
    )
    (_, line) = refusal(changed("base_model.sound_phases.0.step", 3))
    assert line.startswith("  base_model.sound_phases.0.step: no such key; the keys here are steps, batch_size,")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", "0", "seed = '0': Input should be a valid integer"),
        ("seed", True, "seed = True: Input should be a valid integer"),
        ("seed", -1, "seed = -1: Input should be greater than or equal to 0"),
        ("runtime.threads", 1.5, "runtime.threads = 1.5: Input should be a valid integer"),
        ("train.packed", "yes", "train.packed = 'yes': Input should be a valid boolean"),
        ("train.swirl.samples", 1, "train.swirl.samples = 1: Input should be greater than or equal to 2"),
        ("train.swirl.lr", 0.0, "train.swirl.lr = 0.0: Input should be greater than 0"),
        ("train.swirl.lr", float("inf"), "train.swirl.lr = inf: Input should be a finite number"),
        ("judge.threshold", 1.1, "judge.threshold = 1.1: Input should be less than or equal to 1"),
        ("judge.threshold", float("nan"), "judge.threshold = nan: Input should be a finite number"),
        ("filter.strategy", "proces", "filter.strategy = 'proces': Input should be 'none', 'process', 'outcome' or"),
        ("base_model.hops", {0: 1.0}, "base_model.hops.0.[key] = 0: Input should be greater than or equal to 1"),
        ("base_model.steps", {9: 1.0}, "base_model.steps.9.[key] = 9: Input should be less than or equal to 8"),
        ("download.benchmarks", {}, "download.benchmarks = {}: Dictionary should have at least 1 item"),
        ("tasks.search.max_steps", 0, "tasks.search.max_steps = 0: Input should be greater than or equal to 1"),
        ("tasks.search.tools", [], "tasks.search.tools = []: List should have at least 1 item"),
        ("base_model.shape.hidden", 0, "base_model.shape.hidden = 0: Input should be greater than or equal to 1"),
        (
            "base_model.shape.heads",
            5,
            "base_model.shape: hidden is 128 and heads 5: hidden must be a multiple of 2 * heads, as 130",
        ),
        ("runtime.device", "gpu", "runtime.device = 'gpu': String should match pattern '^(cpu|mps|(cuda|"),
        (
            "tasks.search.tools",
            ["calculator", "serch"],
            "tasks.search.tools.1: there is no tool 'serch'; a tool is calculator, search, package.module:Class, or "
            "mcp:SERVER/TOOL; did you mean search?",
        ),
        ("tasks.search.tools", ["mcp:web"], "tasks.search.tools.0: there is no tool 'mcp:web'; a tool is "),
        ("base_model.source", "hub", "base_model.source = 'hub': Input should be one of 'embedded', 'annotations',"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_and_what_is_allowed(path: str, value: Any, message: str) -> None:
    head, line = refusal(changed(path, value))
    assert head == "params.yaml: 1 wrong"
    assert line.strip().startswith(message)


FILE: dict[str, Any] = {"source": "file", "files": {"train": "gsm8k.jsonl"}, "train": 10, "evaluation": "all"}
OWN: dict[str, Any] = {
    "source": "own",
    "files": {"train": "train.jsonl"},
    "corpus": "handbook",
    "task": "search",
    "train": 10,
}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": "disk"}, "b.source = 'disk': Input should be 'embedded', 'file', 'hub', 'own' or 'logs'"),
        (FILE | {"train": -1}, "b.train: expected a number of questions, 0 for none, or all; got -1"),
        (FILE | {"train": True}, "b.train: expected a number of questions, 0 for none, or all; got True"),
        (FILE | {"evaluation": "rest"}, "b.evaluation: expected a number of questions, 0 for none, or all; got 'rest'"),
        (FILE | {"files": {}}, "b.files = {}: Dictionary should have at least 1 item"),
        (
            FILE | {"files": {"dev": "a"}},
            "b.files.dev.[key] = 'dev': Input should be 'pretrain', 'reward', 'train', 'dev",
        ),
        (
            FILE | {"files": {"train": "/tmp/a"}},
            "b.files.train: expected a path inside download.folder, relative to it;",
        ),
        (FILE | {"files": {"train": "a/../../b"}}, "b.files.train: expected a path inside download.folder, relative"),
        (FILE | {"files": {"evaluation": "a"}}, "b: files names no file for train, and no train to draw it from"),
        (FILE | {"tools": ["search"]}, "b.tools: no such key; the keys here are source, pretrain"),
        ({"source": "file", "train": 3}, "b: source: file needs files"),
        ({"source": "hub", "files": {"train": "a"}}, "b: source: hub has no use for files"),
        ({"source": "embedded", "corpus": "a", "task": "b"}, "b: source: embedded has no use for corpus, task"),
        (
            {"source": "embedded", "reward": 3},
            "b: base_model and reward_model make their own embedded questions; leave",
        ),
        ({"source": "embedded", "train": "all"}, "b: embedded questions are made, so there is no 'all' of them; give"),
        (FILE | {"evaluation": 300, "eval_ids": "ids.txt"}, "b: eval_ids lists the evaluation questions; leave out"),
        ({"source": "own"}, "b: source: own needs files, task"),
        (OWN | {"task": "a b"}, "b.task = 'a b': String should match pattern"),
    ],
)
def test_a_benchmark_that_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    head, line = refusal(changed("download.benchmarks", {"b": given}))
    assert head == "params.yaml: 1 wrong"
    assert line.strip().startswith(f"download.benchmarks.{message}")


@pytest.mark.parametrize("name", ["closed_book", "system", "logged"])
def test_a_task_is_not_called_as_another_prompt_or_as_logs(name: str) -> None:
    (_, line) = refusal(changed(f"tasks.{name}", TREE["tasks"]["search"]))
    assert line.strip().startswith(f"params: tasks.{name}: the name is taken by ")


@pytest.mark.parametrize("key", ["download.folder", "tools.folder", "prompts.policy", "prompts.judge"])
@pytest.mark.parametrize("folder", ["/srv/data", "../data", "a/../../b", ""])
def test_a_folder_outside_the_project_which_no_stage_can_depend_on_is_refused(key: str, folder: str) -> None:
    head, line = refusal(changed(key, folder))
    assert head == "params.yaml: 1 wrong"
    assert line.strip().startswith(
        f"{key}: expected a folder inside the project, relative to params.yaml; got {folder!r}"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "staff"}, "download.benchmarks.b is of task 'staff'; tasks has search, calculate"),
        ({"corpus": None}, "download.benchmarks.b: its task searches, so it needs a corpus"),
    ],
)
def test_an_own_benchmark_fits_its_task(given: dict[str, Any], message: str) -> None:
    assert refusal(changed("download.benchmarks", {"b": OWN | given})) == [
        "params.yaml: 1 wrong",
        f"  params: {message}",
    ]


def test_a_benchmarks_name_must_do_for_a_file() -> None:
    (_, line) = refusal(changed("download.benchmarks", {"../b": FILE}))
    assert line.startswith("  download.benchmarks.../b.[key] = '../b': String should match pattern")


def test_what_a_benchmark_leaves_out_stays_left_out() -> None:
    benchmark = validate(changed("download.benchmarks", {"gsm8k": FILE}), "params.yaml").download.benchmarks["gsm8k"]
    assert benchmark.model_dump() == FILE
    assert counts(benchmark) == {"train": 10, "evaluation": "all"}
    own = validate(changed("download.benchmarks", {"b": OWN | {"eval_ids": "ids.txt", "reward": 0}}), "params.yaml")
    assert counts(own.download.benchmarks["b"]) == {"train": 10, "evaluation": "all"}


def test_a_missing_section_and_a_missing_key_are_named() -> None:
    tree = copy.deepcopy(TREE)
    del tree["judge"]
    del tree["index"]["stopwords"]
    assert refusal(tree) == ["params.yaml: 2 wrong", "  index.stopwords: missing", "  judge: missing"]


@pytest.mark.parametrize("path", ["train.lora", "judge.grader", "synthesize.server"])
def test_a_key_that_an_optional_section_does_not_have_is_named(path: str) -> None:
    (_, *lines) = refusal(changed(path, {"dropuot": 0.1}))
    assert any(line.startswith(f"  {path}.dropuot: no such key; the keys here are ") for line in lines)


def test_a_preset_put_in_the_place_of_params_yaml_is_told_how_to_be_used() -> None:
    part = yaml.safe_load((ROOT / "presets/qwen3-0.6b.yaml").read_text())
    head, *lines, hint = refusal(part)
    assert head == f"params.yaml: {len(lines)} wrong" and all(line.endswith(": missing") for line in lines)
    assert hint == "  a preset holds only what differs: `swirl preset FILE` makes a whole params.yaml of it"


def test_heads_of_a_windowed_model_are_even_in_number_and_in_size() -> None:
    tree = presets.tree(ROOT, "gsm8k-tiny")
    for heads, said in ((5, "hidden is 192 and heads 5: hidden must be"), (7, "hidden is 192 and heads 7: hidden")):
        tree["base_model"]["shape"]["heads"] = heads
        assert said in refusal(tree)[1]
    tree["base_model"]["shape"] |= {"heads": 5, "hidden": 200}
    assert refusal(tree)[1] == (
        "  base_model.shape: heads is 5: two of them share keys and values, so give an even number"
    )
    tree["base_model"]["shape"] |= {"heads": 3, "hidden": 192}
    validate(tree, "params.yaml")


def test_built_in_tools_take_no_options() -> None:
    tree = changed("tasks.search.tools", ["search", "staff_db:StaffDatabase", "mcp:files/read"])
    tree["tools"]["options"] = {"staff_db:StaffDatabase": {"rows": 5}, "mcp:files": {"command": ["files"]}}
    validate(tree, "params.yaml")
    (_, line) = refusal(changed("tools.options", {"search": {"results": 9}}))
    assert line == "  params: tools.options.search: search and calculator take no options; leave it out"
    validate(changed("tools.options", {"mcp:files": {}}), "params.yaml")  # of a tool that was taken out for one run


def test_values_that_do_not_fit_together_are_refused_in_one_sentence() -> None:
    pointer = {"source": "pretrained", "model": "some/model", "revision": "", "trust_remote_code": False}
    assert refusal(changed("base_model", pointer)) == [
        "params.yaml: 1 wrong",
        "  params: reward_model.source is embedded, but base_model.source is pretrained: a judge that is taught here "
        "is taught from such a base; set reward_model.source to pretrained, fine_tuned or endpoint",
    ]
    assert refusal(changed("rollout.max_action_tokens", 512)) == [
        "params.yaml: 1 wrong",
        "  params: rollout.max_action_tokens must be below base_model.shape.context",
    ]


def test_votes_that_could_not_differ_are_refused_before_any_stage() -> None:
    server = {"url": "http://127.0.0.1:1/v1", "model": "m", "api": "chat", "key_env": "", "chat_template_kwargs": {}}
    said = {"max_tokens": 8, "votes": 3, "temperature": 0.0}
    pointed = {"source": "pretrained", "model": "m", "revision": "", "trust_remote_code": False, **said}
    for judge in ({"source": "endpoint", "server": server, **said}, {**pointed, "verdict": "rationale"}):
        (_, line) = refusal(changed("reward_model", judge))
        message = "3 votes at temperature 0 are all the same; set votes to 1, or temperature above 0"
        assert line == f"  reward_model: {message}"
        for mended in ({"votes": 1}, {"temperature": 0.5}):
            validate(changed("reward_model", {**judge, **mended}), "params.yaml")
    validate(changed("reward_model", {**pointed, "verdict": "token"}), "params.yaml")  # it casts no votes


SERVER = {"url": "http://127.0.0.1:1/v1", "model": "m", "api": "chat", "key_env": "", "chat_template_kwargs": {}}
SAID = {"max_tokens": 8, "votes": 1, "temperature": 0.0}
SERVED = {"source": "endpoint", "server": SERVER, **SAID}
POINTED = {
    "source": "pretrained", "model": "org/m", "revision": "", "trust_remote_code": False, "verdict": "rationale", **SAID
}  # fmt: skip


def test_the_judge_of_an_evaluation_is_named_or_described() -> None:
    assert validate(TREE, "params.yaml").evaluate.judge == "same"
    for judge in (SERVED, POINTED):
        tree = changed("evaluate.judge", judge)
        made = validate(tree, "params.yaml")
        assert made.evaluate.model_dump()["judge"] == judge
        assert label_judge_section(made) == made.evaluate.judge
        more = presets.laid_over(tree, {"evaluate": {"judge": {"votes": 3}}})
        assert more["evaluate"]["judge"] == judge | {"votes": 3}
    choices = (
        "  evaluate.judge: expected same, which is the reward model itself, none, or a second judge: a section as that "
        "of reward_model with source pretrained or endpoint, or {source: own, name: 'module:Class', options: {}}"
    )
    for wrong in ("reward", None, {"source": "embedded"}, {"url": "http://u:secret@127.0.0.1"}):
        assert refusal(changed("evaluate.judge", wrong)) == ["params.yaml: 1 wrong", choices]
    (_, line) = refusal(changed("evaluate.judge", {**SERVED, "server": {**SERVER, "modle": "m"}}))
    assert line.startswith("  evaluate.judge.server.modle: no such key; the keys here are url, model,")
    (_, line) = refusal(changed("evaluate.judge", {**POINTED, "votes": 3}))
    assert line.startswith("  evaluate.judge: 3 votes at temperature 0 are all the same")
    tree = changed("seed", 0)
    del tree["evaluate"]["judge"]
    assert refusal(tree)[1:] == ["  evaluate.judge: missing"]


def test_the_reward_model_under_another_name_is_no_second_judge() -> None:
    said = "  params: evaluate.judge describes the reward model itself; say so: evaluate.judge: same"
    again = ["params.yaml: 1 wrong", said]
    tree = changed("evaluate.judge", {**SERVED, "votes": 3, "temperature": 1.0})
    assert refusal({**tree, "reward_model": SERVED}) == again
    slashed = {**SERVED, "server": {**SERVER, "url": "http://127.0.0.1:1/v1/", "api": "completions"}}
    assert refusal({**tree, "reward_model": slashed}) == again
    validate({**tree, "reward_model": {**SERVED, "server": {**SERVER, "model": "other"}}}, "params.yaml")
    tree = changed("evaluate.judge", POINTED)
    assert refusal({**tree, "reward_model": {**POINTED, "verdict": "token"}}) == again
    validate({**tree, "reward_model": {**POINTED, "revision": "a" * 40}}, "params.yaml")
    assert refusal(changed("evaluate.judge", {**POINTED, "model": "./models/reward/"})) == again


def test_a_file_that_is_no_params_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(ParamsError, match=r"params.yaml does not exist; run this from the project's root"):
        load(path)
    for content, message in [
        (b"seed: [0", "params.yaml is not YAML: while parsing"),
        (b"seed: \xff", "params.yaml is not YAML: .*codec can't decode"),
        (b"", "params = None: Input should be a valid dictionary"),
        (b"- 1", r"params = \[1\]: Input should be a valid dictionary"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ParamsError, match=message):
            load(path)


def test_a_file_is_read_as_dvc_reads_it(tmp_path: Path) -> None:
    """In YAML 1.2, which DVC reads, 1e-5 is a number, and a duplicate key is an error."""
    path = tmp_path / "params.yaml"
    before = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path.write_text(before.replace("lr: 2.0e-4", "lr: 1e-5"), encoding="utf-8")
    assert load(path).train.swirl.lr == 1e-5
    path.write_text(before + "seed: 1\n", encoding="utf-8")
    with pytest.raises(ParamsError, match='params.yaml is not YAML: .*\n.*\nfound duplicate key "seed"'):
        load(path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("runtime.dtype", "float16", "runtime.dtype = 'float16': Input should be 'float32' or 'bfloat16'"),
        ("runtime.context", 32, "runtime.context must be above rollout.max_action_tokens, or 0"),
        ("runtime.context", -1, "runtime.context = -1: Input should be greater than or equal to 0"),
        ("runtime.processes", 0, "runtime.processes = 0: Input should be greater than or equal to 1"),
        ("runtime.sharding", "half", "runtime.sharding = 'half': Input should be 'none' or 'full'"),
        ("runtime.sharding", "full", "sharding: full deals weights out over processes, so set processes above 1"),
        ("train.lora", {"rank": 8, "alpha": 16}, "train.lora.targets: missing"),
        ("train.lora", {"rank": 0, "alpha": 1, "targets": ["q"]}, "train.lora.rank = 0: Input should be greater than"),
        ("train.lora", {"rank": 1, "alpha": 1, "targets": []}, "train.lora.targets = []: List should have at least 1"),
    ],
)
def test_what_models_cannot_do_is_refused(path: str, value: Any, message: str) -> None:
    assert message in "\n".join(refusal(changed(path, value)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("url", "https://host/v1?key=SECRET"),
        ("url", "http://me:SECRET@host"),
        ("key_env", "sk-SECRET"),
        ("key_env", "gsk_SECRETsecretSECRETsecret"),
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_repeated(key: str, value: str) -> None:
    server = {"url": "http://127.0.0.1:1/v1", "model": "m", "api": "chat", "key_env": "", "chat_template_kwargs": {}}
    assert validate(changed("synthesize.server", server), "params.yaml").synthesize.server is not None
    (_, line) = refusal(changed("synthesize.server", {**server, key: value}))
    assert line.startswith(f"  synthesize.server: {key} must be")
    assert "SECRET" not in line


def test_options_of_a_chat_template_are_for_a_server_that_fills_it_in() -> None:
    server = {"url": "http://127.0.0.1:1/v1", "model": "m", "api": "chat", "key_env": ""}
    quiet = {**server, "chat_template_kwargs": {"enable_thinking": False}}
    asked = validate(changed("synthesize.server", quiet), "params.yaml").synthesize.server
    assert asked is not None
    assert asked.model_dump()["chat_template_kwargs"] == {"enable_thinking": False}
    validate(changed("synthesize.server", {**quiet, "api": "completions", "chat_template_kwargs": {}}), "params.yaml")
    (_, line) = refusal(changed("synthesize.server", {**quiet, "api": "completions"}))
    assert line.startswith("  synthesize.server: chat_template_kwargs must be empty unless api is chat")
    (_, line) = refusal(changed("synthesize.server", server))
    assert line == "  synthesize.server.chat_template_kwargs: missing"


def test_where_blocks_are_made() -> None:
    by_ray = {"engine": "ray", "address": "head-1:6379", "workers": 8, "gpus_per_worker": 0.5}
    assert validate(changed("execution", by_ray), "params.yaml").execution.model_dump() == by_ray
    (_, line) = refusal(changed("execution", {**by_ray, "address": "ray://head-1"}))
    assert line.startswith("  execution.address = 'ray://head-1': String should match pattern")
    tree = changed("execution", by_ray)
    tree["runtime"]["device"] = "cuda:1"
    assert (
        "runtime.device is cuda:1, but execution.engine is ray: Ray gives each worker its own GPU" in refusal(tree)[1]
    )

    assert str(Execution.model_fields["address"].description).endswith("auto, $RAY_ADDRESS, else local")


JUDGE_SERVER = {"source": "endpoint", "max_tokens": 8, "votes": 1, "temperature": 0.0, "server": SERVER}
OWN_REWARD = [{"name": "my_rewards:Good", "weight": 1.0, "options": {}}]
ALL_SERVED = {
    "synthesize.server": SERVER,
    "evaluate.servers": {"ceiling": SERVER, "base": SERVER, "sft": SERVER, "swirl": SERVER},
    "reward_model": JUDGE_SERVER,
}


def changed_at(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The committed params with several values replaced."""
    tree = copy.deepcopy(TREE)
    for path, value in changes.items():
        *sections, last = path.split(".")
        section = tree
        for name in sections:
            section = section[name]
        section[last] = value
    return tree


@pytest.mark.parametrize(
    ("local", "model"),
    [
        ("synthesize.server", "the base, for synthesize,"),
        ("evaluate.servers", "a model to evaluate"),
        ("reward_model", "the judge"),
    ],
)
def test_a_model_on_a_gpu_needs_one_in_each_worker_of_ray(local: str, model: str) -> None:
    by_ray = {"engine": "ray", "address": "auto", "workers": 2, "gpus_per_worker": 0.0}
    served = {**ALL_SERVED, "runtime.device": "cuda", "execution": by_ray}
    assert validate(changed_at(served), "params.yaml").execution.gpus_per_worker == 0.0
    some_local = {name: value for name, value in served.items() if name != local}
    (_, line) = refusal(changed_at(some_local))
    assert line == (
        f"  params: runtime.device is cuda, and {model} is loaded by workers of Ray, but execution.gpus_per_worker is "
        "0, which gives them no GPU; set it to 1.0 (or 0.5, where two workers fit on one GPU), or runtime.device to cpu"
    )
    for other in (
        {"runtime.device": "cpu"}, {"execution": {**by_ray, "gpus_per_worker": 0.5}},
        {"execution": {**by_ray, "engine": "local"}},
    ):  # fmt: skip
        validate(changed_at({**some_local, **other}), "params.yaml")


@pytest.mark.parametrize(
    ("changes", "judge", "evaluate"),
    [
        ({}, True, True),
        ({"reward_model": JUDGE_SERVER}, False, False),
        ({"evaluate.judge": "none"}, True, False),
        ({"evaluate.judge": JUDGE_SERVER}, True, False),
        ({"evaluate.judge": {"source": "own", "name": "mine:Mine", "options": {}}}, True, False),
        ({"judge.rewards": OWN_REWARD}, False, False),
        ({"judge.rewards": [*OWN_REWARD, {"name": "judge", "weight": 1.0, "options": {}}]}, True, True),
        ({"reward_model": {"source": "none"}, "judge.rewards": OWN_REWARD}, False, False),
    ],
)
def test_where_a_model_judges_in_processes_of_this_project(
    changes: dict[str, Any], judge: bool, evaluate: bool
) -> None:
    params = validate(changed_at(changes), "params.yaml")
    assert (judged_here(params, "judge"), judged_here(params, "evaluate")) == (judge, evaluate)


def test_a_reward_model_that_grades_answers_judges_beside_a_server() -> None:
    writer = {
        "source": "pretrained", "model": "org/wise", "revision": "", "trust_remote_code": False,
        "verdict": "rationale", "max_tokens": 8, "votes": 1, "temperature": 0.0,
    }  # fmt: skip
    graded = {"reward_model": writer, "judge.outcome": "model", "evaluate.judge": JUDGE_SERVER}
    assert judged_here(validate(changed_at(graded), "params.yaml"), "evaluate")
    assert not judged_here(validate(changed_at({**graded, "judge.grader": SERVER}), "params.yaml"), "evaluate")


CLIENT = TREE["clients"]["default"]


def test_a_server_is_asked_by_its_own_entry_else_by_the_default() -> None:
    slow, paid = {**CLIENT, "timeout_s": 9.0}, {**CLIENT, "cost_per_million_input": 2.0}
    entries = {"default": CLIENT, "http://127.0.0.1:1/v1": slow, "http://127.0.0.1:1/v1#judge": paid}
    clients = validate(changed("clients", entries), "params.yaml").clients

    def asked(url: str, model: str) -> dict[str, Any]:
        server = Served(url=url, model=model, api="chat", key_env="", chat_template_kwargs={})
        return client_settings(clients, server).model_dump()

    assert asked("http://127.0.0.1:1/v1", "judge") == paid
    assert asked("http://127.0.0.1:1/v1", "policy") == slow
    assert asked("http://127.0.0.1:2/v1", "judge") == CLIENT
    assert (asked("http://127.0.0.1:1/v1/", "judge"), asked("http://127.0.0.1:1/v1/", "policy")) == (paid, slow)
    entries = {"default": CLIENT, "http://127.0.0.1:1/v1/": slow, "http://127.0.0.1:1/v1/#judge": paid}
    clients = validate(changed("clients", entries), "params.yaml").clients
    assert (asked("http://127.0.0.1:1/v1", "judge"), asked("http://127.0.0.1:1/v1", "policy")) == (paid, slow)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "clients: default is missing: how servers without an entry of their own are asked"),
        ({"default": CLIENT, "http://me:SECRET@host/v1": CLIENT}, "expected default, a server's url, or url#model"),
        ({"default": CLIENT, "http://a/v1": CLIENT, "http://a/v1/": CLIENT}, "clients: two entries are for the same"),
        ({"default": {**CLIENT, "timeout_s": 0.0}}, "clients.default.timeout_s = 0.0: Input should be greater than 0"),
        ({"default": {**CLIENT, "patience": 1}}, "clients.default.patience: no such key; the keys here are concurr"),
    ],
)
def test_how_servers_are_asked_is_checked(entries: dict[str, Any], message: str) -> None:
    said = "\n".join(refusal(changed("clients", entries)))
    assert message in said
    assert "SECRET" not in said


@pytest.mark.parametrize("place", ["", "s3://bucket", "s3://my-bucket.1/swirl/runs"])
def test_artifacts_may_be_on_s3(place: str) -> None:
    tracked = {**TREE["tracking"], "artifacts": place}
    assert validate(changed("tracking", tracked), "params.yaml").tracking.artifacts == place


@pytest.mark.parametrize(
    "place", ["s3://id:hush@bucket/runs", "s3://bucket?key=hush", "s3://bucket/", "/data/hush", "s3:"]
)
def test_a_place_of_artifacts_holds_no_key_and_is_not_shown(place: str) -> None:
    said = "\n".join(refusal(changed("tracking", {**TREE["tracking"], "artifacts": place})))
    assert "tracking.artifacts: expected '' or s3://BUCKET/FOLDER; keys belong into the environment" in said
    assert "hush" not in said


LOGS: dict[str, Any] = {"source": "logs", "logs": ["a.jsonl"], "train": "all", "development": 5, "evaluation": 5}


def of_logs(**more: Any) -> dict[str, Any]:
    """The committed params with logs in place of the benchmarks, and a reward of one's own."""
    tree = copy.deepcopy(TREE)
    pointer = {"source": "pretrained", "model": "m", "revision": "", "trust_remote_code": False}
    tree["download"]["benchmarks"] = {"desk": LOGS}
    tree |= {"synthesize": {"source": "import"}, "base_model": pointer, "reward_model": {"source": "none"}}
    tree["judge"]["rewards"] = OWN_REWARD
    for path, value in more.items():
        section, _, key = path.partition("__")
        tree[section] = {**tree[section], key: value} if key else value
    return tree


def test_logs_and_a_reward_of_ones_own_are_enough() -> None:
    params = validate(of_logs(), "params.yaml")
    assert (params.synthesize.samples, params.synthesize.server, params.synthesize.temperature) == (1, None, 0.0)
    second = {"source": "own", "name": "my_rewards:Other", "options": {}}
    assert label_judge_section(validate(of_logs(evaluate__judge=second), "params.yaml")) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"synthesize": {"source": "import", "files": ["a"]}}, "synthesize.files = ['a']: name the files once, where "
         "their questions come from: download.benchmarks.NAME: {source: logs, logs: [FILE, ...]"),
        ({"synthesize": {"source": "import", "samples": 2}}, "synthesize.samples = 2: a logged conversation is one "),
        ({"synthesize": TREE["synthesize"]}, "params: download.benchmarks.desk is logs, whose tools do not run "
         "here, so its conversations cannot be rolled out; set synthesize to {source: import}"),
        ({"download__benchmarks": {"desk": {**LOGS, "train": 0}}}, "params: synthesize.source is import, but no "
         "benchmark has source logs and train conversations; write download.benchmarks.NAME: {source: logs"),
        ({"download__benchmarks": {"desk": LOGS, "mini-gsm8k": {"source": "embedded", "train": 3}}}, "params: "
         "synthesize.source is import, but download.benchmarks.mini-gsm8k.train asks for questions that would be "),
        ({"download__benchmarks": {"desk": {**LOGS, "evaluation": "all"}}}, "download.benchmarks.desk: only one split "
         "can have all conversations"),
        ({"download__benchmarks": {"desk": {**LOGS, "reward": 3}}}, "download.benchmarks.desk: no reward model is "
         "taught by logs"),
        ({"download__benchmarks": {"desk": {**LOGS, "corpus": "x"}}}, "download.benchmarks.desk: source: logs has no "
         "use for corpus"),
        ({"download__benchmarks": {"desk": {"source": "logs", "train": 3}}}, "download.benchmarks.desk: source: logs "
         "needs logs"),
        ({"download__benchmarks": {"desk": {**LOGS, "logs": ["../a"]}}}, "download.benchmarks.desk.logs.0: expected a "
         "path inside download.folder, relative to it; got '../a'"),
        ({"synthesize": TREE["synthesize"], "download__benchmarks": {"desk": {**LOGS, "train": 0}}}, "params: "
         "download.benchmarks.desk is logs, whose tools do not run here"),
        ({"judge__rewards": []}, "params: reward_model.source is none, so judge.rewards must name rewards of your own"),
        ({"judge__rewards": [{"name": "judge", "weight": 1.0, "options": {}}]}, "params: reward_model.source is none, "
         "so judge.rewards must name rewards of your own, and not judge"),
        ({"judge__outcome": "model"}, "params: judge.outcome is model, but reward_model.source is none; name a "),
        ({"evaluate__judge": {"source": "own", "name": "my_rewards:Good", "options": {}}}, "params: evaluate.judge "
         "names my_rewards:Good, which judge.rewards rewards; say so: evaluate.judge: same"),
        ({"tasks": {**TREE["tasks"], "logged": TREE["tasks"]["search"]}}, "params: tasks.logged: the name is taken"),
    ],
)  # fmt: skip
def test_what_logs_do_not_allow(changes: dict[str, Any], said: str) -> None:
    lines = refusal(of_logs(**changes))
    assert len(lines) == 2 and lines[1].strip().startswith(said), lines


def test_what_only_a_model_that_runs_here_can_do_in_logged_states() -> None:
    server = {"url": "http://127.0.0.1:1/v1", "model": "m", "api": "completions", "key_env": "",
              "chat_template_kwargs": {}}  # fmt: skip
    (_, line) = refusal(of_logs(evaluate__servers={"base": server}))
    assert line.strip().startswith("params: evaluate.servers: actions in the states of logged conversations are drawn")
    endpoint = {"source": "endpoint", "tokenizer": "t", "revision": "", "context": 512, "server": server}
    (_, line) = refusal(of_logs(base_model=endpoint, train__methods=[]))
    assert line.strip().startswith("params: base_model.source is endpoint, but actions in the states of logged")


def test_a_policy_in_its_own_format_may_have_rewards_of_ones_own_alone() -> None:
    pointer = {"source": "pretrained", "model": "m", "revision": "", "trust_remote_code": False}
    tree = {**copy.deepcopy(TREE), "base_model": pointer, "reward_model": {"source": "none"}}
    tree["judge"]["rewards"] = OWN_REWARD
    tree["actions"] |= {"format": "native"}
    assert validate(tree, "params.yaml").actions.format == "native"
    (_, line) = refusal({**tree, "reward_model": TREE["reward_model"], "judge": TREE["judge"]})
    assert line.strip().startswith("params: reward_model.source is embedded, which is taught our tags without thoughts")


@pytest.mark.parametrize(
    "value", [None, True, 1e-5, 7, "null", "a: b", "", [1, None], {"a": {"b": [1]}}, {}, "x" * 300]
)
def test_a_value_on_one_line_is_read_back(value: Any) -> None:
    line = inline(value)
    assert "\n" not in line and parse(f"key: {line}", "here") == {"key": value}


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("mini-gsm8", {"source": "embedded"}, "mini-gsm8: not an embedded benchmark; .*; did you mean mini-gsm8k?"),
        ("hotpot", {"source": "hub"}, "hotpot: not on the hub; .*; did you mean hotpotqa?"),
        ("cofca", {"source": "hub"}, "cofca: not on the hub; they are gsm8k, hotpotqa, musique, beerqa ("),
        ("gsm8", {"source": "file", "files": {"train": "a"}}, "gsm8: not a benchmark with official files; .*gsm8k?"),
    ],
)
def test_a_benchmark_that_its_source_does_not_have_is_refused(name: str, given: dict[str, Any], said: str) -> None:
    (_, line) = refusal(changed("download.benchmarks", {name: {**given, "evaluation": 3}}))
    assert re.search(f"download.benchmarks.{re.escape(said)}".replace(r"\.\*", ".*"), line)


def test_questions_of_ones_own_have_any_name() -> None:
    own = {"source": "own", "files": {"evaluation": "a"}, "task": "calculate", "evaluation": 3}
    validate(changed("download.benchmarks", {"mini-gsm8": own}), "params.yaml")


def test_the_names_of_benchmarks_are_those_that_there_are() -> None:
    known = {"embedded": EMBEDDED, "file": OFFICIAL, "hub": HUB}
    assert {source: list(names) for source, (_, names) in NAMES.items()} == {one: list(known[one]) for one in known}
