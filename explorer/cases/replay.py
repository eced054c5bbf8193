"""Making a case from a session, and replaying one: do model and SAE match, and do both answers still hold?

A case of another model can be replayed too: its question is asked of the model at hand. A bench only means
something to the SAE that it was set up on, so it is left out where that differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from explorer.cases import rows, settings
from explorer.cases.case import Case, Identity, clean_notes, clean_title, png
from explorer.cases.rows import Row
from explorer.errors import ExplorerError, StoreError
from explorer.records import Cancel, Cell, Edit, Grid
from explorer.session import Session, View


@dataclass(frozen=True)
class Replay:
    """What became of a case on a session.

    same_model, same_sae: whether they are those of the case; baseline, steered: what is answered now, None
    where nothing was (or where it could not be); differences: what is not as it was, one sentence each.
    """

    same_model: bool
    same_sae: bool
    baseline: str
    steered: str | None
    differences: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether both answers are, word for word, those of the case, and nothing else differs."""
        return not self.differences


def identity_of(session: Session, view: View) -> Identity:
    """What answers on this picture are made on."""
    grid = view.grid
    return Identity(
        *(session.lvlm.model_id, session.block, grid.rows, grid.cols),
        *(session.sae.id, view.n_neurons),
    )


def captured(
    session: Session,
    view: View,
    title: object,
    notes: object,
    question: str,
    bench: object,
    how: object,
    baseline: str,
    steered: str | None = None,
) -> Case:
    """What stands on a workspace as a case. Raises ExplorerError for what fits no case.

    bench, how: JSON of the bench and the settings, checked here; baseline: the untouched answer to the
    question; steered: the steered one, None to have it made if bench or settings ask for one.
    """
    case = Case(
        title=clean_title(title),
        notes=clean_notes(notes),
        identity=identity_of(session, view),
        question=question,
        rows=tuple(_located(session, view, row) for row in rows.parse(bench, view)),
        settings=settings.parse(how),
        baseline=baseline,
        steered=steered,
        picture=png(view.image),
    )
    if not case.steers:
        return replace(case, steered=None)
    return case if steered is not None else replace(case, steered=steered_answer(session, view, case))


def replay(
    session: Session, case: Case, view: View | None = None, cancel: Cancel | None = None
) -> Replay | None:
    """Answer again, and compare; None when cancelled.

    view: the case's picture, where it was looked at already; cancel: ends it between two words of an answer.
    """
    seen = session.look(case.image()) if view is None else view
    same_model, same_sae = matches(session, case, seen)
    differences = list(foreign(session, case, seen))
    baseline = session.answer(seen, case.question, cancel=cancel, **case.settings.plain().options())
    steered = None
    if case.steered is not None or case.steers:
        try:
            steered = steered_answer(session, seen, case if same_sae else replace(case, rows=()), cancel)
        except ExplorerError as error:
            differences.append(f"The steered answer cannot be made here: {error}.")
    if cancel is not None and cancel.is_set():
        return None
    if baseline != case.baseline:
        differences.append("The untouched answer differs.")
    if steered is not None and steered != case.steered:
        differences.append("The steered answer differs.")
    return Replay(same_model, same_sae, baseline, steered, tuple(differences))


def steered_answer(session: Session, view: View, case: Case, cancel: Cancel | None = None) -> str:
    """The case's steered answer, made anew. Raises ExplorerError for what does not fit the session."""
    edits, how = edits_of(case.rows, view.grid), case.settings.options()
    return session.answer(view, case.question, edits, cancel=cancel, **how)


def matches(session: Session, case: Case, view: View | None = None) -> tuple[bool, bool]:
    """Whether the session has the case's model, and its SAE at the same block and, with a view of the case's
    picture, on the same grid of patches."""
    known = case.identity
    same_model = _weights(known.model) == _weights(session.lvlm.model_id)
    there, here = (known.sae, known.block), (session.sae.id, session.block)
    if view is not None:
        there += (known.neurons, known.rows, known.cols)
        here += (view.n_neurons, view.grid.rows, view.grid.cols)
    return same_model, same_model and there == here


def foreign(session: Session, case: Case, view: View | None = None) -> tuple[str, ...]:
    """How the session's model and SAE differ from the case's, one sentence each; nothing when they do not."""
    same_model, same_sae = matches(session, case, view)
    said = []
    if not same_model:
        here, there = session.lvlm.model_id, case.identity.model
        said.append(f"The case is of the model {_short(there)}; this page runs {_short(here)}.")
    if not same_sae and case.rows:
        said.append("Its neurons are those of another SAE, so its bench is left out.")
    elif not same_sae and same_model:
        said.append("It was made beside another SAE.")
    return tuple(said)


def edits_of(bench: Sequence[Row], grid: Grid) -> list[Edit]:
    """The edits of a case's bench: "seen" is where the concept was seen when the case was made."""
    found: list[Edit] = []
    for row in bench:
        mask = mask_of(row.patches, grid)
        found += rows.edits([row], grid, lambda _, mask=mask: mask)
    return found


def mask_of(patches: Sequence[Cell], grid: Grid) -> np.ndarray:
    """Patches as (rows, cols) bool."""
    mask = np.zeros((grid.rows, grid.cols), np.bool_)
    for cell in patches:
        mask[cell.row, cell.col] = True
    return mask


def opened_rows(session: Session, view: View, case: Case) -> tuple[Row, ...]:
    """The case's bench as it acts on this session: none of another SAE's, and "seen" only where this store
    sees the concept at the same patches; elsewhere they count as marked."""
    if not matches(session, case, view)[1]:
        return ()
    return tuple(_kept_place(session, view, row) for row in case.rows)


def _kept_place(session: Session, view: View, row: Row) -> Row:
    if row.region != "seen":
        return row
    try:
        same = np.array_equal(session.where(view, row.concept), mask_of(row.patches, view.grid))
    except StoreError:
        same = False
    if same:
        return replace(row, patches=())
    if row.patches:
        return replace(row, region="marked")
    return replace(row, region="active", value=None)


def _located(session: Session, view: View, row: Row) -> Row:
    """The row with the patches where its concept is seen, if those are its region."""
    if row.region != "seen":
        return row
    seen = np.argwhere(session.where(view, row.concept))
    return replace(row, patches=tuple(Cell(int(r), int(c)) for r, c in seen))


def _weights(model_id: str) -> str:
    """The part of a model's id that follows its weights, wherever its folder lies."""
    return model_id.rpartition("@")[2]


def _short(model_id: str) -> str:
    name, _, weights = model_id.rpartition("@")
    return f"{name} ({weights[:8]})" if name else weights
