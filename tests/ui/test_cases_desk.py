"""The cases tab's actions: opening, replaying, saving, keeping, links, and what a browser may not do."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from explorer.cases import rows
from explorer.cases import settings as how
from explorer.cases.case import Case, read, write
from explorer.cases.examples import load_examples
from explorer.cases.folder import id_of
from explorer.cases.replay import Replay
from explorer.cases.rows import Row
from explorer.cases.settings import Settings
from explorer.cases.shipped import load_shipped
from explorer.sae import load_sae
from explorer.session import Session
from explorer.session.session import EMBEDDED_MODEL, EMBEDDED_SAE
from explorer.ui import page
from explorer.ui.cases import cards
from explorer.ui.cases.desk import Desk
from explorer.ui.hub import Rules
from explorer.ui.visit import Said, Told, Visit
from explorer.ui.workspace.looking import Looking
from explorer.ui.workspace.opening import Opened, Opening
from explorer.ui.workspace.steering import Steering
from explorer.vlm import open_lvlm

SHIPPED = load_shipped()
FORK = SHIPPED["phantom-fork"]


def event(**data: object) -> gr.EventData:
    return gr.EventData(None, data)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(open_lvlm(EMBEDDED_MODEL), load_sae(EMBEDDED_SAE))


@pytest.fixture(scope="module")
def opening(session: Session) -> Opening:
    looking = Looking(session)
    return Opening(looking, Steering(session, looking.strips), load_examples())


@pytest.fixture
def desk(session: Session, opening: Opening, tmp_path: Path) -> Desk:
    return make_desk(session, opening, Rules(cases=tmp_path / "kept"))


def make_desk(session: Session, opening: Opening, rules: Rules) -> Desk:
    hub = SimpleNamespace(session=session, opening=opening, looking=opening.looking, rules=rules)
    return Desk(hub, SHIPPED)  # type: ignore[arg-type]


@pytest.fixture
def workspace(opening: Opening) -> list[Any]:
    """What the page hands to saving: the fork, steered; then a title and notes."""
    visit = opening.example("phantom-fork").visit
    said = Said(FORK.question, FORK.baseline)
    told = Told(FORK.question, FORK.bench, how.dump(FORK.settings), FORK.steered or "")
    return [visit, said, told, FORK.bench, how.dump(FORK.settings), "My fork", "Look.\nTry."]


def split(found: tuple) -> tuple[Opened, Settings]:
    return Opened(*found[:-1]), how.parse(found[-1])


def saved(download: str) -> tuple[str, bytes]:
    file = json.loads(download)
    return file["name"], base64.b64decode(file["data"])


def address(**query: str) -> gr.Request:
    return gr.Request(SimpleNamespace(query_params=query))  # type: ignore[arg-type]


def test_a_story_opens_with_all_that_it_has(desk: Desk) -> None:
    opened, asked = split(desk.open_case(None, event(id="bird-alone")))
    case = SHIPPED["bird-alone"]
    assert (opened.visit.title, opened.visit.example, opened.prompt) == (
        case.title,
        "bird-alone",
        case.question,
    )
    assert 'aria-pressed="true"' in opened.shelf and asked == case.settings
    bench = rows.parse(opened.bench["value"], opened.visit.view)
    assert [(row.neuron, row.value, row.region) for row in bench] == [
        (row.neuron, 50.0, "marked") for row in case.rows
    ]
    assert "made elsewhere" not in opened.notices


def test_opening_stops_the_former_answer(desk: Desk, opening: Opening) -> None:
    former = opening.example("farmyard").visit
    cancel = former.turn.begin()
    desk.open_case(former, event(id="phantom-fork"))
    assert cancel.is_set()


@pytest.mark.parametrize("id", [None, 7, "", "no-such", "../phantom-fork", "a" * 24, {"x": 1}])
def test_no_other_case_opens_replays_or_downloads(desk: Desk, id: object) -> None:
    for action in (
        lambda: desk.open_case(None, event(id=id)),
        lambda: list(desk.replay_one((), (), event(id=id))),
        lambda: desk.case_file(event(id=id)),
        lambda: desk.case_script(event(id=id)),
        lambda: desk.remove([], (), (), event(id=id)),
    ):
        with pytest.raises(gr.Error):
            action()


def test_a_replay_marks_its_card_busy_and_then_tells(desk: Desk) -> None:
    first, last = desk.replay_one((), (), event(id="lone-sheep"))
    assert "replaying" in first[0] and first[0].count("<article") == len(SHIPPED)
    assert '<span class="verdict held" role="status">holds</span>' in last[0]
    assert "1 of 1 replayed hold" in last[0] and last[2][0][1].holds


def test_a_replay_can_be_stopped_and_keeps_what_was_known(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = (("lone-sheep", Replay(True, True, "a", "b", ("The steered answer differs.",))),)
    steps = desk.replay_shipped((), known)
    first = next(steps)
    assert first[0].count(">Stop</button>") == len(SHIPPED) and "Stop replaying" in first[0]
    assert "answers differ" not in first[0] and "case_all" not in first[0]
    second, turn = next(steps), first[3]
    assert "1 of 1 replayed hold" in second[0]
    desk.halt(turn)
    asked: list[object] = []
    monkeypatch.setattr(desk.session.lvlm, "decode", lambda *_, **__: asked.append("the model"))
    (last,) = steps
    assert not asked and "Stop" not in last[0] and "answers differ" in last[0] and "case_all" in last[0]
    verdicts = dict(last[2])
    assert verdicts["lone-sheep"] is known[0][1] and len(verdicts) == 2 and last[3] is None
    desk.halt(None)


def test_leaving_a_replay_stops_it(desk: Desk) -> None:
    steps = desk.replay_one((), (), event(id="lone-sheep"))
    cancel = next(steps)[3]._cancel
    steps.close()
    assert cancel.is_set()


def test_all_stories_replay_one_after_another(desk: Desk) -> None:
    steps = list(desk.replay_shipped((), ()))
    assert [step[0].count("replaying …") for step in steps] == [*range(len(SHIPPED), -1, -1)]
    assert f"{len(SHIPPED)} of {len(SHIPPED)} replayed hold" in steps[-1][0]


def test_a_broken_case_shows_what_is_said_now(desk: Desk, session: Session) -> None:
    kept = desk.folder.keep(replace(FORK, steered="A dining table with a cat."))
    mine, _ = desk.listed([kept.key], (), ())
    *_, (shipped, own, verdicts, _) = desk.replay_one(mine, (), event(id=kept.id))
    assert "answers differ" in own and "answers differ" not in shipped
    assert "The steered answer differs." in own and "<ins>cake</ins>" in own
    assert dict(verdicts)[kept.id].steered == FORK.steered


def test_the_workspace_is_saved_as_it_stands(desk: Desk, session: Session, workspace: list[Any]) -> None:
    name, data = saved(desk.save_file(*workspace))
    case = read(data)
    assert name == "my-fork.case.json" and (case.title, case.notes) == ("My fork", "Look.\nTry.")
    assert (case.rows, case.settings, case.steered) == (FORK.rows, FORK.settings, FORK.steered)
    assert replay_holds(session, case)


def replay_holds(session: Session, case: Case) -> bool:
    from explorer.cases.replay import replay

    return replay(session, case).holds


def test_a_steered_answer_that_is_not_there_yet_is_made(
    desk: Desk, session: Session, workspace: list
) -> None:
    workspace[2] = None
    assert read(saved(desk.save_file(*workspace))[1]).steered == FORK.steered
    workspace[2] = Told(FORK.question, "[]", how.dump(FORK.settings), "of an older bench")
    assert read(saved(desk.save_file(*workspace))[1]).steered == FORK.steered
    workspace[5] = "  "
    assert read(saved(desk.save_file(*workspace))[1]).title == "Phantom fork", "the picture's name"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, None),
        (1, None),
        (3, "{"),
        (3, json.dumps([{"neuron": 10**6}])),
        (4, '{"x": 1}'),
        (5, "x" * 99),
        (6, 5),
    ],
)
def test_what_cannot_be_saved_is_refused_in_words(
    desk: Desk, workspace: list, place: int, value: object
) -> None:
    workspace[place] = value
    with pytest.raises(gr.Error):
        desk.save_file(*workspace)
    with pytest.raises(gr.Error):
        desk.keep([], (), (), *workspace)
    assert desk.folder.ids() == []


def test_a_kept_case_is_listed_linked_opened_and_removed(desk: Desk, workspace: list[Any]) -> None:
    keys, mine, own, link = desk.keep([], (), (), *workspace)
    (id,) = desk.folder.ids()
    assert keys and id_of(keys[0]) == id and f"?case={id}" in link and "My fork" in own
    again, _ = desk.listed(keys, (), ())
    assert [one.id for one in again] == [id] == [one.id for one in mine]
    opened = desk.linked(address(case=id))
    assert opened is not None and opened.visit.title == "My fork" and "Look.<br>Try." in opened.shelf
    assert how.parse(desk.linked_settings(address(case=id))) == FORK.settings
    with pytest.raises(gr.Error, match="did not keep"):
        desk.remove([], mine, (), event(id=id))
    assert desk.remove(keys, mine, (), event(id=id)) == ([], (), "", "")
    assert desk.folder.ids() == []


def test_links_to_stories_and_to_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: said.append(text))
    assert desk.linked(address()) is None and desk.linked(None) is None and said == []
    opened = desk.linked(address(case="fading-camera"))
    assert opened is not None and opened.visit.example == "fading-camera"
    assert desk.linked(address(case="b" * 24)) is None and "no case" in said[0]
    assert desk.linked_settings(address(case="nonsense")) == gr.skip()
    assert desk.linked_settings(address()) == gr.skip()


@pytest.mark.parametrize("kept", [None, 5, "x", {}, [None, 3, "short", "a" * 32], [["x"]]])
def test_a_browser_s_list_may_hold_anything(desk: Desk, kept: object) -> None:
    desk.listed(kept, (), ())
    assert desk.listed(kept, (cards.drawn("x", FORK),), ())[0] == ()


def test_a_read_only_page_keeps_nothing(
    session: Session, opening: Opening, tmp_path: Path, workspace: list
) -> None:
    desk = make_desk(session, opening, Rules(read_only=True, cases=tmp_path / "kept"))
    with pytest.raises(gr.Error, match="read-only"):
        desk.keep([], (), (), *workspace)
    assert not (tmp_path / "kept").exists()
    assert read(saved(desk.save_file(*workspace))[1]).title == "My fork"


@pytest.mark.parametrize("read_only", [True, False])
def test_keeping_is_offered_where_it_is_allowed(session: Session, read_only: bool) -> None:
    config = page.build(session, Rules(read_only=read_only)).get_config_file()
    shown = {
        one["props"].get("value"): one["props"].get("visible")
        for one in config["components"]
        if one["type"] == "button"
    }
    assert shown["Keep on this server"] is not read_only and shown["Download as file"]


def test_an_uploaded_case_opens_and_is_not_kept(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "a.case.json"
    file.write_bytes(write(replace(FORK, title="<b>Sent</b>", settings=Settings(method="vcd"))))
    opened, asked = split(desk.open_file(None, str(file)))
    assert asked.method == "vcd" and opened.visit.example == "" and "&lt;b&gt;Sent" in opened.shelf
    assert not file.exists()


@pytest.mark.parametrize("data", [b"", b"{", b"\x89PNG", b"[" * 90_000])
def test_a_bad_upload_is_refused_and_not_kept(desk: Desk, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "a.case.json"
    file.write_bytes(data)
    with pytest.raises(gr.Error):
        desk.open_file(None, str(file))
    assert not file.exists()
    for missing in (None, "", str(file)):
        with pytest.raises(gr.Error, match="arrive"):
            desk.open_file(None, missing)


def test_a_case_from_elsewhere_says_what_will_differ(desk: Desk, tmp_path: Path) -> None:
    other = replace(FORK, identity=replace(FORK.identity, model="big@123", sae="other"))
    file = tmp_path / "a.case.json"
    file.write_bytes(write(other))
    opened, _ = split(desk.open_file(None, str(file)))
    assert "The case is of the model big (123)" in opened.notices and "bench is left out" in opened.notices
    assert opened.bench["value"] == "[]"
    assert "made elsewhere" in cards.card(cards.drawn("x", other, ("It differs.",)))


def test_files_and_scripts_carry_the_case(desk: Desk) -> None:
    name, data = saved(desk.case_file(event(id="lone-sheep")))
    assert name == "lone-sheep.case.json" and read(data) == SHIPPED["lone-sheep"]
    name, data = saved(desk.case_script(event(id="lone-sheep")))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert name == "lone-sheep.zip" and len(archive.namelist()) == 2


def test_the_preview_shows_what_would_be_saved(desk: Desk, workspace: list[Any]) -> None:
    shown, title = desk.preview(*workspace[:5])
    assert "pizza 191 set to -30 where it fires" in shown and "<del>" in shown
    assert title["placeholder"] == "Phantom fork"
    assert desk.preview(None, None, None, "", "")[0] == ""
    resting, _ = desk.preview(workspace[0], workspace[1], None, "[]", "")
    assert "Nothing steered." in resting and "setup" not in resting


def test_nothing_of_a_case_becomes_markup() -> None:
    nasty = '<img src=x onerror="alert(1)">'
    row = Row(3, nasty, 1.0, 2.0, region="seen", patches=(), concept=nasty)
    case = replace(FORK, title=nasty, notes=nasty, question=nasty, baseline=nasty, steered=nasty, rows=(row,))
    verdict = Replay(True, True, nasty + "1", nasty + "2", (nasty,))
    drawn = cards.drawn("x", case, (nasty,), mine=True)
    visit_like = cards.preview(nasty, "data:", nasty, nasty, nasty, nasty)
    for html in (cards.card(drawn), cards.card(drawn, verdict), visit_like, cards.story(nasty, nasty)):
        assert "<img src=x" not in html and "&lt;img" in html
    assert "<img" not in cards.warnings([nasty])


def test_a_line_says_what_was_set_up() -> None:
    many = [Row(n, f"name {n}", 1.0, 1.5, "scale", "all") for n in range(4)]
    asked = Settings(cns=True, replace=True, method="vcd", temperature=0.7, seed=4)
    line = cards.setup(many, asked)
    assert line.startswith(
        "name 0 times 1.5 everywhere · name 1 times 1.5 everywhere and 2 more · CNS, step 500"
    )
    assert line.endswith("the SAE's reconstruction · VCD · sampled at 0.7, seed 4")
    assert cards.setup([Row(1, "", 0.0)], Settings()) == cards.NOTHING


def test_two_visitors_share_nothing(desk: Desk, workspace: list[Any]) -> None:
    keys, _, own, _ = desk.keep([], (), (), *workspace)
    other, listed = desk.listed([], (), ())
    assert "My fork" in own and "My fork" not in str((other, listed))
    assert isinstance(workspace[0], Visit) and keys
