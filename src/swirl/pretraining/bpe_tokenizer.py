"""A byte-level BPE tokenizer for real text: learned from a model's own training texts, and lossless on any text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from swirl.core.errors import ModelError
from swirl.pretraining.word_tokenizer import END, MODEL, PAD, USER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|user|>' if message['role'] == 'user' else '<|model|>' }}{{ message['content'] }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|model|>{% endif %}"
)
"""Role tokens as in the word tokenizer's template, but no spaces around contents: bytes are kept as they are."""


def build_bpe(
    texts: Iterable[str], vocabulary: int, context: int, whole: Iterable[str] = (), digits: int = 1
) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocabulary` tokens whose merges are learned from `texts`.

    Numbers are split from the left into groups of at most `digits` digits, separately from all other text, so that a
    number has the same tokens wherever it is; with 1, every digit is a token. `whole` are texts (tags, verdicts) that
    are one token each wherever they occur; they are plain text, not special tokens. Decoding gives back any text.
    Raises `ModelError` when `vocabulary` has no room for the 256 bytes, `whole` and the special tokens.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special, known = [PAD, USER, MODEL, END], list(dict.fromkeys(whole))
    merges = vocabulary - len(special) - len(known)
    if merges < 256:
        least = 256 + len(special) + len(known)
        raise ModelError(f"a vocabulary of {vocabulary} tokens is too small: bytes and whole texts alone are {least}")
    tokenizer = Tokenizer(models.BPE())
    numbers = pre_tokenizers.Split(Regex(f"[0-9]{{1,{digits}}}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([numbers, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=merges, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in known])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, MODEL],
        clean_up_tokenization_spaces=False,
        model_max_length=context,
        chat_template=CHAT_TEMPLATE,
    )
