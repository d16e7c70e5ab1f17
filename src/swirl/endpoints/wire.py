"""The wire format: writes a request's JSON, and reads a server's response, which is treated as hostile input.

Beyond OpenAI's own fields, a completions server is asked for the token ids that it sampled. They are read in three
forms: vLLM's `token_ids` and `prompt_token_ids` (for `return_token_ids`), its older `"token_id:42"` in
`logprobs.tokens` (for `return_tokens_as_token_ids`), and llama.cpp's `logprobs.content`, a list of objects with `id`
and `logprob`. A field that is missing or has any other form counts as not given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from swirl.core.untrusted import finite, writable
from swirl.endpoints.alternatives import ALTERNATIVES, chances
from swirl.endpoints.requests import Answer, Ask, Endpoint, EndpointError

NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0}
"""Values that switch these rules off, as in local sampling; without them, servers use the model's generation config,
or rules of their own: llama-cpp-python punishes repetition, which it calls `repeat_penalty`, at temperature 0 as well.
"""

TOP_K_FROM_0 = "top_k = -1"
"""Stands among the refused fields where a server switches `top_k` off by 0 (llama.cpp) and refuses -1 (vLLM)."""

OPTIONAL = (*NEUTRAL, "seed", "stop_token_ids", "return_token_ids", "return_tokens_as_token_ids", "logprobs")
OPTIONAL += ("add_special_tokens", "stop", "include_stop_str_in_output", "top_logprobs")
"""Fields that a server may refuse: the request is then sent without them."""

SAMPLING = ("top_p", "temperature")
"""Fields that hosted models may refuse to have set, in the order in which they are tried to be left out."""

WISHES = {"top_k": "0, which keeps every token", "chat_template_kwargs": "{}, which sends none"}
"""Fields that are not left out when refused (`top_k` unless neutral), and what to set them to for such a server."""

MAX_SEED = 2**31
_QUOTED = 300
"""Characters of a server's message that are shown."""


