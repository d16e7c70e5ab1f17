"""Why an answer ended, in the words of servers and logs."""

from __future__ import annotations

LENGTH = frozenset({"length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"})
"""The answer was as long as it could be."""
_BROKEN = frozenset(
    {
        "abort",
        "content_filter",
        "prohibited_content",
        "blocklist",
        "malformed_function_call",
        "refusal",
        "safety",
        "recitation",
        "incomplete",
        "failed",
        "cancelled",
        "error",
    }
)


def cut_short(reason: object) -> bool:
    """Whether an answer that ended for this reason is not whole: too long, stopped by a filter, or broken off."""
    return isinstance(reason, str) and reason.lower() in LENGTH | _BROKEN
