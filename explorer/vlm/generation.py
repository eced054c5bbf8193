"""Text that grows, can be listened to, and can be cancelled.

Knows how `model.generate` reports tokens and how to stop it; nothing of pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event

import torch
from transformers import StoppingCriteria

from explorer.vlm.base import Cancel

UNFINISHED = "\ufffd"
"""What a tokenizer shows for a character of which some bytes are still to come."""


class StopWhen(StoppingCriteria):
    """Ends a generation after the token during which it was cancelled."""

    def __init__(self, cancel: Cancel) -> None:
        self.cancel = cancel

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        """One verdict per row of the batch."""
        return torch.full(
            (input_ids.shape[0],), self.cancel.is_set(), dtype=torch.bool, device=input_ids.device
        )


class TextGrowth:
    """A streamer for `model.generate`: tells the whole text so far after each token that changes it.

    decode: token ids -> text; on_text: hears the text. The prompt, which comes first, is left out.
    """

    def __init__(self, decode: Callable[[list[int]], str], on_text: Callable[[str], None]) -> None:
        self._decode, self._on_text = decode, on_text
        self._tokens: list[int] | None = None
        self._told = ""

    def put(self, value: torch.Tensor) -> None:
        """Called by `generate`: with the prompt's ids once, then with each new token."""
        if self._tokens is None:
            self._tokens = []
            return
        self._tokens.extend(value.flatten().tolist())
        text = self._decode(self._tokens)
        if text != self._told and not text.endswith(UNFINISHED):
            self._told = text
            self._on_text(text)

    def end(self) -> None:
        """Called by `generate` when it is done; nothing is held back that would have to go out now."""


class _Either:
    """Set when one of two is: the caller's wish to stop, or the closing of the iterator."""

    def __init__(self, first: Cancel | None, second: Cancel) -> None:
        self._both = (second,) if first is None else (first, second)

    def is_set(self) -> bool:
        return any(one.is_set() for one in self._both)


def streamed(
    work: Callable[[Callable[[str], None], Cancel], str], cancel: Cancel | None = None
) -> Iterator[str]:
    """Run `work(on_text, cancel)` in a thread and yield the texts that it tells, at last the one it returns.

    An error in `work` is raised here. When the iterator is closed, or dropped, or fails, the work is
    cancelled and its thread has ended before this returns. Nothing runs before the first `next`.
    """
    closed, texts = Event(), SimpleQueue()
    with ThreadPoolExecutor(1, thread_name_prefix="generate") as pool:
        try:
            future = pool.submit(work, texts.put, _Either(cancel, closed))
            future.add_done_callback(lambda _: texts.put(None))
            last = None
            while (text := texts.get()) is not None:
                yield (last := text)
            if (answer := future.result()) != last:
                yield answer
        finally:
            closed.set()
