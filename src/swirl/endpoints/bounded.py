"""An attempt bounded in time, its response's body in size. Imported only where openai is, which brings httpx2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from openai import DefaultAsyncHttpxClient

LIMIT = "swirl_limit"
"""Extension of a request: the `asyncio.Timeout` around its attempt, without a deadline until one is set."""


class TooLarge(Exception):
    """A response that is (or may be) too large: it is not read to its end, and the request is not retried."""


class Junk(httpx2.DecodingError):
    """A response of status 200 that holds no answer; the openai package retries it as it does a cut connection."""


class Bounded(httpx2.AsyncByteStream):
    """A response's bytes. Raises `TooLarge` beyond `limit` of them."""

    def __init__(self, stream: httpx2.AsyncByteStream, limit: int) -> None:
        self._stream, self._limit = stream, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._limit:
                raise TooLarge(f"more than {self._limit} bytes")
            yield chunk

    async def aclose(self) -> None:
        """Close the underlying stream."""
        await self._stream.aclose()


class Timed(DefaultAsyncHttpxClient):
    """Sends requests. Raises `ReadTimeout` for an attempt that is not over, its body included, when `LIMIT` says so.

    httpx2's own limits begin anew with every byte, and so never end a server that sends one now and then.
    """

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Make one attempt; a hook that waits for its turn sets the deadline afterwards."""
        try:
            async with asyncio.timeout(None) as limit:
                request.extensions[LIMIT] = limit
                return await super().send(request, **options)
        except TimeoutError:
            raise httpx2.ReadTimeout("the answer took too long", request=request) from None
