"""The actions on cases: open, replay, save, keep, download, remove. One method per action.

Each takes what the browser holds and the visitor's own records. The desk is shared by all visitors; it holds
nothing but the shipped cases and the way to the folder of kept ones.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from explorer.cases import rows, settings
from explorer.cases.case import ENDING, LARGEST_FILE, Case, read, write
from explorer.cases.folder import DEFAULT, Folder, id_of
from explorer.cases.replay import Replay, captured, foreign, opened_rows, replay
from explorer.cases.script import bundle, slug
from explorer.errors import CaseError, ExplorerError
from explorer.session.opening import is_embedded
from explorer.ui.cases import cards
from explorer.ui.cases.cards import Drawn
from explorer.ui.hub import Hub
from explorer.ui.plain import plainly, safe
from explorer.ui.sent import sent, there
from explorer.ui.visit import Said, Told, Turn, Visit
from explorer.ui.workspace.opening import Opened, in_turn
from explorer.ui.workspace.panels import how_seen
from explorer.ui.workspace.stage import photo_uri

MOST_LISTED = 24
"""Kept cases that a browser lists; older ones open by their links."""

Verdicts = tuple[tuple[str, Replay], ...]
"""What replays gave, by the id of the case; a visitor's own."""


class Desk:
    """The actions on the cases of one page."""

    def __init__(self, hub: Hub, shipped: dict[str, Case]) -> None:
        self.session, self.opening, self.strips = hub.session, hub.opening, hub.looking.strips
        self.folder = Folder(hub.rules.cases or DEFAULT, hub.rules.read_only)
        self.shipped = shipped
        self.drawn = tuple(self._drawn(id, case) for id, case in shipped.items())

    # Open

    @plainly
    @in_turn
    def open_case(self, visit: Visit | None, event: gr.EventData) -> tuple[Any, ...]:
        """A case onto the workspace: what is opened, then the settings."""
        id = sent(event, "id")
        return self._onto(self.find(id), id)

    @plainly
    @in_turn
    def open_file(self, visit: Visit | None, path: str | None) -> tuple[Any, ...]:
        """A case from a file of the visitor's. The uploaded file is removed at once, readable or not."""
        return self._onto(_uploaded(path))

    def linked(self, request: gr.Request | None) -> Opened | None:
        """The case that the page's address asks for; None without one, and with a message for a wrong one."""
        try:
            case = self._asked(request)
            return None if case is None else self._opened(*case)
        except ExplorerError as error:
            gr.Warning(f"The link does not open: {safe(error)}.", duration=10)
            return None

    def linked_settings(self, request: gr.Request) -> Any:
        """The settings of the case that the page's address asks for."""
        with suppress(ExplorerError):
            case = self._asked(request)
            if case is not None:
                return settings.dump(case[0].settings)
        return gr.skip()

    def find(self, id: object) -> Case:
        """A shipped or a kept case. Raises CaseError when there is none."""
        if isinstance(id, str) and id in self.shipped:
            return self.shipped[id]
        return self.folder.open(id)

    def _asked(self, request: gr.Request | None) -> tuple[Case, str] | None:
        id = request.query_params.get("case") if request is not None and request.request else None
        return None if not id else (self.find(id), id)

    def _onto(self, case: Case, id: object = "") -> tuple[Any, ...]:
        return (*self._opened(case, id), settings.dump(case.settings))

    def _opened(self, case: Case, id: object) -> Opened:
        """The case on the workspace, with its bench as far as it means something here."""
        view = self.session.look(case.image())
        example = self.opening.examples.get(id) if isinstance(id, str) else None
        asked = example.questions if example else (case.question,)
        fresh = Visit(
            view, case.title, photo_uri(view.image, view.grid), asked, example.key if example else ""
        )
        shown = self.opening.opened(fresh, case.question)
        bench = [self._named(row) for row in opened_rows(self.session, view, case)]
        told = cards.story(case.title, case.notes)
        return shown._replace(
            bench={**shown.bench, "value": rows.dump(bench)},
            notices=shown.notices + cards.warnings(foreign(self.session, case, view)),
            shelf=shown.shelf if example else self.opening.shelf.html("", told, how_seen(self.session, view)),
        )

    def _named(self, row: rows.Row) -> rows.Row:
        """The row under the name that its neuron has here."""
        return row if self.session.store is None else replace(row, name=self.strips.name(row.neuron))

    # Replay

    @plainly
    def replay_one(self, mine: tuple[Drawn, ...], verdicts: Verdicts, event: gr.EventData) -> Iterator[tuple]:
        """Answer a case again, and say whether it holds: both lists, the verdicts, what stops it."""
        id = str(sent(event, "id"))
        yield from self._replayed([id], [self.find(id)], mine, verdicts)

    @plainly
    def replay_shipped(self, mine: tuple[Drawn, ...], verdicts: Verdicts) -> Iterator[tuple]:
        """The same for all shipped cases, one after another."""
        yield from self._replayed(list(self.shipped), list(self.shipped.values()), mine, verdicts)

    def _replayed(
        self, ids: list[str], cases: list[Case], mine: tuple[Drawn, ...], verdicts: Verdicts
    ) -> Iterator[tuple]:
        """Both lists, the verdicts and the turn, after each replay. What is stopped keeps its old verdict."""
        known, turn = dict(verdicts), Turn()
        cancel = turn.begin()
        try:
            for i, case in enumerate(cases):
                rest = ids[i:]
                shown = {id: verdict for id, verdict in known.items() if id not in rest}
                yield *self.lists(mine, shown, frozenset(rest)), gr.skip(), turn
                done = replay(self.session, case, cancel=cancel)
                if done is None or cancel.is_set():
                    break
                known[ids[i]] = done
            yield *self.lists(mine, known), tuple(known.items()), None
        finally:
            turn.stop()

    def halt(self, turn: Turn | None) -> None:
        """Stop the visitor's replays, if there are any."""
        if turn is not None:
            turn.stop()

    def lists(
        self, mine: tuple[Drawn, ...], known: dict[str, Replay], busy: frozenset[str] = frozenset()
    ) -> tuple[str, str]:
        """The shipped and the visitor's own cases as HTML."""
        ours = is_embedded(self.session.lvlm.model_id)
        return cards.shipped_list(self.drawn, known, busy, ours), cards.own_list(mine, known, busy)

    # Take away

    @plainly
    def case_file(self, event: gr.EventData) -> str:
        """A case as a file for the browser to save."""
        case = self.find(sent(event, "id"))
        return _download(slug(case.title) + ENDING, write(case))

    @plainly
    def case_script(self, event: gr.EventData) -> str:
        """A case as a script with its picture."""
        case = self.find(sent(event, "id"))
        return _download(f"{slug(case.title)}.zip", bundle(case))

    # Save

    @plainly
    def preview(
        self, visit: Visit | None, said: Said | None, told: Told | None, bench: object, how: object
    ) -> tuple[str, dict]:
        """What would be saved now, and the title that it would have."""
        if visit is None or said is None:
            return "", gr.skip()
        bench_rows, asked = rows.parse(bench, visit.view), settings.parse(how)
        steered = told.text if told is not None and told.prompt == said.prompt else None
        line = cards.setup(bench_rows, asked)
        photo = cards.thumbnail(visit.view.image)
        shown = cards.preview(visit.title, photo, said.prompt, said.text, steered, line)
        return shown, gr.update(placeholder=visit.title)

    @plainly
    def save_file(self, *workspace: Any) -> str:
        """The workspace as a case file for the browser to save; see `_captured` for the arguments."""
        case = self._captured(*workspace)
        return _download(slug(case.title) + ENDING, write(case))

    @plainly
    def keep(
        self, kept: object, mine: tuple[Drawn, ...], verdicts: Verdicts, *workspace: Any
    ) -> tuple[list, tuple[Drawn, ...], str, str]:
        """The workspace as a case on the server: the browser's keys, its cases, their list, and the link."""
        case = self._captured(*workspace)
        new = self.folder.keep(case)
        entries = (self._drawn(new.id, case, mine=True), *mine)[:MOST_LISTED]
        keys = [new.key, *_keys(kept)][:MOST_LISTED]
        return keys, entries, cards.own_list(entries, dict(verdicts), frozenset()), cards.link(new.id)

    def _captured(
        self,
        visit: Visit | None,
        said: Said | None,
        told: Told | None,
        bench: object,
        how: object,
        title: object,
        notes: object,
    ) -> Case:
        """What stands on the workspace. A steered answer to an older state of it is made anew."""
        view = there(visit).view
        if said is None:
            raise CaseError("the model is still answering; save it once the answer is complete")
        fits = told is not None and (told.prompt, told.bench, told.settings) == (said.prompt, bench, how)
        named = title if isinstance(title, str) and title.strip() else visit.title
        steered = told.text if fits else None
        return captured(self.session, view, named, notes, said.prompt, bench, how, said.text, steered)

    # The browser's own

    @plainly
    def listed(self, kept: object, mine: tuple[Drawn, ...], verdicts: Verdicts) -> tuple[Any, Any]:
        """The cases that this browser kept; those that are gone are left out. Read once."""
        found, keys = [], _keys(kept)[:MOST_LISTED]
        if {one.id for one in mine} == set(map(id_of, keys)):
            return gr.skip(), gr.skip()
        for key in keys:
            with suppress(ExplorerError):
                found.append(self._drawn(id_of(key), self.folder.open(id_of(key)), mine=True))
        return tuple(found), cards.own_list(found, dict(verdicts), frozenset())

    @plainly
    def remove(
        self, kept: object, mine: tuple[Drawn, ...], verdicts: Verdicts, event: gr.EventData
    ) -> tuple[list, tuple[Drawn, ...], str, str]:
        """Remove a case of this browser's from the server, and any link from the page."""
        id = sent(event, "id")
        key = next((key for key in _keys(kept) if id_of(key) == id), None)
        if key is None:
            raise CaseError("this browser did not keep that case, so it cannot remove it")
        self.folder.remove(key)
        entries = tuple(one for one in mine if one.id != id)
        keys = [other for other in _keys(kept) if other != key]
        return keys, entries, cards.own_list(entries, dict(verdicts), frozenset()), ""

    def _drawn(self, id: str, case: Case, mine: bool = False) -> Drawn:
        return cards.drawn(id, case, foreign(self.session, case), mine)


def _keys(kept: object) -> list[str]:
    """The keys that a browser holds, whatever it sent."""
    return [key for key in kept if isinstance(key, str)] if isinstance(kept, list) else []


def _download(name: str, data: bytes) -> str:
    """A file for assets/ui/case-download.js; the stamp makes the same file twice two downloads."""
    return json.dumps({"name": name, "data": base64.b64encode(data).decode(), "stamp": time.time_ns()})


def _uploaded(path: str | None) -> Case:
    """The case in an uploaded file, which is removed."""
    if not path:
        raise CaseError("no file arrived; choose a case file")
    file = Path(path)
    try:
        if not file.is_file():
            raise CaseError("the case file did not arrive; choose it once more")
        if file.stat().st_size > LARGEST_FILE:
            raise CaseError(f"the case file is larger than a case can be ({LARGEST_FILE >> 20} MB)")
        return read(file.read_bytes())
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)
