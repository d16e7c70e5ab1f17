"""The model's own tool format in params: which servers, tools and judges' prompts go with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swirl.cli.models import opener
from swirl.config.params import Params, load, validate
from swirl.config.presets import laid_over
from swirl.config.served import Served
from swirl.core.errors import ModelError, ParamsError
from swirl.core.layout import Layout
from swirl.core.types import Question
from swirl.models.chat import Chat
from swirl.models.native_chat import NativeChat
from swirl.tools.schemas import Signatures
from swirl.wiring import chats
from swirl.wiring.chats import policy_chat
from swirl.wiring.judge_prompts import judge_prompt
from swirl.wiring.policies import remote_policy
from swirl.wiring.tools import Toolbox, built_in
from tests.tool_templates import HERMES, THINKING, tokenizer

ROOT = Path(__file__).parents[2]
MODEL = {"source": "pretrained", "model": "m", "revision": "", "trust_remote_code": False}
JUDGE = {**MODEL, "verdict": "token", "max_tokens": 8, "votes": 1, "temperature": 0.0}


def changed(**actions: Any) -> Params:
    """The params of the default with a model made elsewhere and these actions."""
    tree = load(ROOT / "params.yaml").model_dump()
    return validate(laid_over(tree, {"actions": actions, "base_model": MODEL, "reward_model": JUDGE}), "tests")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer alone, as that of a model behind a server."""
    tokenizer(THINKING).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_format_and_thoughts_are_those_of_params(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chats._say.cache_clear()  # another test of this process may have had the same notes
    tags, native, thinking = (
        policy_chat(changed(**actions), folder)
        for actions in ({}, {"format": "native"}, {"format": "native", "thinking": "keep"})
    )
    assert isinstance(tags, Chat)
    assert isinstance(native, NativeChat)
    assert isinstance(thinking, NativeChat)
    assert (native.begun, thinking.begun) == (False, True)
    policy_chat(changed(format="native", thinking="keep"), folder)
    assert capsys.readouterr().err.splitlines() == [f"note: {note}" for note in thinking.notes]


def test_a_server_of_chats_is_refused(folder: Path) -> None:
    server = Served(url="http://127.0.0.1:1/v1", model="m", api="chat", key_env="", chat_template_kwargs={})
    with pytest.raises(ParamsError, match="has api chat, but actions.format is native"):
        remote_policy(changed(format="native"), folder, "base", server)
    with pytest.raises(ModelError, match="is asked by chat, but actions.format is native"):
        opener("http://127.0.0.1:1/v1#m", changed(format="native"), Layout(folder), {})


def test_a_template_without_tools_is_refused_when_the_policy_is_loaded(tmp_path: Path) -> None:
    made = tokenizer(HERMES.replace("tool|tojson", "''"))
    made.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="leaves out the name of tools: use actions.format: tags"):
        policy_chat(changed(format="native"), tmp_path)


def test_functions_take_the_place_of_tags_and_open_no_index(tmp_path: Path) -> None:
    question = Question("q", "b", "train", "Why?", ("x",), 1, ("search", "calculator"))
    tags = Toolbox(changed(), Layout(tmp_path)).tags(question)
    functions = Toolbox(changed(format="native"), Layout(tmp_path)).tags(question)
    assert tags == {"search_query": "search", "math_exp": "calculate"}
    assert functions == {"search": "search", "calculator": "calculate"}
    assert isinstance(functions, Signatures)
    assert built_in("search") == {"search": "search"}


@pytest.mark.parametrize(("thought_only", "kind"), [("allow", "think"), ("refuse", "answer")])
@pytest.mark.parametrize("format", ["native", "tags"])
def test_a_thought_alone_is_in_rl_what_it_is_in_a_rollout(
    format: str, thought_only: str, kind: str, folder: Path
) -> None:
    settings = changed(format=format, thought_only=thought_only)
    question, chat = Question("q", "b", "train", "Why?", ("x",), 1, ("search",)), policy_chat(settings, folder)
    read = Toolbox(settings, Layout(folder)).reader(question, chat).read(chat.reply("I wonder."))
    assert read.kind == ("malformed" if format == "tags" and thought_only == "refuse" else kind)


def test_judges_are_told_what_is_bad_in_either_format() -> None:
    tags, native = (judge_prompt(changed(**a), Layout(ROOT), "process") for a in ({}, {"format": "native"}))
    assert "- A step that is neither one tool call nor one answer is BAD.\n" in tags
    assert "- A step with a broken tool call, or with a call and an answer, is BAD.\n" in native
