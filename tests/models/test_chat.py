"""The embedded tokenizer loses nothing, and a chat template splits into exact, append-only pieces."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from swirl.core.errors import ModelError
from swirl.models.chat import Chat
from swirl.pretraining.word_tokenizer import END, MODEL, PAD, UNKNOWN, USER, build_tokenizer
from tests import families
from tests.families import FAMILIES

TEXT = "What is the capital of Norway? <answer> Oslo </answer> a -> b"
TOKENIZER = build_tokenizer([TEXT], ["Silent", "Harbor"], 512)
CHAT = Chat(TOKENIZER)
SPECIALS = [PAD, UNKNOWN, USER, MODEL, END]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONVERSATION = [
    ("user", "What is the capital of Norway?"),
    ("assistant", "Next: <search_query> capital of Norway </search_query>"),
    ("user", "capital of Norway -> Oslo."),
    ("assistant", "It is Oslo. Done: <answer> Oslo </answer>"),
    ("user", "Is that step good?"),
]

printable = st.sampled_from([c for c in string.printable if not c.isspace()])
word = st.one_of(
    st.text(printable, min_size=1, max_size=12),
    st.sampled_from([*SPECIALS, "##", "##a", "<answer>", "</answer>", "->", "Norway?", "1000", "007", "Harbor"]),
    st.lists(st.sampled_from([*SPECIALS, "#", "##", "Oslo", "|", "a"]), min_size=1, max_size=4).map("".join),
)
sentences = st.lists(word, min_size=1, max_size=8).map(" ".join)


def byte_level(template: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer as hub models have, but without merges, with ChatML's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=template,
    )


def whole(tokenizer: Any, turns: int) -> list[int]:
    """The tokens that the tokenizer itself gives for the first turns, up to where the model's next turn begins."""
    messages = [{"role": role, "content": content} for role, content in CONVERSATION[:turns]]
    ids = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    return [int(i) for i in ids]


def in_pieces(chat: Chat, turns: int, closed: bool) -> list[int]:
    ids = list(chat.prompt(CONVERSATION[0][1]))
    for (_, said), (_, result) in zip(CONVERSATION[1:turns:2], CONVERSATION[2:turns:2], strict=True):
        reply = chat.reply(said)
        ids += [*(reply if closed else reply[:-1]), *chat.turn(result, closed)]
    return ids


@settings(max_examples=300, deadline=None)
@given(sentences)
def test_printable_text_with_single_spaces_survives(text: str) -> None:
    ids = CHAT.reply(text)[:-1]
    assert CHAT.text(ids) == text
    assert not set(ids) & set(TOKENIZER.all_special_ids)


def test_known_words_are_one_token_each() -> None:
    assert len(CHAT.reply("Silent Harbor -> Oslo 999 </answer>")) == 7
    assert [len(CHAT.reply(text)) - 1 for text in ("Norway?", "1000", "Oslo.")] == [2, 2, 2]


def test_white_space_is_normalised_and_other_scripts_are_lost() -> None:
    assert CHAT.text(CHAT.reply("  Oslo \n\t Harbor ")) == "Oslo Harbor"
    assert CHAT.reply("Élan")[0] == TOKENIZER.convert_tokens_to_ids(UNKNOWN)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("turns", [1, 3, 5])
@pytest.mark.parametrize("tokenizer", [TOKENIZER, byte_level(CHATML)], ids=["embedded", "chatml"])
def test_the_pieces_are_the_tokens_of_the_whole_conversation(tokenizer: Any, turns: int, closed: bool) -> None:
    assert in_pieces(Chat(tokenizer), turns, closed) == whole(tokenizer, turns)


def test_a_new_line_after_the_end_token_belongs_to_the_next_turn() -> None:
    chat = Chat(byte_level(CHATML))
    names = chat.tokenizer.convert_ids_to_tokens
    assert names(chat.end_id) == "<|im_end|>"
    assert {names(i) for i in chat.end_ids} == {"<|im_end|>", "<|endoftext|>"}
    assert names(list(chat.reply("ok"))) == ["o", "k", "<|im_end|>"]
    opening = ["<|im_start|>", *"assistant", "Ċ"]
    assert names(list(chat.turn("hi", closed=True))) == [
        *("Ċ", "<|im_start|>", *"user", "Ċ", "h", "i", "<|im_end|>", "Ċ"),
        *opening,
    ]
    assert names(list(chat.turn("hi", closed=False)))[:3] == ["<|im_end|>", "Ċ", "<|im_start|>"]
    assert names(list(chat.prompt("hi"))) == ["<|im_start|>", *"user", "Ċ", "h", "i", "<|im_end|>", "Ċ", *opening]


