"""What programs may ask: each endpoint on a made-up store and a model made of words; one live server."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from explorer.errors import ExplorerError
from explorer.images import load_image
from explorer.records import Edit
from explorer.session import View
from explorer.session.stored import Stored
from explorer.store import Store
from explorer.store.synthetic import synthetic_store
from explorer.ui import api
from explorer.ui.plain import guard
from tests.ui.fake_session import NEURONS, make_view

EXAMPLE = "orange"


class Session(Stored):
    """The made-up store; any edit takes the fork out of the answer."""

    def __init__(self, store: Store | None) -> None:
        self.store = store
        self.sae = SimpleNamespace(n_neurons=NEURONS)
        model = SimpleNamespace(device="cuda:0", dtype="torch.bfloat16", is_loaded_in_8bit=True)
        self.lvlm = SimpleNamespace(default_prompt="Describe the image.", model_id="a@b", model=model)
        self.block = 7
        self.asked: list[tuple[str | None, Sequence[Edit], dict[str, Any]]] = []

    def look(self, image: object) -> View:
        return make_view(load_image(image))  # type: ignore[arg-type]

    def answer(
        self, view: View, prompt: str | None = None, edits: Sequence[Edit] = (), **options: Any
    ) -> str:
        self.asked.append((prompt, edits, options))
        return "a cake" if edits else "a cake and a fork"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = synthetic_store(tmp_path_factory.mktemp("made-up") / "store", NEURONS, images=400)
    store = Store.open(folder)
    yield Session(store)
    store.close()


def hub_of(session: Session) -> Any:
    example = SimpleNamespace(image=Image.new("RGB", (80, 40), "orange"))
    return SimpleNamespace(session=session, opening=SimpleNamespace(examples={EXAMPLE: example}))


@pytest.fixture
def programs(session: Session) -> api.Programs:
    session.asked.clear()
    return api.Programs(hub_of(session))


@pytest.fixture(scope="module")
def client(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    kept = pytest.MonkeyPatch()
    kept.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
    kept.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    with gr.Blocks() as page:
        api.wire(hub_of(session))
    guard(page)
    page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, max_file_size="1mb")
    yield Client(page.local_url, verbose=False)
    page.close()
    kept.undo()


def test_every_endpoint_is_named_typed_and_documented(client: Client) -> None:
    found = client.view_api(return_format="dict", print_info=False)
    names = ["/look", "/caption", "/why", "/neuron", "/exemplars", "/find", "/search", "/browse", "/about"]
    assert list(found["named_endpoints"]) == names and not found["unnamed_endpoints"]
    for name, described in found["named_endpoints"].items():
        method = getattr(api.Programs, name[1:])
        wanted = list(inspect.signature(method).parameters)[1:]
        assert [one["parameter_name"] for one in described["parameters"]] == wanted
        assert all(one["type"] for one in described["parameters"])
        assert described["description"].startswith(method.__doc__[:30])
        assert described["returns"][0]["type"]["type"] in ("object", "array")


def test_a_program_looks_at_a_picture_of_its_own(client: Client, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    found = client.predict(handle_file(tmp_path / "a.png"), maps=[3, 5], api_name="/look")
    assert found["grid"] == {"rows": 4, "cols": 4} and found["unexplained"] == 0.1
    assert [one["neuron"] for one in found["neurons"]] == [3, 5]
    assert found["maps"]["3"][1][2] == 2.0 and found["maps"]["5"][0] == [0.0] * 4


def test_a_program_steers(client: Client, session: Session) -> None:
    session.asked.clear()
    edits = [
        {"neuron": 3, "value": -30},
        {"neuron": 4, "value": 2, "mode": "scale", "patches": None},
        {"neuron": 5, "value": 1, "mode": "add", "patches": [[0, 1], [3, 3]]},
    ]
    said = client.predict(EXAMPLE, edits=edits, how={"max_new_tokens": 9}, api_name="/caption")
    assert said == {"question": "Describe the image.", "baseline": "a cake and a fork", "steered": "a cake"}
    (_, none, plain), (prompt, some, options) = session.asked
    assert none == () and plain["max_new_tokens"] == options["max_new_tokens"] == 9
    assert prompt == "Describe the image." and plain["visitor"] is not options["visitor"]
    assert [(one.neuron, one.value, one.mode) for one in some] == [
        (3, -30, "set"),
        (4, 2, "scale"),
        (5, 1, "add"),
    ]
    assert some[0].patches == "active" and some[1].patches is None
    assert [tuple(cell) for cell in zip(*some[2].patches.nonzero(), strict=True)] == [(0, 1), (3, 3)]


def test_without_edits_the_model_answers_once(programs: api.Programs, session: Session) -> None:
    said = programs.caption(EXAMPLE, "  What is it? ")
    assert said["baseline"] == said["steered"] and said["question"] == "What is it?"
    assert len(session.asked) == 1


def test_settings_alone_steer_too(programs: api.Programs, session: Session) -> None:
    programs.caption(EXAMPLE, how={"cns": True, "step": 300})
    assert session.asked[1][2]["contrast"].step == 300 and session.asked[0][2]["contrast"] is None


def test_the_neurons_of_a_patch(programs: api.Programs) -> None:
    assert [one["neuron"] for one in programs.look(EXAMPLE, 1, patch=[0, 0])["neurons"]] == [3]
    assert programs.look(EXAMPLE, patch=[2, 2])["neurons"] == []


def test_what_the_store_knows_is_json(client: Client, session: Session) -> None:
    assert client.predict(api_name="/about") == {
        "model": "a@b",
        "block": 7,
        "neurons": NEURONS,
        "pictures": session.store.manifest.n_images,
        "device": "cuda:0",
        "dtype": "bfloat16",
        "quantized": "8bit",
    }
    told = client.predict(3, api_name="/neuron")
    known = session.summary(3)
    assert told["neuron"] == 3 and told["label"] == known.label
    assert math.isclose(told["fires"], known.fires, rel_tol=1e-5)
    assert len(told["labels"]) == len(session.labels(3)) and told["own_name"] == ""
    shown = client.predict(3, 2, api_name="/exemplars")
    assert [one["rank"] for one in shown] == [0, 1] and shown[0]["score"] >= shown[1]["score"]
    assert shown[0]["thumbnail"].startswith("data:image/") and len(shown[0]["map"]) == 24
    assert json.dumps(told) and "NaN" not in json.dumps([told, shown])


def test_finding_and_browsing(programs: api.Programs, session: Session) -> None:
    page = programs.browse({"sort": "peak", "descending": True}, 0, 4)
    assert page["total"] == NEURONS and len(page["neurons"]) == 4
    peaks = [one["peak"] for one in page["neurons"]]
    assert peaks == sorted(peaks, reverse=True)
    assert programs.browse({"classes": ["dead"], "fires": [0, 0]})["total"] == session.class_counts()["dead"]
    label = next(one["label"] for one in programs.browse({})["neurons"] if one["label"])
    assert programs.search(label.replace("_", " "), 1)
    assert programs.find("no such thing") == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda one: one.look("nothing"), "no example 'nothing'.*orange"),
        (lambda one: one.look({"path": "/etc/passwd"}), "no picture arrived"),
        (lambda one: one.look({"path": "a\0b"}), "no picture arrived"),
        (lambda one: one.look({"path": None}), "no picture arrived"),
        (lambda one: one.look(None), "no picture arrived"),
        (lambda one: one.look([1]), "no picture arrived"),
        (lambda one: one.look(EXAMPLE, 0), "top is 0"),
        (lambda one: one.look(EXAMPLE, 101), "top 101"),
        (lambda one: one.look(EXAMPLE, maps=[99]), "neuron 99"),
        (lambda one: one.look(EXAMPLE, maps=list(range(10)) * 3), "maps is not a list of at most 20"),
        (lambda one: one.look(EXAMPLE, maps="3"), "maps is not a list"),
        (lambda one: one.look(EXAMPLE, patch=[1]), "patch is not a pair"),
        (lambda one: one.look(EXAMPLE, patch=[4, 0]), "patch row 4"),
        (lambda one: one.caption(EXAMPLE, "x" * 501), "501 characters"),
        (lambda one: one.caption(EXAMPLE, 5), "the question 5 is not a text"),
        (lambda one: one.caption(EXAMPLE, edits={"neuron": 1}), "edits is not a list"),
        (lambda one: one.caption(EXAMPLE, edits=[3]), "an edit is not a set"),
        (lambda one: one.caption(EXAMPLE, edits=[{"neuron": 3}]), "neuron 3 has no value"),
        (lambda one: one.caption(EXAMPLE, edits=[{"neuron": 10, "value": 1}]), "neuron 10 does not exist"),
        (lambda one: one.caption(EXAMPLE, edits=[{"neuron": 3, "value": "1"}]), "is not a number"),
        (lambda one: one.caption(EXAMPLE, edits=[{"neuron": 3, "value": 1, "mode": "x"}]), "mode 'x'"),
        (lambda one: one.caption(EXAMPLE, edits=[{"neuron": 3, "value": 1, "patches": "seen"}]), "'seen'"),
        (lambda one: one.caption(EXAMPLE, edits=[{"neuron": 3, "value": 1, "patches": []}]), "mark a patch"),
        (lambda one: one.caption(EXAMPLE, edits=[{"neuron": 3, "value": 1, "patches": [[9, 9]]}]), "row 9"),
        (lambda one: one.caption(EXAMPLE, edits=[{"neuron": 3, "value": 1, "name": "x"}]), "no 'name'"),
        (lambda one: one.caption(EXAMPLE, edits=[{"neuron": 3, "value": 1}] * 25), "at most 24"),
        (lambda one: one.caption(EXAMPLE, how={"max_new_tokens": 10_000}), "10000"),
        (lambda one: one.caption(EXAMPLE, how={"unknown": 1}), "no setting 'unknown'"),
        (lambda one: one.caption(EXAMPLE, how=[]), "how is not a set"),
        (lambda one: one.why(EXAMPLE, "fork", measure=31), "measure 31"),
        (lambda one: one.neuron(-1), "neuron -1"),
        (lambda one: one.neuron("3"), "neuron '3'"),
        (lambda one: one.exemplars(3, 17), "count 17"),
        (lambda one: one.find("x" * 81), "81 characters"),
        (lambda one: one.search("x", 0), "k is 0"),
        (lambda one: one.browse({"sort": "beauty"}), "beauty"),
        (lambda one: one.browse({"size": 1}), "no filter 'size'"),
        (lambda one: one.browse({"fires": [1]}), "fires is not a pair"),
        (lambda one: one.browse({"fires": [1, 0]}), "no range"),
        (lambda one: one.browse({"classes": "dead"}), "classes is not a list"),
        (lambda one: one.browse({"descending": "maybe"}), "descending"),
        (lambda one: one.browse({}, -1), "offset -1"),
        (lambda one: one.browse({}, 0, 101), "count 101"),
    ],
)
def test_wrong_inputs_are_refused_in_words(programs: api.Programs, call: Any, words: str) -> None:
    with pytest.raises(ExplorerError, match=words):
        call(programs)


def test_a_program_reads_the_message_and_nothing_else(client: Client) -> None:
    with pytest.raises(Exception, match=r"^Neuron 99 does not exist; use a number from 0 to 9$"):
        client.predict(99, api_name="/neuron")


def test_without_a_store_pictures_have_neurons_without_names() -> None:
    bare = api.Programs(hub_of(Session(None)))
    assert [one["name"] for one in bare.look(EXAMPLE)["neurons"]] == ["", ""]
    with pytest.raises(ExplorerError, match="build one with: python -m index build"):
        bare.neuron(3)