def body(endpoint: Endpoint, ask: Ask, refused: Collection[str], ids_work: bool) -> dict[str, Any]:
    """A request's JSON, without the `refused` optional fields."""
    fields: dict[str, Any] = {"model": endpoint.model}
    if endpoint.api == "chat":
        fields["messages"] = [{"role": turn.role, "content": turn.content} for turn in ask.messages]
    else:
        fields["prompt"] = list(ask.ids) if ask.ids and ids_work else ask.text
    fields["max_completion_tokens" if "max_tokens" in refused else "max_tokens"] = ask.max_tokens
    fields |= {"temperature": ask.temperature, "top_p": ask.top_p, **NEUTRAL, "seed": ask.seed % MAX_SEED}
    if ask.top_k or TOP_K_FROM_0 in refused:
        fields["top_k"] = ask.top_k
    if endpoint.chat_template_kwargs:
        fields["chat_template_kwargs"] = dict(endpoint.chat_template_kwargs)
    if ask.words:
        chat = endpoint.api == "chat"
        fields |= {"logprobs": True, "top_logprobs": ALTERNATIVES} if chat else {"logprobs": ALTERNATIVES}
    if ask.stops:
        fields |= {"stop": list(ask.stops), "include_stop_str_in_output": True}
    if endpoint.api == "completions" and ask.ids:
        if ids_work:  # who takes no ids gives none, and log-probabilities are of no use without ids
            fields |= {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": 1}
        fields |= {"add_special_tokens": False}
        if ask.stop_ids:
            fields["stop_token_ids"] = list(ask.stop_ids)
    return {name: value for name, value in fields.items() if name not in refused}


def newly_refused(message: str, parameter: str, sent: Mapping[str, Any]) -> set[str]:
    """The fields of a request that a refusal names; `max_tokens` if it asks for `max_completion_tokens`.

    Of `SAMPLING` at most one field, because a server may refuse only both together: the `parameter` that the server
    blames, if it says. A refusal of a value out of its range is none of the field: leaving it out would hide a mistake.
    """
    if "max_tokens" in sent and "max_completion_tokens" in message:
        return {"max_tokens"}
    optional = {name for name in (*OPTIONAL, "chat_template_kwargs") if _names(message, name) and name in sent}
    if "logprobs" in optional and "top_logprobs" in sent:
        optional.add("top_logprobs")  # which has no meaning alone
    unsupported, out_of_range = _UNSUPPORTED.search(message), _RANGE.search(message)
    if "top_k" in optional and sent["top_k"] == NEUTRAL["top_k"] and out_of_range and not unsupported:
        return {*optional - {"top_k"}, TOP_K_FROM_0}
    if optional or not unsupported or out_of_range:
        return optional
    sampling = [name for name in SAMPLING if name in sent]
    blamed = [name for name in sampling if (name == parameter if parameter else _names(message, name))]
    return set(blamed[:1])


def refuses_ids(message: str, sent: Mapping[str, Any]) -> bool:
    """Whether a refusal says that a prompt has to be text."""
    return isinstance(sent.get("prompt"), list) and "string" in message


def refuses(payload: bytes, sent: bytes) -> bool:
    """Whether an answer of status 500 to a request is the refusal of a field, so that another request is answered.

    llama-cpp-python answers so, in pydantic's words or its own, where others answer 400 or 422.
    """
    try:
        message, fields = message_of(json.loads(payload)), json.loads(sent)
    except (ValueError, RecursionError):
        return False
    return _INVALID.search(message) is not None and (
        refuses_ids(message, fields) or bool(newly_refused(message, "", fields))
    )


_INVALID = re.compile(r"\bvalidation errors?\b|\blogprobs is not supported\b")


def _names(message: str, field: str) -> bool:
    return re.search(rf"\b{field}\b", message) is not None


_UNSUPPORTED = re.compile(
    r"unsupported|deprecated|unknown|unrecogni[sz]ed|unexpected|extraneous|extra inputs|\bfixed\b|\bonly \S+ is allowed"
    r"|(\bno|\bnot|cannot|n't)( both)?( be| longer)* (support|permit|allow|accept|available|specified|set|used)",
    re.IGNORECASE,
)
"""How servers say that a field may not be set at all."""

_RANGE = re.compile(
    r"\bmust be\b|between|(less|greater|more) than|at (least|most)|\b(above|below|maximum|minimum|range)\b|[<>≤≥]",
    re.IGNORECASE,
)
"""How servers say that a value lies outside what they allow."""


def message_of(error_body: object) -> str:
    """The message in an error's body, as text: its innermost `error`, `message` or `detail`."""
    for _ in range(3):
        if not isinstance(error_body, Mapping):
            break
        error_body = next(
            (error_body[key] for key in ("error", "message", "detail") if error_body.get(key)), error_body
        )
    try:
        return error_body if isinstance(error_body, str) else json.dumps(error_body, default=str)
    except RecursionError:
        return "nested beyond reading"


def short(message: str) -> str:
    """A server's message, shortened for display: its first characters on one line."""
    line = " ".join(writable(message[: 4 * _QUOTED]).split())
    return line if len(line) <= _QUOTED else line[:_QUOTED] + " ..."


def says_context(message: str) -> bool:
    """Whether a refusal is about the length of the conversation."""
    pattern = (
        r"context[ _](length|size|window)|maximum context|max_model_len|too (long|many tokens)|exceed\w* .{0,40}context"
    )
    return re.search(pattern, message[:10_000], re.IGNORECASE) is not None


def read(endpoint: Endpoint, payload: bytes) -> tuple[dict[str, Any], dict[str, Any], str]:
    """A response's JSON, its first choice, and the text in it. Raises `EndpointError` when it is junk without these."""
    try:
        tree = json.loads(payload)
    except (ValueError, RecursionError):
        raise EndpointError(f"the answer is no JSON: {short(payload[:2000].decode(errors='replace'))!r}") from None
    choices = tree.get("choices") if isinstance(tree, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise EndpointError(f"the answer has no choices: {short(message_of(tree))!r}")
    choice = choices[0]
    inside = choice.get("message") if endpoint.api == "chat" else choice
    text = inside.get("content" if endpoint.api == "chat" else "text", "") if isinstance(inside, dict) else None
    if text is None and isinstance(inside, dict):
        text = ""  # all of it was hidden reasoning, or a tool call in the server's own format
    if not isinstance(text, str):
        raise EndpointError(f"the answer's first choice has no text: {short(message_of(choice))!r}")
    return tree, choice, text


def answer(endpoint: Endpoint, ask: Ask, payload: bytes) -> Answer:
    """Parse a server's response. Raises `EndpointError` when `read` does."""
    tree, choice, text = read(endpoint, payload)
    usage = tree["usage"] if isinstance(tree.get("usage"), dict) else {}
    ids, logprobs = _tokens(ask, choice, tree) if endpoint.api == "completions" else (None, None)
    return Answer(
        text=writable(text),
        finish=writable(finish[:40]) if isinstance(finish := choice.get("finish_reason"), str) else "",
        ids=ids,
        logprobs=logprobs,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        chances=chances(ask.words, text, choice.get("logprobs")) if ask.words else (),
        thought=writable(_thought(choice.get("message"))) if ask.thoughts else "",
    )


def _thought(message: object) -> str:
    """The thought that a server keeps apart from a message's text; empty for none."""
    given = [message.get(name) for name in ("reasoning_content", "reasoning")] if isinstance(message, dict) else []
    return next((text for text in given if isinstance(text, str) and text), "")


def _tokens(
    ask: Ask, choice: Mapping[str, Any], tree: Mapping[str, Any]
) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None]:
    """The sampled ids and their log-probabilities, each None where not given or not consistent with the rest."""
    told = choice.get("logprobs")
    told = told if isinstance(told, dict) else {}
    content = told.get("content")
    items = [item if isinstance(item, dict) else {} for item in content] if isinstance(content, list) else []
    ids = (
        token_ids(choice.get("token_ids"))
        or _numbered(told.get("tokens"))
        or token_ids([item.get("id") for item in items])
    )
    read = next((x for x in (choice.get("prompt_token_ids"), tree.get("prompt_token_ids")) if x is not None), None)
    if not ask.ids or ids is None or len(ids) > ask.max_tokens or (read is not None and read != list(ask.ids)):
        return None, None
    logprobs = log_probabilities(told.get("token_logprobs") or [item.get("logprob") for item in items])
    return ids, logprobs if logprobs is not None and len(logprobs) == len(ids) else None


def token_ids(value: object) -> tuple[int, ...] | None:
    """The token ids of a list that is not empty; None for anything else."""
    if not isinstance(value, list) or not value:
        return None
    fine = all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < 2**31 for i in value)
    return tuple(value) if fine else None


def log_probabilities(value: object) -> tuple[float, ...] | None:
    """A list of finite numbers, those above 0 by a rounding error set to 0; None for anything else."""
    if not isinstance(value, list):
        return None
    numbers = [number for item in value if (number := finite(item)) is not None and number < 1e-3]
    return tuple(min(0.0, number) for number in numbers) if len(numbers) == len(value) else None


def _numbered(value: object) -> tuple[int, ...] | None:
    """The ids of `["token_id:42", ...]`; None for anything else."""
    if not isinstance(value, list):
        return None
    found = [re.fullmatch(r"token_id:(\d{1,10})", token) if isinstance(token, str) else None for token in value]
    return token_ids([int(match[1]) if match else None for match in found])


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0
