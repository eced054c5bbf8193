"""The one door: looking, clicking, answering, editing, and keeping visitors apart."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import explorer
import explorer.session.session as door
from explorer import Edit, Session, View
from explorer.errors import EditError, ImageError, ModelError, SAEError, StoreError
from explorer.records import Wanted
from explorer.sae import SAE, ActivationRule
from explorer.store import Probe
from explorer.vlm import open_lvlm
from explorer.vlm.hooks import capture
from explorer.vlm.memory import Memory

NEURONS = 96


def make_sae(**labels: object) -> SAE:
    draw = torch.Generator().manual_seed(5)
    directions = torch.nn.functional.normalize(torch.randn(NEURONS, 32, generator=draw), dim=1)
    sae = SAE(
        directions.T, torch.zeros(NEURONS), directions, torch.zeros(32), ActivationRule("topk", k=6), **labels
    )
    return sae.eval().requires_grad_(False)


class FakeStore:
    """What a session asks of a store, without files."""

    def __init__(self) -> None:
        self.manifest = SimpleNamespace(fvu_quantile={0.995: 0.5}.__getitem__)
        self.checked: dict[str, object] = {}
        self.asked: list[tuple] = []

    def check(self, **facts: object) -> None:
        self.checked = facts

    def __getattr__(self, name: str) -> Callable[..., tuple]:
        def answer(*args: object) -> tuple:
            self.asked.append((name, *args))
            return (name, *args)

        return answer


@pytest.fixture(scope="module")
def session(tiny_lvlm_folder: Path) -> Session:
    return Session(open_lvlm(tiny_lvlm_folder), make_sae(), FakeStore())


def picture(seed: int = 0, size: tuple[int, int] = (70, 44)) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )


@pytest.fixture
def view(session: Session) -> View:
    return session.look(picture())


def dense(session: Session, view: View) -> np.ndarray:
    return session.sae.encode(view.hidden[1:]).numpy()


# ---- looking ----------------------------------------------------------------------------------------


def test_a_view_holds_what_the_model_saw(session: Session, view: View) -> None:
    assert (view.grid.rows, view.grid.cols, view.grid.width, view.grid.height) == (4, 4, 70, 44)
    assert view.image.size == (70, 44) and view.hidden.shape == (17, 32)
    z, patches = dense(session, view), view.hidden[1:]
    rebuilt = session.sae.decode(torch.from_numpy(z))
    spread = (patches - patches.mean(0)).square().sum()
    assert view.fvu == pytest.approx(float((patches - rebuilt).square().sum() / spread), rel=1e-4)


def test_map_top_and_top_at_agree_with_the_dense_activations(session: Session, view: View) -> None:
    z = dense(session, view)
    for neuron in range(NEURONS):
        got = view.map(neuron)
        assert got.shape == (4, 4) and got.dtype == np.float32
        assert np.allclose(got.ravel(), z[:, neuron], atol=1e-5)
    for pool, pooled in (("mean", z.mean(0)), ("max", z.max(0))):
        order = sorted(np.flatnonzero(pooled), key=lambda n: -pooled[n])
        got = view.top(7, pool)
        assert [activation.neuron for activation in got] == order[:7]
        assert np.allclose([activation.value for activation in got], pooled[order[:7]], atol=1e-5)
    for row, col in [(0, 0), (3, 1), (2, 3)]:
        here = z[row * 4 + col]
        assert [a.neuron for a in view.top_at(row, col, 3)] == np.argsort(-here, kind="stable")[:3].tolist()
    assert len(view.top_at(0, 0, 500)) == 6 and view.top(0) == []


def test_questions_a_view_refuses(view: View) -> None:
    for neuron in (-1, NEURONS):
        with pytest.raises(EditError, match="no neuron"):
            view.map(neuron)
    for place in [(4, 0), (0, -1)]:
        with pytest.raises(IndexError):
            view.top_at(*place)
    with pytest.raises(ValueError, match="unknown pool"):
        view.top(3, "median")


def test_a_click_runs_no_model(session: Session, view: View) -> None:
    with capture(session.lvlm.vision_blocks[0]) as tower, capture(session.lvlm.model.lm_head) as head:
        view.top(), view.top_at(1, 1), view.map(3)
    assert tower.output is None and head.output is None


def test_looking_takes_files_and_refuses_others(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture().save(path)
    assert torch.equal(session.look(path).hidden, session.look(path.read_bytes()).hidden)
    with pytest.raises(ImageError):
        session.look(b"no picture")
    assert session.answer(session.look(path), max_new_tokens=3)


# ---- answers and edits ------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [0, 1, 2])
def test_no_edits_give_the_untouched_answer(tiny_lvlm_folder: Path, block: int) -> None:
    session = Session(open_lvlm(tiny_lvlm_folder), make_sae(site_block=block))
    for seed in range(5):
        image = picture(seed, (40 + 13 * seed, 60))
        view = session.look(image)
        plain = session.lvlm.answer_plain(image, "Describe the image.", 12)
        assert session.answer(view, max_new_tokens=12) == plain
        assert (
            session.answer(view, edits=[Edit(3, 0.0, "add"), Edit(4, 1.0, "scale")], max_new_tokens=12)
            == plain
        )


def test_edits_change_answers_and_the_view_stays_as_it_was(session: Session, view: View) -> None:
    before = view.hidden.clone()
    plain = session.answer(view, max_new_tokens=12)
    changed = [session.answer(view, edits=[Edit(n, 60.0)], max_new_tokens=12) for n in range(8)]
    assert sum(text != plain for text in changed) >= 6
    assert session.answer(view, replace=True, max_new_tokens=12) != plain
    assert torch.equal(view.hidden, before) and session.answer(view, max_new_tokens=12) == plain


def test_an_edit_reaches_the_projector_exactly(session: Session, view: View) -> None:
    with capture(session.lvlm.projector) as seen:
        session.answer(view, max_new_tokens=1)
    heard: list[torch.Tensor] = []
    handle = session.lvlm.projector.register_forward_pre_hook(lambda _m, args: heard.append(args[0][0]))
    session.answer(view, max_new_tokens=1)
    session.answer(view, edits=[Edit(7, -30.0)], max_new_tokens=1)
    session.answer(view, edits=[Edit(7, -30.0)], replace=True, max_new_tokens=1)
    handle.remove()
    z = torch.from_numpy(dense(session, view))
    edited = z.clone()
    edited[:, 7] = -30.0
    assert seen.output is not None and torch.equal(heard[0], view.hidden[1:])
    assert torch.allclose(heard[1], view.hidden[1:] + (edited - z) @ session.sae.W_dec, atol=1e-4)
    assert torch.allclose(heard[2], session.sae.decode(edited), atol=1e-4)


def test_answers_together_are_those_one_by_one(session: Session, view: View) -> None:
    other = session.look(picture(4, (40, 90)))
    mask = np.zeros((4, 4), dtype=bool)
    mask[1:3, 1:3] = True
    asked = [
        (view, []),
        (view, [Edit(2, 40.0)]),
        (other, [Edit(9, -40.0, "add", "active"), Edit(3, 30.0)]),
        (other, []),
        (view, (Edit(5, 60.0, "set", mask),)),
    ]
    for options in ({}, {"replace": True}, {"prompt": "the red dog"}, {"prompt": ""}):
        alone = [session.answer(seen, edits=edits, max_new_tokens=10, **options) for seen, edits in asked]
        assert session.answers(asked, max_new_tokens=10, **options) == alone and len(set(alone)) > 2
        backwards = session.answers(asked[::-1], max_new_tokens=10, **options)
        assert backwards == alone[::-1] and not session._line.busy


def test_answers_to_nothing_and_to_wrong_edits(session: Session, view: View) -> None:
    before = view.hidden.clone()
    assert session.answers([]) == []
    with pytest.raises(EditError, match="no neuron 96"):
        session.answers([(view, []), (view, [Edit(1, 5.0), Edit(NEURONS, 1.0)])])
    with pytest.raises(EditError, match="the mask has 2 x 2"):
        session.answers([(view, [Edit(1, 1.0, "set", np.ones((2, 2), dtype=bool))])])
    with pytest.raises(ModelError, match="may not contain"):
        session.answers([(view, [])], "what is <image>?")
    assert not session._line.busy and torch.equal(view.hidden, before)


def test_streams_equal_answers(session: Session, view: View) -> None:
    for edits in ([], [Edit(2, 40.0), Edit(9, -40.0, "add", "active")]):
        fresh = replace(view, memory=Memory())
        texts = list(session.stream(fresh, edits=edits, max_new_tokens=10))
        assert texts[-1] == session.answer(view, edits=edits, max_new_tokens=10) and len(texts) > 5
        assert list(session.stream(fresh, edits=edits, max_new_tokens=10)) == texts[-1:]


def test_bad_edits_and_prompts_are_refused_at_once_and_the_session_goes_on(
    session: Session, view: View
) -> None:
    bad = [Edit(NEURONS, 1.0)]
    with pytest.raises(EditError, match="no neuron 96"):
        session.answer(view, edits=bad)
    with pytest.raises(EditError, match="no neuron 96"):
        session.stream(view, edits=bad)
    with pytest.raises(EditError, match="the mask has 2 x 2"):
        session.answer(view, edits=[Edit(1, 1.0, "set", np.ones((2, 2), dtype=bool))])
    with pytest.raises(ModelError, match="may not contain"):
        session.answer(view, "what is <image>?")
    with pytest.raises(ModelError, match="may not contain"):
        list(session.stream(view, "what is <image>?"))
    assert session.answer(view, max_new_tokens=4) and not session._line.busy


def test_hooks_and_lock_are_free_after_success_error_and_cancellation(session: Session, view: View) -> None:
    def hooks() -> dict[str, int]:
        return {name: len(module._forward_hooks) for name, module in session.lvlm.model.named_modules()}

    before = hooks()
    session.look(picture(1))
    session.answer(view, edits=[Edit(1, 5.0)], max_new_tokens=3)
    with pytest.raises(ModelError):
        session.answer(view, "<image>")
    stream = session.stream(view, edits=[Edit(1, 5.0)], max_new_tokens=150)
    next(stream)
    stream.close()
    assert hooks() == before and not session._line.busy


def test_a_cancelled_generation_stops_early_and_frees_the_model(session: Session, view: View) -> None:
    cancel, texts = threading.Event(), []
    for text in session.stream(view, max_new_tokens=200, cancel=cancel):
        texts.append(text)
        cancel.set()
    assert len(texts[-1].split()) < 150 and not session._line.busy
    assert session.answer(view, cancel=cancel) == ""


def test_one_who_waits_can_be_cancelled_without_having_the_model(session: Session, view: View) -> None:
    with session.turn():
        waiting = session.stream(view, max_new_tokens=5)
        done = threading.Event()
        thread = threading.Thread(target=lambda: (list(waiting), done.set()))
        cancel = threading.Event()
        other = ThreadPoolExecutor(1).submit(session.answer, view, max_new_tokens=5, cancel=cancel)
        thread.start()
        time.sleep(0.05)
        assert not other.done() and not done.is_set()
        cancel.set()
        assert other.result(timeout=5) == ""
    thread.join(timeout=20)
    assert done.is_set()


def test_two_streams_in_one_thread_do_not_block_each_other(session: Session, view: View) -> None:
    first, second = session.stream(view, max_new_tokens=6), session.stream(view, max_new_tokens=6)
    one, other = [next(first)], [next(second)]
    assert [*one, *first][-1] == [*other, *second][-1] == session.answer(view, max_new_tokens=6)


def test_visitors_get_what_they_would_get_alone(session: Session) -> None:
    def visit(number: int) -> list[str]:
        view = session.look(picture(number % 3))
        edits = [Edit(number, 50.0), Edit(number + 20, -40.0)] if number else []
        return [
            session.answer(view, edits=edits, max_new_tokens=8),
            *session.stream(view, edits=edits, max_new_tokens=8),
        ]

    alone = [visit(number) for number in range(6)]
    assert len({texts[0] for texts in alone}) > 3
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(visit, range(6))) == alone


# ---- parts that must fit ----------------------------------------------------------------------------


def test_the_store_is_checked_and_asked(session: Session, view: View) -> None:
    facts = {"model_id": session.lvlm.model_id, "block": 2, "sae_id": session.sae.id, "n_neurons": NEURONS}
    facts["preprocessing"] = session.lvlm.preprocessing
    assert session.store.checked == facts
    assert session.exemplars(3) == ("exemplars", 3) and session.summary(3) == ("summary", 3)
    assert session.summaries([1, 2]) == ("summaries", [1, 2]) and session.similar(3, 4) == ("similar", 3, 4)
    assert session.find("fork", k=2) == ("find", "fork", 2)
    for name in ("interval_exemplars", "labels", "words", "partners", "note"):
        assert getattr(session, name)(3) == (name, 3)
    assert session.search("wine", 5) == ("search", "wine", 5)
    assert session.histogram(3, "active") == ("histogram", 3, "active")
    assert session.familiar(view) == (view.fvu <= 0.5)


def test_the_gallery_is_the_stores(session: Session) -> None:
    wanted = Wanted(text="cake", sort="peak")
    assert session.browse(wanted) == ("browse", wanted, 0, 24)
    assert session.browse(wanted, 48, 12) == ("browse", wanted, 48, 12)
    for name in ("class_counts", "label_counts", "overview", "lists", "export_notes"):
        assert getattr(session, name)() == (name,)
    assert session.random_neuron() == ("random_neuron", None) and session.random_neuron(7) == (
        "random_neuron",
        7,
    )
    assert session.notes() == ("notes", None) and session.notes([3]) == ("notes", [3])
    assert session.lists_of(3) == ("lists_of", 3)
    assert session.store.asked[-1] == ("lists_of", 3)
    session.add_to_list("tables", 3)
    session.remove_from_list("tables", 4)
    session.set_note(5, "fork", "a note")
    assert session.store.asked[-3:] == [
        ("add_to_list", "tables", 3),
        ("remove_from_list", "tables", 4),
        ("set_note", 5, "fork", "a note"),
    ]


def test_a_search_by_picture_or_patches_asks_with_the_mean_vector(session: Session, view: View) -> None:
    patches = view.hidden[1:].numpy()
    name, vector, k = session.by_picture(view, 4)
    assert (name, k) == ("by_picture", 4) and np.allclose(vector, patches.mean(0), atol=1e-6)
    marked = np.zeros((4, 4), dtype=bool)
    marked[1, 2] = marked[3, 0] = True
    name, vector, k = session.by_patches(view, marked, 6)
    assert (name, k) == ("by_patch", 6) and np.allclose(vector, patches[[6, 12]].mean(0), atol=1e-6)
    for wrong in (np.zeros((4, 4), dtype=bool), marked[:3], marked.astype(int)):
        with pytest.raises(EditError, match=r"\(4, 4\) boolean mask"):
            session.by_patches(view, wrong)


def test_where_gives_the_patches_of_a_concept_and_their_neighbours(session: Session) -> None:
    # Dimension 0 of a patch says cake, dimension 1 wine glass; the last row stands for neither.
    weight = np.zeros((4, 32), dtype=np.float32)
    weight[0, 0] = weight[1, 1] = 1.0
    probe = Probe(
        ("cake", "wine_glass", "zebra"), weight, np.array([0.0, 0.0, -np.inf, 0.5], dtype=np.float32)
    )
    store = FakeStore()
    store.probe, store.concepts = lambda: probe, lambda: ["cake", "wine_glass"]
    knowing = Session(session.lvlm, session.sae, store)
    seen = knowing.look(picture())
    hidden = torch.zeros(17, 32)
    hidden[0, 0] = 9.0  # the CLS token is no patch
    hidden[1 + 0 * 4 + 0, 0] = 2.0  # cake at (0, 0)
    hidden[1 + 2 * 4 + 3, 0] = 2.0  # cake at (2, 3): the row below does not start beside it
    hidden[1 + 2 * 4 + 1, 1] = 2.0  # wine glass at (2, 1)
    seen = replace(seen, hidden=hidden)
    cake = knowing.where(seen, "cake")
    assert cake.dtype == bool and cake.shape == (4, 4)
    expected = {(0, 0), (0, 1), (1, 0), (2, 3), (1, 3), (3, 3), (2, 2)}
    assert set(map(tuple, np.argwhere(cake).tolist())) == expected
    glass = {(2, 1), (1, 1), (3, 1), (2, 0), (2, 2)}
    for words in ("wine_glass", " Wine  Glass"):
        assert set(map(tuple, np.argwhere(knowing.where(seen, words)).tolist())) == glass
    assert not knowing.where(seen, "zebra").any()
    with pytest.raises(
        StoreError, match=r"where 'unicorn' is; it knows 2 concepts, such as cake, wine_glass$"
    ):
        knowing.where(seen, "unicorn")


def test_a_store_without_truth_cannot_tell_where_a_concept_is(session: Session, view: View) -> None:
    store = FakeStore()
    store.probe, store.concepts = lambda: None, lambda: []
    with pytest.raises(StoreError, match="cannot tell where 'cake' is; it knows no concepts, its source had"):
        Session(session.lvlm, session.sae, store).where(view, "cake")


def test_familiar_follows_the_stores_quantile(session: Session, view: View) -> None:
    store = FakeStore()
    other = Session(session.lvlm, session.sae, store)
    for limit, expected in ((view.fvu * 0.99, False), (view.fvu, True)):
        store.manifest.fvu_quantile = {0.995: limit}.__getitem__
        assert other.familiar(view) is expected


def test_without_a_store_the_command_is_told(session: Session, view: View) -> None:
    bare = Session(session.lvlm, session.sae)
    assert bare.answer(view, max_new_tokens=2)
    for call in (
        lambda: bare.exemplars(0),
        lambda: bare.find("fork"),
        lambda: bare.search("fork"),
        lambda: bare.set_note(3, "fork"),
        lambda: bare.browse(Wanted()),
        bare.class_counts,
        bare.label_counts,
        bare.overview,
        bare.random_neuron,
        bare.lists,
        bare.notes,
        bare.export_notes,
        lambda: bare.lists_of(3),
        lambda: bare.add_to_list("tables", 3),
        lambda: bare.remove_from_list("tables", 3),
        lambda: bare.by_picture(view),
        lambda: bare.familiar(view),
        lambda: bare.where(view, "fork"),
    ):
        with pytest.raises(StoreError, match=r"python -m index build --model MODEL --sae SAE --images"):
            call()


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ({"site_block": 3}, ModelError, "cannot matter"),
        ({"site_block": 11}, ModelError, "no block 11"),
        ({"model_id": "other@0123456789ab"}, SAEError, "trained on the model other@"),
    ],
)
def test_an_sae_of_another_place_or_model_is_refused(
    session: Session, labels: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Session(session.lvlm, make_sae(**labels))


def test_an_sae_of_another_width_is_refused_and_a_moved_model_is_not(session: Session) -> None:
    narrow = SAE(torch.randn(8, 16), torch.zeros(16), torch.randn(16, 8), torch.zeros(8), ActivationRule())
    with pytest.raises(SAEError, match=r"vectors of width 8, but block 2 .* gives 32"):
        Session(session.lvlm, narrow)
    digest = session.lvlm.model_id.partition("@")[2]
    assert Session(session.lvlm, make_sae(model_id=f"elsewhere@{digest}")).block == 2


def test_open_from_files(tiny_lvlm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sae.safetensors"
    make_sae(site_block=1).save(path)
    session = Session.open(model=tiny_lvlm_folder, sae=path)
    assert (
        session.block == 1
        and session.store is None
        and session.answer(session.look(picture()), max_new_tokens=2)
    )
    for where, name in (
        (tiny_lvlm_folder, "EMBEDDED_MODEL"),
        (path, "EMBEDDED_SAE"),
        (tmp_path / "no", "EMBEDDED_STORE"),
    ):
        monkeypatch.setattr(door, name, where)
    assert Session.open().store is None
    with pytest.raises(StoreError):
        Session.open(store=tmp_path / "no")
    with pytest.raises(SAEError):
        Session.open(sae=tmp_path / "no.safetensors")
    with pytest.raises(ModelError):
        Session.open(model=tmp_path / "no")
    with pytest.raises(ModelError, match="unknown device"):
        Session.open(device="warp")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "manifest.json").write_text('{"format": 1, "source": "train scenes, seeds 0 to 9"}')
    monkeypatch.setattr(door, "EMBEDDED_STORE", tmp_path / "old")
    with pytest.raises(StoreError, match=r"has format 1, .*: python -m index build --scenes 4000 --out"):
        Session.open()


def test_records_and_pictures_come_without_torch() -> None:
    code = "import sys, explorer; explorer.Edit(1, 2.0); explorer.load_image; print('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert set(explorer.__all__) <= set(dir(explorer)) and explorer.Session is door.Session
    with pytest.raises(AttributeError, match="no attribute 'Sesion'"):
        _ = explorer.Sesion