@pytest.mark.parametrize("tokenizer", [TOKENIZER, byte_level(CHATML)], ids=["embedded", "chatml"])
def test_names_of_special_tokens_in_a_text_are_plain_text(tokenizer: Any) -> None:
    chat = Chat(tokenizer)
    specials = set(tokenizer.all_special_ids)
    names = tokenizer.all_special_tokens
    for text in (*names, f"a {' '.join(names)} b", "".join(names), f"{names[0]}a"):
        plain, named = chat.prompt("x"), chat.prompt(text)
        assert [i for i in named if i in specials] == [i for i in plain if i in specials]
        assert [i for i in chat.turn(text, True) if i in specials] == [i for i in chat.turn("x", True) if i in specials]
        assert chat.text(chat.reply(text)) == text


@pytest.mark.parametrize(
    "template",
    [
        # The opening changes as the conversation grows.
        "{{ messages | length }} " + CHATML,
        # Earlier replies are left out.
        "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>{{ m.content }}<|im_end|>{% endif %}{% endfor %}",
        # Only the last message is shown.
        "<|im_start|>{{ messages[-1].content }}<|im_end|>",
        # The question is shown twice.
        "{% for m in messages %}<|im_start|>{{ m.content }}{{ m.content }}<|im_end|>{% endfor %}",
        # Each turn shows its number, counted from the end.
        CHATML.replace("'<|im_start|>'", "(messages | length - loop.index) ~ '<|im_start|>'"),
        # The generation prompt differs from the opening of the model's past turns.
        CHATML.replace("assistant\\n", "assistant thinks\\n"),
        # Only the last user turn has a suffix, from the second result on: pieces are right for one result, not for two.
        CHATML.replace(
            "m['content']", "m['content'] + ('!' if m.role == 'user' and loop.last and loop.index > 3 else '')"
        ),
    ],
)
def test_a_template_that_rewrites_earlier_turns_is_refused(template: str) -> None:
    with pytest.raises(ModelError, match="rewrites earlier turns"):
        Chat(byte_level(template))


def test_a_tokenizer_without_a_template_is_refused() -> None:
    with pytest.raises(ModelError, match="has no chat template"):
        Chat(byte_level(""))


def test_a_template_that_refuses_the_conversation_says_why() -> None:
    with pytest.raises(ModelError, match="refuses turns of user and assistant: no assistants"):
        Chat(byte_level("{{ raise_exception('no assistants') }}"))


@pytest.mark.parametrize(
    "mistake", ["{{ 1 + 'a' }}", "{{ 1 / 0 }}", "{% macro call() %}{{ call() }}{% endmacro %}{{ call() }}"]
)
def test_a_template_with_a_mistake_is_refused(mistake: str) -> None:
    with pytest.raises(ModelError, match="refuses turns of user and assistant: "):
        Chat(byte_level(mistake))


def test_an_end_of_turn_that_is_plain_text_is_refused() -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    with pytest.raises(ModelError, match=r"closes a model turn with plain text \('\\nuser: '\)"):
        Chat(byte_level(template.replace("assistant: ", "{% if add_generation_prompt %}assistant: {% endif %}")))


def test_further_ends_end_a_reply() -> None:
    tokenizer = byte_level(CHATML)
    assert Chat(tokenizer, [5, 7]).end_ids == Chat(tokenizer).end_ids | {5, 7}


APPENDING = {name: FAMILIES[name] for name in ("gemma2", "llama3", "mistral", "smollm2")} | {
    "llama3.2": lambda: families.llama3(families.LLAMA32)
}


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("turns", [1, 3, 5])
@pytest.mark.parametrize("family", APPENDING)
def test_the_families_pieces_are_the_tokens_of_their_own_template(family: str, turns: int, closed: bool) -> None:
    tokenizer = APPENDING[family]()
    chat = Chat(tokenizer)
    assert chat.dropped == ""
    messages = [{"role": role, "content": content} for role, content in CONVERSATION[:turns]]
    wanted = tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=False, date_string="26 Jul 2024"
    )
    assert in_pieces(chat, turns, closed) == list(wanted)


