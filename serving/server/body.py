"""Reads request bodies: no longer than one may be, and all together no more than the server has room for."""

import asyncio
import json
from collections.abc import AsyncIterable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np

from liveframe.errors import OverloadedError, WireError

MAX_BODY_BYTES = 14_000_000  # what 10 MB of pictures become in base64
_PART = 1 << 16  # bytes that are looked at in one go: they stay in the processor's cache
_AT_ONCE_BYTES = 500_000  # hardly a live frame has more
_PACE_S = 0.002  # from one chunk of a longer body to the next: small requests are answered between them


class ByteBudget:
    """Bytes that all requests under way may hold together. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    @contextmanager
    def share(self) -> Generator["Share"]:
        """Hold bytes while this is open."""
        share = Share(self)
        try:
            yield share
        finally:
            self._held -= share.held

    def take(self, count: int, own: int) -> None:
        """Count bytes in.

        Args:
            count: of them.
            own: bytes that the same request holds already: alone it may have what one request may.

        Raises:
            OverloadedError: the others hold too many.
        """
        if self._held > own and self._held + count > self._most:
            raise OverloadedError("Too many large requests are under way. Send this one again in a moment.", 0.2)
        self._held += count


class Share:
    """What one request holds of a budget.

    Attributes:
        held: bytes.
    """

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.held = 0

    def take(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            OverloadedError: there is no room for them now.
        """
        if count > 0:
            self._budget.take(count, self.held)
            self.held += count

    async def read(self, stream: AsyncIterable[bytes], length: str | None) -> bytes:
        """Read a body; room for all that it says it has is taken before any of it is read.

        Args:
            stream: the body as it arrives.
            length: the Content-Length header.

        Raises:
            WireError: it is longer than any may be.
            OverloadedError: there is no room for it now.
        """
        said = int(length) if length and length.isdecimal() else 0
        _check(said)
        self.take(said)
        chunks: list[bytes] = []
        size = 0
        async for chunk in stream:
            chunks.append(chunk)
            size += len(chunk)
            _check(size)
            self.take(size - max(said, size - len(chunk)))
            if size > _AT_ONCE_BYTES:
                await asyncio.sleep(_PACE_S)
        return b"".join(chunks)


def _check(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise WireError(
            f"A body must have at most {MAX_BODY_BYTES} bytes, but has {size} or more. Send fewer pictures."
        )


def read_json(body: bytes, most_values: int) -> Any:
    """Parse JSON of a bounded number of values.

    The interpreter serves nobody else meanwhile: 14 MB of nothing but brackets take a second, and 300 MB.

    Args:
        body: the bytes.
        most_values: members of lists and objects, all together.

    Raises:
        WireError: it has more, or is no JSON.
    """
    codes = np.frombuffer(body, np.uint8)
    parts = (codes[start : start + _PART] for start in range(0, len(codes), _PART))
    values = sum(int(np.count_nonzero(part == code)) for part in parts for code in b",[{")
    if values > most_values:
        raise WireError(f"JSON must have at most {most_values} values, but has about {values}. Send bytes instead.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError(f"The body must be JSON as its Content-Type says, but cannot be read: {error}.") from error
