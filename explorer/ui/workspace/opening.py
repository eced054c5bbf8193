"""Opening a picture: an example or a visitor's own. One method per action; keeps nothing of a visitor."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from explorer.cases.examples import Example
from explorer.errors import ExplorerError
from explorer.images import load_image
from explorer.session.opening import is_embedded
from explorer.ui.plain import plainly
from explorer.ui.sent import sent
from explorer.ui.visit import Focus, Said, Told, Visit
from explorer.ui.workspace import panels
from explorer.ui.workspace.looking import Looking, Shown
from explorer.ui.workspace.reach import reach
from explorer.ui.workspace.stage import frame, photo_uri
from explorer.ui.workspace.steering import NOTHING_MOVED, Steering


class Opened(NamedTuple):
    """What the page shows of a picture just opened, in the order of the page's outputs (`Hub.opened`)."""

    visit: Visit
    focus: Focus
    stage: dict
    cards: str
    bench: dict
    said: Said | None
    told: Told | None
    shelf: str
    notices: str
    questions: str
    prompt: str
    baseline: str
    steered: str


def in_turn(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A method that opens a picture: its reply changes nothing when a newer request has opened one meanwhile.

    Its first argument is the Visit so far, or None; it returns a tuple that begins with the fresh Visit.
    """

    @functools.wraps(handler)
    def call(self: object, visit: Visit | None, *more: Any) -> Any:
        if visit is None:
            return handler(self, visit, *more)
        number = visit.openings.ask()
        opened = handler(self, visit, *more)
        if not visit.openings.answer(number):
            return tuple(gr.skip() for _ in opened)
        visit.leave(opened[0])
        return opened

    return call


class Opening:
    """How pictures come onto the page. linked: opens what an address asks for, None when it asks nothing."""

    linked: Callable[[gr.Request | None], Opened | None] | None = None

    def __init__(self, looking: Looking, steering: Steering, examples: dict[str, Example]) -> None:
        self.session = looking.session
        self.looking, self.steering, self.examples = looking, steering, examples
        self.shelf = panels.Shelf(examples.values(), is_embedded(self.session.lvlm.model_id))

    @plainly
    def start(self, request: gr.Request | None = None) -> Opened:
        """A new visitor: what the page's address asks for, else the first example."""
        asked = None if self.linked is None else self.linked(request)
        return asked or self.example(next(iter(self.examples)))

    @plainly
    @in_turn
    def open_example(self, visit: Visit | None, event: gr.EventData) -> Opened:
        """One of the example pictures."""
        return self.example(sent(event, "key"))

    @plainly
    @in_turn
    def open_upload(self, visit: Visit | None, path: str | None) -> Opened:
        """A picture of the visitor's own. One that cannot be read leaves the former picture in place.

        The uploaded file is removed at once, whether it could be read or not.
        """
        if not path:
            raise ExplorerError("no picture arrived; choose a file")
        file = Path(path)
        try:
            if not file.is_file():
                raise ExplorerError("the picture did not arrive; choose it once more")
            image = load_image(file)
        finally:
            with suppress(OSError):
                file.unlink(missing_ok=True)
        view = self.session.look(image)
        return self.opened(Visit(view, "Your picture", photo_uri(view.image, view.grid)))

    def example(self, key: object) -> Opened:
        """Open an example by its key. Raises ExplorerError for an unknown one."""
        example = self.examples.get(key) if isinstance(key, str) else None
        if example is None:
            raise ExplorerError(f"there is no example {str(key)[:40]!r}; choose one of those shown")
        view = self.session.look(example.image)
        fresh = Visit(view, example.title, photo_uri(view.image, view.grid), example.questions, example.key)
        return self.opened(fresh)

    def opened(self, fresh: Visit, prompt: str | None = None) -> Opened:
        """All that the page shows of a fresh visit. For all parts of the page that open pictures.

        prompt: the question to ask, None for the model's default.
        """
        asked = prompt or self.session.lvlm.default_prompt
        shown: Shown = self.looking.show(fresh, Focus())
        return Opened(
            visit=fresh,
            focus=shown.focus,
            stage=gr.update(value=shown.stage, **frame(fresh.photo, fresh.title, fresh.view.grid)),
            cards=shown.cards,
            bench={**shown.bench, "reach": reach(fresh.view)},
            said=None,
            told=None,
            shelf=self.shelf.html(fresh.example, seen=panels.how_seen(self.session, fresh.view)),
            notices=panels.notices(self.session, fresh.view),
            questions=self.steering.questions(fresh, asked),
            prompt=asked,
            baseline=panels.WAITING,
            steered=panels.hint(NOTHING_MOVED),
        )
