"""What went wrong with a request to a server, in words that say what to do about it; the key is in none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from swirl.endpoints import wire
from swirl.endpoints.requests import ContextError, Endpoint, EndpointError, RefusedError, UnavailableError

if TYPE_CHECKING:
    import httpx2
    import openai

REFUSAL = "swirl_refusal"
"""Extension of a response of status 500 that is a refusal of the request."""
_NAMED = 10
"""Maximum number of models that a message lists."""


class BadRequest(Exception):
    """The server refuses a request for what is in it (400, 413, 422, and 500 where it says so)."""

    def __init__(self, status: int, message: str, parameter: str) -> None:
        super().__init__(status)
        self.status, self.message = status, message
        self.parameter = parameter
        """The field that the server blames; empty where it names none apart from the message."""
        self.context = wire.says_context(message)


class Failures:
    """The errors of one endpoint, whose key they do not show."""

    def __init__(self, endpoint: Endpoint, key: str) -> None:
        self._endpoint, self._key = endpoint, key

    def about(self, what: str) -> str:
        """A sentence about the server."""
        return f"{self._endpoint.url} ({self._endpoint.model}) {what}"

    def redacted(self, text: str) -> str:
        """The text without the key."""
        return text.replace(self._key, "***") if self._key else text

    def of_status(self, error: openai.APIStatusError, path: str, served: Sequence[str]) -> Exception:
        """The error for a response that is none of 2xx: `BadRequest` or an `EndpointError`.

        `path` was asked; `served` are the models that the server lists, looked up for a 404 only.
        """
        status, message = error.status_code, self.redacted(wire.message_of(error.body))
        said = wire.short(message)
        if status in (401, 403):
            name = self._endpoint.key_env
            mend = (
                f"set ${name} to a key that it accepts" if name else "name the variable that holds its key in key_env"
            )
            return UnavailableError(self.about(f"refuses the key ({status}): {said}; {mend}"))
        if status == 404:
            if self._endpoint.model in served:
                return UnavailableError(self.about(f"serves the model, but not {path} (404): use the other api"))
            shown = ", ".join(served[:_NAMED]) + ", ..." * (len(served) > _NAMED)
            mend = f"it serves {shown}" if served else "is the path, such as /v1, right?"
            return UnavailableError(self.about(f"knows no such model (404): {said}; {mend}"))
        if status in (400, 413, 422) or REFUSAL in error.response.extensions:
            return BadRequest(status, message, error.param if isinstance(error.param, str) else "")
        return EndpointError(self.about(f"answered {status}, {_attempts(error.request)}: {said}"))

    def of_connection(self, error: openai.APIConnectionError) -> EndpointError:
        """The error for a request that got no response, or only junk."""
        import openai

        times = _attempts(error.request)
        cause = type(error.__cause__).__name__
        if cause in ("ConnectError", "ConnectTimeout", "UnsupportedProtocol", "ProxyError"):
            reason = wire.short(self.redacted(str(error.__cause__))) or cause
            return UnavailableError(f"nothing answers at {self._endpoint.url} ({reason}): is the server running there?")
        if isinstance(error, openai.APITimeoutError):
            advice = "raise timeout_s, or lower concurrency"
            return EndpointError(self.about(f"took longer than {self._endpoint.timeout_s:g} s, {times}: {advice}"))
        if cause == "Junk":
            return EndpointError(self.about(f"gave no answer, {times}: {self.redacted(str(error.__cause__))}"))
        return EndpointError(self.about(f"cut the connection ({cause}), {times}"))

    def of_refusal(self, refusal: BadRequest) -> RefusedError:
        """The error for a request that is refused for what is in it, also without the optional fields."""
        said = wire.short(refusal.message)
        if refusal.context:
            return ContextError(self.about(f"has no room for the conversation ({refusal.status}): {said}"))
        return RefusedError(self.about(f"refuses the request ({refusal.status}): {said}"))


def _attempts(last: httpx2.Request) -> str:
    """How often a request was tried, in words."""
    count = int(last.headers.get("x-stainless-retry-count", "0")) + 1
    return "tried once" if count == 1 else f"tried {count} times"
