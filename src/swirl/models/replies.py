"""A reply's thought and what follows it, in either format of actions."""

from __future__ import annotations

from swirl.models.tokens import Tokens


class Replies(Tokens):
    """A tokenizer, and how replies in its chat begin that may have a thought."""

    thinking: bool
    """Whether a reply may begin with a thought."""
    begun: bool
    """Whether a reply is the rest of a thought that the template opened."""
    thought_tags: tuple[str, str]
    """What opens and closes a thought."""
    _blank = False
    """Whether a past turn begins with the line feeds that followed its thought."""

    def after_thought(self, text: str) -> tuple[str, str] | None:
        """A reply as its thought, tags included, and what follows it; None if it does not come to its thought's end."""
        opens, closes = self.thought_tags
        if not self.thinking or not (self.begun or text.lstrip().startswith(opens)):
            return "", text
        thought, closed, said = text.partition(closes)
        return (thought + closed, said) if closed else None

    def unthought(self, text: str) -> str:
        """A reply as a past turn has it, without its thought."""
        parts = self.after_thought(text)
        if parts is None:
            return "" if self.begun else text
        return parts[1].lstrip("\n") if parts[0] and not self._blank else parts[1]
