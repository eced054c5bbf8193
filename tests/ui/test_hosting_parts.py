"""The parts of hosting by themselves: messages, notices, the line at the top, uploads, leaving visitors."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch

from explorer.errors import EditError, ModelError
from explorer.sae import SAE
from explorer.sae.model import ActivationRule
from explorer.session import anyway
from explorer.session.machine import Memory, Running, device_of, memory, running
from explorer.store.manifest import UPGRADABLE
from explorer.ui import gate, health, notices, serving
from explorer.ui.hub import Rules
from explorer.ui.plain import NO_MEMORY, WRONG, guard, plainly
from explorer.ui.visit import Turn, Visit
from explorer.vlm import Choice, Loading, open_lvlm
from explorer.vlm.opening import FAMILIES
from tests.ui.fake_session import FakeSession, make_view

# Messages


class OutOfMemoryError(RuntimeError):
    """Named as torch names it."""


def failing(error: BaseException) -> Any:
    def handler() -> None:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "words", "traced"),
    [
        (EditError("neuron 9 is none"), "Neuron 9 is none", False),
        (ZeroDivisionError("division by zero in /secret/place.py"), WRONG, True),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), NO_MEMORY, True),
        (MemoryError(), NO_MEMORY, True),
    ],
)
def test_errors_become_short_messages(error: Exception, words: str, traced: bool) -> None:
    with pytest.raises(gr.Error) as caught:
        plainly(failing(error))()
    assert caught.value.message == words and "secret" not in str(caught.value)
    assert caught.value.print_exception is traced, "whether the log gets the trace"
    assert caught.value.__cause__ is error


def test_a_message_stays_and_so_does_an_end() -> None:
    said = gr.Error("mine")
    with pytest.raises(gr.Error) as caught:
        plainly(failing(said))()
    assert caught.value is said
    with pytest.raises(KeyboardInterrupt):
        plainly(failing(KeyboardInterrupt()))()


def test_a_stream_says_what_went_wrong_half_way() -> None:
    closed = []

    def handler() -> Iterator[int]:
        try:
            yield 1
            raise ValueError("inside")
        finally:
            closed.append(True)

    stream = plainly(handler)()
    assert next(stream) == 1
    with pytest.raises(gr.Error, match="Something went wrong"):
        next(stream)
    stream = plainly(handler)()
    next(stream)
    stream.close()
    assert closed == [True, True]


def test_a_guarded_page_has_no_handler_that_leaks(capfd: pytest.CaptureFixture) -> None:
    with gr.Blocks() as page:
        button = gr.Button()
        button.click(failing(ZeroDivisionError("secret")), None, None, api_name="bare")
    guard(page)
    handling = page.process_api(next(iter(page.fns.values())), [])
    with pytest.raises(gr.Error, match=WRONG), ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(asyncio.run, handling).result()  # the browser tests keep a loop on this thread


# Notices


def test_no_store_says_what_to_run_and_lets_it_be_copied() -> None:
    bare, rules = (
        FakeSession(has_store=False),
        Rules(trouble="the store <a> is old; build one with: run --out 'b'"),
    )
    shown = notices.no_store(bare, rules)  # type: ignore[arg-type]
    assert "the store &lt;a&gt; is old. " in shown and "<a>" not in shown
    assert '<code id="build-command">run --out &#x27;b&#x27;</code>' in shown and "data-copy" in shown
    usual = notices.no_store(bare, Rules())  # type: ignore[arg-type]
    assert "python -m index build --of the --fake</code>" in usual, "the session's own command"
    assert notices.no_store(FakeSession(), rules) == ""  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def set_of_files(tiny_lvlm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and an SAE for it."""
    path = tmp_path_factory.mktemp("sae") / "sae.safetensors"
    rows = torch.nn.functional.normalize(torch.randn(12, 32), dim=-1)
    rule = ActivationRule("topk", k=4)
    site = {"site_block": 2, "model_id": open_lvlm(tiny_lvlm_folder).model_id}
    SAE(rows.T.clone(), torch.zeros(12), rows, torch.zeros(32), rule, **site).save(path)
    return tiny_lvlm_folder, path


def open_anyway(*parts: Path) -> anyway.Opened:
    return anyway.open_anyway(Choice(**dict(zip(("model", "sae", "store"), parts, strict=False))))


def commanded(trouble: str) -> str:
    why, _, command = trouble.rpartition("; build one with: ")
    assert why
    return command


