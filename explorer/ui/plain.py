"""Turns the errors that a person can cause into short messages on the page. Anything else goes to the log."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TypeVar

import gradio as gr

from explorer.errors import ExplorerError

Handler = TypeVar("Handler", bound=Callable)

SECONDS = 8


def _message(error: ExplorerError) -> gr.Error:
    text = str(error)
    return gr.Error(
        text[:1].upper() + text[1:], duration=SECONDS, title="That did not work", print_exception=False
    )


def plainly(handler: Handler) -> Handler:
    """The handler, with every ExplorerError shown as a message; its outputs then stay as they were."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: object, **kwargs: object) -> object:
            try:
                yield from handler(*args, **kwargs)
            except ExplorerError as error:
                raise _message(error) from error

        return stream  # type: ignore[return-value]

    @functools.wraps(handler)
    def call(*args: object, **kwargs: object) -> object:
        try:
            return handler(*args, **kwargs)
        except ExplorerError as error:
            raise _message(error) from error

    return call  # type: ignore[return-value]
