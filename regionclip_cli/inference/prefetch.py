"""Reading ahead: the next images are decoded in threads while the network is busy with the last ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from regionclip_cli.data.images import ImageInput
from regionclip_cli.errors import InputError

Source = TypeVar("Source")
Read = TypeVar("Read")

THREADS = 2


def prefetch(
    sources: Iterable[Source], read: Callable[[Source], Read], ahead: int
) -> Generator[tuple[Source, Read | InputError], None, None]:
    """Yield every source, in order, with what `read` made of it or with the `InputError` that it raised.

    At most `ahead` images are in memory before they are asked for. Any other error ends the reading, after the images
    before it. Standard input is read at the caller's own time, since a thread that waits for it could not be stopped.
    """
    waiting: deque[tuple[Source, Future[Read] | None]] = deque()
    left = iter(sources)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="read") as pool:
        try:
            while True:
                while len(waiting) < ahead and (source := next(left, None)) is not None:
                    waiting.append((source, None if _is_typed(source) else pool.submit(read, source)))
                if not waiting:
                    return
                source, future = waiting.popleft()
                try:
                    result: Read | InputError = read(source) if future is None else future.result()
                except InputError as err:
                    result = err
                yield source, result
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()


def _is_typed(source: object) -> bool:
    """Say whether an image comes on standard input."""
    return isinstance(source, ImageInput) and source.path is None
