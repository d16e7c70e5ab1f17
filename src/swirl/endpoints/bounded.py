"""The body of a response, read up to a size and a time. Imported with the openai package alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2


class TooLarge(Exception):
    """A response that is not read to its end, and not asked for again."""


class Bounded(httpx2.AsyncByteStream):
    """A response's bytes. Raises `TooLarge` beyond `limit` bytes, and a read time-out at `deadline` (loop's clock)."""

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
        """Close what is read from."""
        await self._stream.aclose()
