"""Signs in a text that it is not what was said: cut by a logger, masked, an error of the client, a page, a summary."""

from __future__ import annotations

import re

_CUT = re.compile(
    r"litellm_truncated"
    r"|<truncated due to size exceeding limit>"
    r"|\[base64_data truncated: [^\]]{0,200}\]"
    r"|(?:(?:\.\.\.|…) ?[\[(<]?|[\[(<])truncated[^\])>\n\"]{0,40}[\])>]?[\"}\]\s]*$",
    re.IGNORECASE,
)
_KINDS = (
    "EMAIL|E_MAIL|PHONE|PERSON|SSN|CREDIT_CARD|CARD_NUMBER|IBAN|IP_ADDRESS|DATE_OF_BIRTH|STREET_ADDRESS|ACCOUNT_NUMBER"
    "|PASSWORD|API_KEY|REDACTED|MASKED"
)
_WHOLE = "NAME|FIRST_NAME|LAST_NAME|FULL_NAME|ADDRESS|LOCATION|IP|SECRET|PII"
_LABEL = rf"(?:[A-Z_]{{0,40}}(?:{_KINDS})[A-Z_]{{0,40}}|{_WHOLE})(?:_?\d+)?"
_MASKED = re.compile(rf"\[{_LABEL}\]|<{_LABEL}>|\{{\{{{_LABEL}\}}\}}|\[(?:email|phone|first_name|last_name|redacted)\]")
_CLIENT = re.compile(r"\s*(?:API Error:? \d{3}|Error code: \d{3} - |Agent stopped due to (?:max iterations|iteration))")
_PAGE = re.compile(r"\s*(?:<\?xml[^>]{0,200}>\s*)?<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_SUMMARY = re.compile(
    r"summary of (?:the |our |this )?(?:conversation|session|previous|earlier|above)"
    r"|(?:conversation|session|history) summary|continued from a previous conversation|<summary>"
    r"|^\W*(?:here is )?(?:a |the )?summary\b",
    re.IGNORECASE,
)


def cut_by_logger(text: str) -> bool:
    """Whether the text bears the mark of a logger that cut it, so that the model saw something else."""
    return ("runcated" in text or "RUNCATED" in text) and _CUT.search(text) is not None


def masked(text: str) -> bool:
    """Whether the text holds a value that was masked before it was logged, such as `[EMAIL]`."""
    return _MASKED.search(text) is not None


def client_error(text: str) -> bool:
    """Whether an assistant's text is the client's own report of an error."""
    return _CLIENT.match(text) is not None


def page(text: str) -> bool:
    """Whether a text is a page of HTML, as a gateway answers in place of the model."""
    return _PAGE.match(text) is not None


def summary(text: str) -> bool:
    """Whether a text begins like a summary that stands for an earlier part of the conversation."""
    return _SUMMARY.search(text[:400]) is not None
