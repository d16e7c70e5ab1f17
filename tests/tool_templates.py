"""Chat templates with tools, and tokenizers for them.

`OURS` are written here, in the forms that the families use. Those of the families themselves come with the package
`trl` (extra `bench`), which collects them (`trl/chat_templates`, Apache-2.0), and are read from it, not copied.
"""

from __future__ import annotations

import copy
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests import families

HERMES = r"""
{%- macro call(item) %}
{{- '<tool_call>\n{"name": "' + item.name + '", "arguments": ' + item.arguments|tojson + '}\n</tool_call>' }}
{%- endmacro %}
{%- if tools %}{{ '<|im_start|>system\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}
{{- 'You may call functions:\n<tools>\n' }}
{%- for tool in tools %}{{ tool|tojson + '\n' }}{% endfor %}
{{- '</tools><|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}
{%- elif m.role == 'assistant' %}{{ '<|im_start|>assistant\n' + m.content }}
{%- for item in m.tool_calls or [] %}
{{- ('\n' if m.content or not loop.first else '') + call(item.function) }}{% endfor %}
{{- '<|im_end|>\n' }}
{%- elif m.role == 'tool' %}
{%- if messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>tool\n' }}{% endif %}
{{- '<tool_response>\n' + m.content + '\n</tool_response>\n' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
"""JSON in tags, any number of calls, results in a turn of role tool."""

LLAMA = r"""
{{- bos_token }}
{%- set ns = namespace(rest=messages, system='') %}
{%- if messages[0].role == 'system' %}
{%- set ns.system = messages[0].content %}{% set ns.rest = messages[1:] %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n' + ns.system + '<|eot_id|>' }}
{%- for m in ns.rest %}
{%- set role = 'ipython' if m.role == 'tool' else m.role %}
{{- '<|start_header_id|>' + role + '<|end_header_id|>\n\n' }}
{%- if loop.first and tools %}{{ 'Answer with a JSON call of one of these:\n\n' }}
{%- for tool in tools %}{{ tool|tojson(indent=4) + '\n\n' }}{% endfor %}{% endif %}
{%- if m.tool_calls %}
{%- if m.tool_calls|length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}
{%- set item = m.tool_calls[0].function %}
{{- '{"name": "' + item.name + '", "parameters": ' + item.arguments|tojson + '}' }}
{%- elif m.role == 'tool' %}{{ m.content|tojson }}
{%- else %}{{ m.content|trim }}{% endif %}
{{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
"""Bare JSON, one call a turn, results in JSON, tools in the first user turn."""

MISTRAL = r"""
{%- set users = messages|selectattr('role', 'equalto', 'user')|list %}
{{- bos_token }}
{%- for m in messages %}
{%- if m.role == 'user' %}
{%- if tools and m == users[-1] %}{{ '[AVAILABLE_TOOLS] ' + tools|tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}
{{- '[INST] ' + m.content + '[/INST]' }}
{%- elif m.tool_calls %}{{ '[TOOL_CALLS] [' }}
{%- for item in m.tool_calls %}
{%- if item.id|length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}
{{- (item.function|tojson)[:-1] + ', "id": "' + item.id + '"}' + (']' if loop.last else ', ') }}
{%- endfor %}
{{- eos_token }}
{%- elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}
{%- elif m.role == 'tool' %}
{{- '[TOOL_RESULTS] {"content": ' + m.content + ', "call_id": "' + m.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- endif %}
{%- endfor %}"""
"""A JSON list with ids behind a special token; tools before the last user turn, which a further one would move."""

NAMED = r"""
{{- bos_token }}
{%- if tools %}{{ '[AVAILABLE_TOOLS]' + tools|tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}
{%- elif m.role == 'assistant' %}{{ m.content }}
{%- for item in m.tool_calls or [] %}
{{- '[TOOL_CALLS]' + item.function.name + '[CALL_ID]' + item.id + '[ARGS]' + item.function.arguments|tojson }}
{%- endfor %}
{{- eos_token }}
{%- elif m.role == 'tool' %}{{ '[TOOL_RESULTS]' + m.tool_call_id + '[TOOL_CONTENT]' + m.content + '[/TOOL_RESULTS]' }}
{%- endif %}
{%- endfor %}"""
"""A name, an id and arguments for each call, between special tokens."""

THINKING = r"""
{%- if tools %}{{ '<|im_start|>system\n' + tools|tojson + '<|im_end|>\n' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}{{ '<|im_start|>tool\n' + m.content + '<|im_end|>\n' }}
{%- else %}{{ '<|im_start|>' + m.role + '\n' }}
{%- if m.reasoning_content and loop.last %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}
{{- m.content.split('</think>')[-1] }}
{%- for item in m.tool_calls or [] %}{{ '<call>' + item.function|tojson + '</call>' }}{% endfor %}
{{- '<|im_end|>\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' + ('<think>\n' if enable_thinking else '') }}{% endif %}"""
"""Opens a thought where thoughts are asked for, and drops those of past turns."""

_JSON = """{"name": "' + item.name + '", "arguments": ' + item.arguments|tojson + '}"""
_TAGS = """<function=' + item.name + '>\\n' }}
{%- for key, value in item.arguments|items %}
{{- '<parameter=' + key + '>\\n' + value + '\\n</parameter>\\n' }}{% endfor %}
{{- '</function>"""
CODER = HERMES.replace(_JSON, _TAGS)
"""Arguments between tags, on lines of their own."""

OURS = {"hermes": HERMES, "llama": LLAMA, "mistral": MISTRAL, "named": NAMED, "coder": CODER, "thinking": THINKING}
_SPECIAL = re.compile(r"<\|[^|<> ]+\|>|<｜[^｜]+｜>|\[/?[A-Z_]+\]|<(?:start|end)_of_turn>")


@cache
def collected() -> Path | None:
    """The folder of trl's collection; None where it is not installed."""
    spec = find_spec("trl")
    places = spec.submodule_search_locations if spec else None
    folder = Path(places[0]) / "chat_templates" if places else None
    return folder if folder and folder.is_dir() else None


needs_trl = pytest.mark.skipif(collected() is None, reason="the extra bench (trl) is not installed")


def real(name: str) -> str:
    """A family's own template, from trl's collection."""
    folder = collected()
    assert folder is not None
    return (folder / f"{name}.jinja").read_text(encoding="utf-8")


@cache
def tokenizer(template: str) -> Any:
    """A byte-level tokenizer in which a template's markers, the beginning and the end of a text are special tokens."""
    from tokenizers import AddedToken

    made = copy.deepcopy(families.qwen3())
    if "bos_token" in template:
        made.bos_token = "<|begin_of_text|>" if "eot_id" in template else "<s>"
    if "eos_token" in template:
        made.eos_token = "</s>"
    marks = {*_SPECIAL.findall(template), *filter(None, (made.bos_token, made.eos_token))}
    made.add_tokens([AddedToken(name, special=True, normalized=False) for name in sorted(marks)])
    made.chat_template = template
    return made