def test_a_session_opens_whatever_the_store_is(set_of_files: tuple[Path, Path], tmp_path: Path) -> None:
    from tests.store.store_maker import make_store

    model, sae = set_of_files
    own = f"python -m index build --model {model} --sae {sae} --images FOLDER --out"
    session, trouble = open_anyway(model, sae)
    assert session.store is None and commanded(trouble) == f"{own} stores/mine"

    session, trouble = open_anyway(model, sae, tmp_path / "none")
    assert session.store is None and trouble.startswith("there is no store at")
    assert commanded(trouble) == f"{own} {tmp_path / 'none'}"

    other = make_store(tmp_path / "other one")
    session, trouble = open_anyway(model, sae, other)
    assert session.store is None and "does not fit: its model is" in trouble and "MODEL" not in trouble
    assert commanded(trouble) == f"{own} '{other}-new'"

    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    session, trouble = open_anyway(model, sae, other)
    assert "has format 1" in trouble and commanded(trouble) == f"{own} '{other}'"

    (other / "manifest.json").write_text(json.dumps({**manifest, "format": UPGRADABLE}))
    session, trouble = open_anyway(model, sae, other)
    assert session.store is None
    assert trouble.endswith(f"; bring it up to date with: python -m index upgrade '{other}'")

    (other / "manifest.json").write_text(json.dumps(manifest))
    (other / "index.sqlite").write_bytes(b"cut short")
    session, trouble = open_anyway(model, sae, other)
    assert session.store is None and "has 9 bytes instead of" in trouble
    assert commanded(trouble) == f"{own} '{other}'"

    (tmp_path / "file").write_text("x")
    session, trouble = open_anyway(model, sae, tmp_path / "file")
    assert commanded(trouble) == f"{own} {tmp_path / 'file'}-new"
    with pytest.raises(ModelError):
        open_anyway(tmp_path / "no model", sae)


# The line at the top


def test_the_line_tells_what_the_page_runs_on() -> None:
    facts = health.Facts(
        "folder/<lvlm>@abc",
        4,
        65536,
        4000,
        Running("cuda:0", "bfloat16", "4bit"),
        Memory(3 << 30, 5 << 30, 80 << 30),
        2,
    )
    shown = health.drawn(facts)
    assert "&lt;lvlm&gt; · 65,536 neurons · 4,000 pictures · cuda:0, bfloat16, 4bit · 5.0 GiB" in shown
    assert (
        "3.0 GiB of this process, 5.0 GiB of 80.0 GiB on the device" in shown and "2 at the moment" in shown
    )
    assert "bfloat16; the language model&#x27;s matrices in 4 bits" in shown
    bare = health.drawn(
        facts._replace(
            indexed=None, running=Running("cpu", "float32"), memory=Memory(300 << 20), visitors=None
        )
    )
    assert (
        "no store · cpu, float32 · 300 MiB" in bare and "Visitors" not in bare and "on the device" not in bare
    )


def test_the_line_tells_how_the_session_was_opened_and_what_was_said_of_it() -> None:
    told = [
        "'big' needs 14 GiB",
        "note: the SAE's files name <another> model",
        "warning: the SAE was trained on the class token alone",
        "note: the SAE's files name <another> model",
    ]
    choice = Choice(model="a/b", sae="/secret/sae", quantize="4bit", try_anyway=True, sae_hint=("k=2",))
    opened = health.opening(choice, told)
    assert opened.remarks == (
        "Warning: the SAE was trained on the class token alone",
        "Note: the SAE's files name <another> model",
    )
    facts = health.Facts("b@abc", 4, 32, None, Running("cpu", "float32"), Memory(1 << 20))
    shown = health.drawn(facts._replace(family="LLaVA", pictures="crop the middle", opened=opened))
    assert "b · LLaVA · 32 neurons · no store" in shown and "<dd>crop the middle</dd>" in shown
    assert "<dd>--quantize 4bit --try-anyway --sae-hint k=2</dd>" in shown and "secret" not in shown
    assert '<span class="remarks">1 warning, 1 note</span>' in shown and "&lt;another&gt;" in shown
    assert "14 GiB" not in shown
    bare = health.drawn(facts)
    assert "remark" not in bare and "Opened with" not in bare and "Family" not in bare
    assert health.opening(Choice(), ()) == health.Opening()


def test_the_facts_of_a_session_name_family_sae_and_store(set_of_files: tuple[Path, Path]) -> None:
    session, _ = open_anyway(*set_of_files)
    known = health.facts(session)
    assert (known.family, known.store, known.pictures) == ("LLaVA", "", session.lvlm.preprocessing)
    assert known.sae == f"topk, k = 4, id {session.sae.short_id}"
    session.sae.facts["project"] = "OSU-NLP-Group/saev"
    assert "topk, k = 4, OSU-NLP-Group/saev, id " in health.drawn(health.facts(session))
    assert health.FAMILIES.keys() == FAMILIES.keys(), "every family that opens has a name"


