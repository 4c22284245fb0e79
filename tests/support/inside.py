"""Work of an event loop in a user's namespace, beside the test that waits for it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from netlab import netns


class Inside:
    """A thread in the namespace `ns` that runs `work` while the `with` block does; `over` asks it to end."""

    def __init__(self, ns: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.over = threading.Event()
        self.failed: list[BaseException] = []
        self._ns = ns
        self._work = work
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises what the work raised, unless the block has raised."""
        self.over.set()
        self._thread.join()
        if self.failed and error is None:
            raise self.failed[0]

    def _run(self) -> None:
        try:
            netns.enter(self._ns)
            asyncio.run(self._work())
        except BaseException as error:  # noqa: BLE001 -- carried to the test whole
            self.failed.append(error)