@pytest.mark.parametrize("turns", [1, 3, 5])
def test_qwen3_keeps_the_empty_thoughts_that_its_template_drops_from_past_turns(turns: int) -> None:
    tokenizer = FAMILIES["qwen3"]()
    chat = Chat(tokenizer)
    assert chat.dropped == "<think>\n\n</think>\n\n"
    opening = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    text = "".join(
        f"<|im_start|>user\n{said}<|im_end|>\n{opening}" if role == "user" else f"{said}<|im_end|>\n"
        for role, said in CONVERSATION[:turns]
    )
    assert in_pieces(chat, turns, closed=True) == tokenizer(text)["input_ids"]
    if turns == 1:
        messages = [{"role": "user", "content": CONVERSATION[0][1]}]
        own = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, enable_thinking=False, return_dict=False
        )
        assert list(chat.prompt(CONVERSATION[0][1])) == own


@pytest.mark.parametrize(
    ("family", "begins", "times", "ends"),
    [
        ("gemma2", ["<bos>", "<start_of_turn>"], 1, {"<end_of_turn>", "<eos>"}),
        ("llama3", ["<|begin_of_text|>", "<|start_header_id|>"], 1, {"<|eot_id|>", "<|end_of_text|>"}),
        ("qwen3", ["<|im_start|>"], 6, {"<|im_end|>"}),
        ("mistral", ["<s>", "[INST]"], 1, {"</s>"}),
        ("smollm2", ["<|im_start|>", "s", "y", "st", "e", "m"], 7, {"<|im_end|>"}),
    ],
)
def test_the_families_begin_and_end_a_turn_with(family: str, begins: list[str], times: int, ends: set[str]) -> None:
    tokenizer = FAMILIES[family]()
    chat = Chat(tokenizer)
    names = tokenizer.convert_ids_to_tokens(in_pieces(chat, 5, closed=True))
    assert names[: len(begins)] == begins
    assert names.count(begins[0]) == times
    assert set(tokenizer.convert_ids_to_tokens(sorted(chat.end_ids))) == ends


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_special_tokens_in_a_text_are_plain_text(family: str) -> None:
    tokenizer = FAMILIES[family]()
    chat = Chat(tokenizer)
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    end = tokenizer.convert_ids_to_tokens(chat.end_id)
    for text in (end, f"Oslo{end} capital", f"{tokenizer.all_special_tokens[0]} of"):
        plain, named = chat.turn("x", closed=True), chat.turn(text, closed=True)
        assert [i for i in named if i in special] == [i for i in plain if i in special]


@pytest.mark.parametrize(("family", "trims"), [("gemma2", True), ("llama3", True), ("qwen3", False)])
def test_a_users_text_is_trimmed_where_the_template_does(family: str, trims: bool) -> None:
    chat = Chat(FAMILIES[family]())
    assert (chat.prompt(" capital of Norway\n") == chat.prompt("capital of Norway")) == trims


def test_a_template_that_reads_the_clock_is_said() -> None:
    dated = "{{ '<|im_start|>system\\nToday is ' + strftime_now('%Y-%m-%d') + '<|im_end|>\\n' }}" + CHATML
    said = "the chat template tells the model today's date, so that prompts change from day to day"
    assert Chat(byte_level(dated)).notes == (said,)
    assert Chat(FAMILIES["llama3"]()).notes == ()  # it takes the date that it is given


def test_with_thoughts_the_template_is_asked_for_them_and_what_it_drops_is_said() -> None:
    tokenizer = FAMILIES["qwen3"]()
    chat = Chat(tokenizer, thinking=True)
    assert tokenizer.decode(chat.prompt("x")) == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
    assert (chat.dropped, chat.begun) == ("", False)
    assert chat.notes == ("the chat template drops thoughts from past turns: they stay here, as sampled",)
    assert Chat(byte_level(CHATML), thinking=True).notes == Chat(tokenizer).notes == ()
    opening = CHATML.replace("assistant\\n' }}", "assistant\\n' + ('<think>\\n' if enable_thinking else '') }}")
    assert (Chat(byte_level(opening)).begun, Chat(byte_level(opening), thinking=True).begun) == (False, True)
    special = byte_level(CHATML)
    special.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    with pytest.raises(ModelError, match="has <think> as a special token: use actions.format: native"):
        Chat(special, thinking=True)
