"""The body of a response, bounded in size and time. Imported only where openai is, which brings httpx2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2


class TooLarge(Exception):
    """A response that is (or may be) too large: it is not read to its end, and the request is not retried."""


class Junk(httpx2.DecodingError):
    """A response of status 200 that holds no answer; the openai package retries it as it does a cut connection."""


class Bounded(httpx2.AsyncByteStream):
    """A response's bytes. Raises `TooLarge` beyond `limit` bytes, and `ReadTimeout` at `deadline` (the loop's time)."""

    def __init__(self, stream: httpx2.AsyncByteStream, limit: int, deadline: float) -> None:
        self._stream, self._limit, self._deadline = stream, limit, deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._stream)
        size = 0
        while True:
            try:
                async with asyncio.timeout_at(self._deadline):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise httpx2.ReadTimeout("the body took too long") from None
            size += len(chunk)
            if size > self._limit:
                raise TooLarge(f"more than {self._limit} bytes")
            yield chunk

    async def aclose(self) -> None:
        """Close the underlying stream."""
        await self._stream.aclose()