def test_the_memory_of_this_process_is_told() -> None:
    now = memory("cpu")
    assert 50 << 20 < now.process < 1 << 40 and now.device_total is None
    rule = ActivationRule("topk", k=1)
    eye = torch.eye(4)
    assert device_of(SAE(eye, torch.zeros(4), eye, torch.zeros(4), rule)) == "cpu"


def test_how_an_opened_model_runs_is_told(set_of_files: tuple[Path, Path]) -> None:
    opened = open_lvlm(set_of_files[0], loading=Loading(dtype="bfloat16"))
    sae = SAE.load(set_of_files[1])
    assert running(opened, sae) == Running("cpu", "bfloat16")
    model = SimpleNamespace(
        device="cuda:0",
        dtype=torch.float16,
        is_loaded_in_4bit=True,
        hf_device_map={"a": 0, "b": 0, "c": 1, "d": 2},
    )
    assert running(SimpleNamespace(model=model), sae).words() == "cuda:0 and 2 more, float16, 4bit"  # type: ignore[arg-type]
    assert running(SimpleNamespace(), sae).words() == "cpu, float32"  # type: ignore[arg-type]


# Uploads and leaving


def test_old_files_are_swept_and_fresh_ones_stay(tmp_path: Path) -> None:
    for name in ("old/a.png", "fresh/b.png", "old.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    past = time.time() - 1000
    for name in ("old/a.png", "old.tmp"):
        os.utime(tmp_path / name, (past, past))
    serving.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b.png", "fresh"]
    serving.sweep(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_uploads_is_private_and_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with serving.uploads_folder() as folder:
        assert folder.parent == tmp_path and folder.stat().st_mode & 0o077 == 0
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        (folder / "left.png").write_text("x")
    assert not folder.exists() and os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)


def test_a_later_file_of_the_same_path_may_be_fetched(tmp_path: Path) -> None:
    path, sent = tmp_path / "case.json", gate.Sent()
    path.write_text("{}")
    sent.add(json.dumps([str(path)]).encode())
    assert sent.holds(str(path)) and sent.holds(f"{tmp_path}/x/../case.json")
    assert not sent.holds(str(tmp_path / "other")) and not sent.holds("a\0b")
    sent._since[os.path.realpath(path)] -= 3600
    assert not sent.holds(str(path))


class Holder(SimpleNamespace):
    """As much of the framework's keeping of visitors as leaving needs."""


def test_who_leaves_is_stopped_at_once_and_forgotten_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with gr.Blocks() as page:
        hub: Any = SimpleNamespace(page=page, states=SimpleNamespace(visit=gr.State(None)))
        serving.wire(hub)
    leave = next(iter(page.fns.values())).fn
    timers: list[tuple[float, tuple]] = []
    monkeypatch.setattr(
        serving.threading,
        "Timer",
        lambda seconds, what, args: SimpleNamespace(start=lambda: timers.append((seconds, (what, args)))),
    )
    turn = Turn()
    running = turn.begin()
    mine = Visit(make_view(), "Mine", "data:,", turn=turn)
    yours = Visit(make_view(), "Yours", "data:,", turn=Turn())
    still = yours.turn.begin()
    now = SimpleNamespace(timestamp=time.time)
    key, replays = hub.states.visit._id, Turn()
    replaying = replays.begin()
    page.state_holder = Holder(
        session_data={
            "me": SimpleNamespace(state_data={key: mine, key + 1: replays, key + 2: ()}),
            "you": SimpleNamespace(state_data={key: yours}),
        },
        time_last_used={"me": SimpleNamespace(timestamp=lambda: 0.0), "you": now},
    )
    leave(SimpleNamespace(session_hash="me"))
    assert (
        running.is_set()
        and replaying.is_set()
        and not still.is_set()
        and set(page.state_holder.session_data) == {"me", "you"}
    )
    ((seconds, (what, arguments)),) = timers
    assert seconds == serving.RETURN
    what(*arguments)
    assert set(page.state_holder.session_data) == {"you"}
    serving.forget(page, "you", time.time() - 5)
    assert set(page.state_holder.session_data) == {"you"}, "who came back since stays"
    leave(SimpleNamespace(session_hash="nobody"))
    assert len(timers) == 1
