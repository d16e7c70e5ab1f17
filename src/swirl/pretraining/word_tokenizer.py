"""The embedded models' tokenizer: whole words where the vocabulary has them, characters elsewhere."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, USER, MODEL, END = "<|pad|>", "<|unknown|>", "<|user|>", "<|model|>", "<|end|>"
_START = "▁"
LARGEST_NUMBER = 999
"""Integers up to this one are one token each."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|user|> ' if message['role'] == 'user' else '<|model|> ' }}{{ message['content'] }} <|end|> "
    "{% endfor %}"
    "{% if add_generation_prompt %}<|model|>{% endif %}"
)

_WORD = re.compile(r"</?\w+>|->|\w+|[^\w\s]")


def build_tokenizer(texts: Iterable[str], words: Iterable[str], context: int) -> PreTrainedTokenizerFast:
    """A tokenizer that knows every word of `texts` and `words`, all small integers, and every ASCII character.

    Text is split at white space; an unknown word is spelled in pieces. `▁` marks the start of a word, `##` a
    continuation; special tokens have neither, so no text is ever spelled with one. Printable ASCII text with single
    spaces thus survives encoding and decoding. Lossy: runs of white space, other scripts, words of more than 2000
    characters.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = set(words)
    for text in texts:
        known.update(_WORD.findall(text))
    characters = [c for c in string.printable if not c.isspace()]
    entries = [PAD, UNKNOWN, USER, MODEL, END]
    entries += [_START + c for c in characters] + ["##" + c for c in characters]
    entries += [_START + str(n) for n in range(LARGEST_NUMBER + 1)] + [_START + word for word in sorted(known)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(entries))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=2000))
    starts = pre_tokenizers.Metaspace(_START, prepend_scheme="always", split=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), starts])
    pieces = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.decoder = decoders.Sequence([pieces, decoders.Replace(_START, "")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, MODEL],
        clean_up_tokenization_spaces=False,
        model_max_length=context,
        chat_template=CHAT_TEMPLATE,
    )
