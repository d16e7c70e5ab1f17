"""The byte-level BPE tokenizer: any text survives, digits stand alone, tags are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.core.errors import ModelError
from swirl.models.chat import Chat
from swirl.models.loading import load_tokenizer
from swirl.pretraining.bpe_tokenizer import build_bpe

TEXTS = ["Ada has 12 apples and 345 pears.", "Ada sells the apples, <math_exp> 12*2 </math_exp>"] * 20
WHOLE = [" <math_exp> ", " </math_exp>", "GOOD", "BAD"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_bpe(TEXTS, 300, 512, WHOLE)


def pieces(tokenizer: Any, text: str) -> list[str]:
    return [tokenizer.decode([i]) for i in Chat(tokenizer).reply(text)[:-1]]


def test_merges_are_learned_and_digits_stand_alone(tokenizer: Any) -> None:
    assert len(tokenizer) <= 300
    assert pieces(tokenizer, "Ada has 345 apples") == ["Ada", " has", " ", "3", "4", "5", " apples"]
    assert pieces(tokenizer, "Ada <math_exp> 12*2 </math_exp>") == [
        "Ada",
        " <math_exp> ",
        "1",
        "2",
        "*",
        "2",
        " </math_exp>",
    ]


def test_digits_may_stand_in_groups() -> None:
    grouped = build_bpe([*TEXTS, *["345"] * 99, *["12"] * 99], 300, 512, WHOLE, digits=3)
    assert pieces(grouped, "Ada has 345, 3451.12") == ["Ada", " has", " ", "345", ",", " ", "345", "1", ".", "12"]


def test_whole_texts_are_no_special_tokens(tokenizer: Any) -> None:
    chat = Chat(tokenizer)
    assert chat.text(chat.reply("GOOD <math_exp> 1 </math_exp>")) == "GOOD <math_exp> 1 </math_exp>"
    assert len({chat.reply("GOOD")[0], chat.reply("BAD")[0]}) == 2
    assert len(chat.reply("GOOD")) == 2


@given(text=st.text())
def test_any_text_survives(tokenizer: Any, text: str) -> None:
    chat = Chat(tokenizer)
    assert chat.text(chat.reply(text)) == text


@pytest.mark.parametrize(
    "text", ["<|end|><|user|>", "  two  blanks\n\tand a tab ", "½ × 😀 \u2028", "</math_exp><math_exp>"]
)
def test_awkward_texts_survive_and_end_no_turn(tokenizer: Any, text: str) -> None:
    chat = Chat(tokenizer)
    ids = chat.reply(text)
    assert chat.text(ids) == text
    assert not set(ids[:-1]) & chat.end_ids


def test_a_conversation_has_the_embedded_tokenizers_roles(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Ada"}, {"role": "assistant", "content": "has"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|user|>Ada<|end|><|model|>has<|end|><|model|>"
    chat = Chat(tokenizer)
    names = [
        tokenizer.convert_ids_to_tokens(i) for i in (*chat.prompt("Ada"), *chat.reply("Ada"), *chat.turn("Ada", True))
    ]
    assert names == [
        "<|user|>",
        "Ada",
        "<|end|>",
        "<|model|>",
        "Ada",
        "<|end|>",
        "<|user|>",
        "Ada",
        "<|end|>",
        "<|model|>",
    ]


def test_the_same_texts_give_the_same_tokenizer_and_it_is_saved_whole(tokenizer: Any, tmp_path: Path) -> None:
    assert build_bpe(TEXTS, 300, 512, WHOLE).backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    loaded = load_tokenizer(tmp_path)
    text = "Ada <math_exp> 12*2 </math_exp> <|end|> ½"
    assert Chat(loaded).reply(text) == Chat(tokenizer).reply(text)
    assert Chat(loaded).prompt(text) == Chat(tokenizer).prompt(text)


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(ModelError, match="263 tokens is too small: bytes and whole texts alone are 264"):
        build_bpe(TEXTS, 263, 512, WHOLE)
