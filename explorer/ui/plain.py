"""Turns what goes wrong in a handler into a short message on the page; what nobody foresaw goes to the log.

Knows errors and handlers; nothing of what they do.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from html import escape
from types import TracebackType
from typing import TypeVar

import gradio as gr

from explorer.errors import ExplorerError

Handler = TypeVar("Handler", bound=Callable)

SECONDS = 8
WRONG = "Something went wrong; the log has the details."
NO_MEMORY = (
    "The memory is full. Try again in a moment, with a shorter answer or a smaller picture. "
    "For good, serve the page for fewer visitors (--visitors) or on a larger device (--device)."
)


def safe(words: object) -> str:
    """Words for a message: the framework reads messages as HTML."""
    return escape(str(words), quote=False)


def _message(error: ExplorerError) -> gr.Error:
    text = safe(error)
    return gr.Error(
        text[:1].upper() + text[1:], duration=SECONDS, title="That did not work", print_exception=False
    )


def _unforeseen(error: Exception) -> gr.Error:
    """The message for any other error; the server prints its whole trace into the log."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    full = kinds & {"OutOfMemoryError", "MemoryError"}
    return gr.Error(NO_MEMORY if full else WRONG, duration=SECONDS, title="That did not work")


class _Worded:
    """While it is entered, errors leave as messages for the page, with the error itself as their cause."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ExplorerError):
            raise _message(error) from error
        if isinstance(error, Exception) and not isinstance(error, gr.Error):
            raise _unforeseen(error) from error


def plainly(handler: Handler) -> Handler:
    """The handler, with every error shown as a short message; its outputs then stay as they were."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: object, **kwargs: object) -> object:
            with _Worded():
                yield from handler(*args, **kwargs)

        return stream  # type: ignore[return-value]

    @functools.wraps(handler)
    def call(*args: object, **kwargs: object) -> object:
        with _Worded():
            return handler(*args, **kwargs)

    return call  # type: ignore[return-value]


def guard(page: gr.Blocks) -> None:
    """Make every handler of a page plain, also those that nobody wrapped. To be called once all are wired."""
    for function in page.fns.values():
        if function.fn is not None:
            function.fn = plainly(function.fn)
