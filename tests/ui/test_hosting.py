"""Hosting for real: one page in its own process, with log-in, behind a proxy, with a small limit."""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from gradio.routes import App
from gradio_client import Client, handle_file
from gradio_client.exceptions import AuthenticationError
from PIL import Image

from tests.ui.served import Served, Visitor, proxied, served

LIMIT = 100 << 10
LOGIN_PAGE = {"/", "/login", "/login/", "/favicon.ico", "/manifest.json", "/robots.txt", "/theme.css"}
LOGIN_PAGE_PARTS = ("/assets/", "/static/", "/svelte/", "/gradio_api/startup-events")


def picture(seed: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50 + seed).convert("RGB").save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hosted")
    (folder / "people.txt").write_text("# visitors\nbob:other:word\n")
    arguments = [
        *("--store", str(folder / "none"), "--auth", "ann:secret", "--auth-file", str(folder / "people.txt")),
        *(
            "--root-path",
            "/neurons",
            "--read-only",
            "--max-upload",
            "100KB",
            "--visitors",
            "40",
            "--queue",
            "6",
        ),
    ]
    with served(folder, *arguments) as running:
        yield running
    assert list(running.temp.glob("neurons-*")) == [], "its folder for uploads is still there"
    assert "Traceback" not in running.log.read_text()


@pytest.fixture
def ann(page: Served) -> Visitor:
    visitor = Visitor(page.address)
    assert visitor.log_in("ann", "secret") == 200
    return visitor


def routes() -> list[tuple[str, str]]:
    """Method and path of every route that the framework has, with something in the place of parameters."""
    described = App.create_app(gr.Blocks()).openapi()["paths"]
    filled = {re.sub(r"{[^}]*}", "x", path): how for path, how in described.items()}
    return [("GET", "/openapi.json"), *((name.upper(), path) for path, how in filled.items() for name in how)]


def test_every_route_but_the_log_in_page_asks_for_a_log_in(page: Served) -> None:
    stranger, known = Visitor(page.address), routes()
    assert len(known) > 50
    for method, path in known:
        open_to_all = path in LOGIN_PAGE or path.startswith(LOGIN_PAGE_PARTS)
        if not open_to_all:
            status, _ = stranger.ask(path, b"{}" if method == "POST" else None, method)
            assert status in (401, 404), f"{method} {path} answers {status}"
            beneath, _ = stranger.ask(f"/neurons{path}", b"{}" if method == "POST" else None, method)
            assert beneath in (401, 404), f"{method} /neurons{path} answers {beneath}"


def test_the_log_in_page_holds_nothing_of_the_page(page: Served) -> None:
    status, body = Visitor(page.address).ask("/")
    assert status == 200 and b"auth_required" in body
    assert b"store-notice" not in body and b'"dependencies":[]' in body.replace(b" ", b"")


@pytest.mark.parametrize(
    ("name", "password", "status"),
    [
        ("ann", "secret", 200),
        ("bob", "other:word", 200),
        ("ann", "other:word", 400),
        ("bob", "", 422),
        ("eve", "secret", 400),
    ],
)
def test_who_may_log_in(page: Served, name: str, password: str, status: int) -> None:
    visitor = Visitor(page.address)
    assert visitor.log_in(name, password) in ({status} if status == 200 else {400, 401, 422})
    assert visitor.ask("config")[0] == (200 if status == 200 else 401)


def test_a_wrong_cookie_is_no_log_in(page: Served, ann: Visitor) -> None:
    app_id = json.loads(ann.ask("gradio_api/app_id")[1])["app_id"]
    forged = f"access-token-{app_id}=; access-token-unsecure-{app_id}=guess; broken=\x7f"
    assert Visitor(page.address).ask("config", Cookie=forged)[0] == 401


@pytest.mark.parametrize(
    "path",
    ["gradio_api/deep_link?session_hash=x", "gradio_api/runs", "monitoring/summary", "gradio_api/vibe-code"],
)
def test_routes_that_the_page_never_uses_are_closed(ann: Visitor, path: str) -> None:
    assert ann.ask(path)[0] == 404


def test_the_page_below_a_proxy_loads_its_parts_and_answers(page: Served) -> None:
    with proxied(page.address, "/neurons") as address:
        visitor = Visitor(address)
        assert visitor.ask("config")[0] == 401 and visitor.log_in("ann", "secret") == 200
        status, body = visitor.ask("")
        root = json.loads(visitor.ask("config")[1])["root"]
        assert status == 200 and root == address.rstrip("/")
        assert visitor.ask("theme.css")[0] == 200
        script = body.decode().partition('src="./assets/')[2].partition('"')[0]
        assert script and visitor.ask(f"assets/{script}")[0] == 200
        client = Client(address, auth=("ann", "secret"), verbose=False)
        found = client.predict(
            "phantom-fork", 3, api_name="/look"
        )  # its answer arrives as a stream of events
        assert len(found["neurons"]) == 3


def test_programs_need_the_log_in_too(page: Served) -> None:
    with pytest.raises(AuthenticationError):
        Client(page.address, verbose=False)


def test_what_is_too_large_is_refused_in_plain_words(page: Served, ann: Visitor) -> None:
    status, body = ann.upload("big.png", bytes(LIMIT + 10))
    assert status == 413 and b"exceeded maximum allowed size" in body
    status, body = ann.upload("huge.png", bytes(LIMIT + (2 << 20)))
    assert status == 413
    assert body == b"The file is too large. Choose one of at most 100 KB."
    assert (
        ann.ask("gradio_api/queue/join", b" " * (LIMIT + (2 << 20)), Content_Type="application/json")[0]
        == 413
    )
    assert page.files() == []


def test_an_upload_cannot_be_fetched_by_anybody(page: Served, ann: Visitor) -> None:
    data = picture(1)
    path = ann.uploaded("mine.png", data)
    bob = Visitor(page.address)
    bob.log_in("bob", "other:word")
    guess = str(Path(path).parents[1] / hashlib.sha256(data).hexdigest() / "mine.png")
    assert guess != path, "whoever has the same file knows where it lies"
    for who in (ann, bob, Visitor(page.address)):
        for way in (path, f"/./{path}", path.replace("/mine", "/../" + Path(path).parent.name + "/mine")):
            assert who.ask(f"gradio_api/file={way}")[0] in (401, 403)
            assert who.ask(f"gradio_api/file/{way}")[0] in (401, 403)
    Path(path).unlink()


@pytest.mark.parametrize("path", ["/etc/passwd", str(Path(__file__)), "requirements.txt"])
def test_files_of_the_machine_stay_there(ann: Visitor, path: str) -> None:
    assert ann.ask(f"gradio_api/file={path}")[0] in (403, 404)


def test_a_picture_of_a_program_is_gone_once_it_is_read(page: Served, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(picture(2))
    client = Client(page.address, auth=("ann", "secret"), verbose=False)
    assert client.predict(handle_file(tmp_path / "one.png"), 2, api_name="/look")["neurons"]
    assert page.files() == []
    (tmp_path / "two.png").write_bytes(b"no picture")
    with pytest.raises(Exception, match="not a picture"):
        client.predict(handle_file(tmp_path / "two.png"), 2, api_name="/look")
    assert page.files() == []


def test_a_page_without_its_store_says_what_to_run(page: Served, ann: Visitor) -> None:
    config = ann.ask("config")[1].decode()
    assert "--scenes 4000 --out" in config and "store-notice" in config
    said = page.log.read_text()
    assert "starts without exemplars: there is no store at" in said
    assert f"python -m index build --scenes 4000 --out {page.temp.parent / 'none'}" in said


def raw_call(visitor: Visitor, target: str, data: list, session: str, event: dict | None = None) -> str:
    """Trigger the first event of a component by its id, as a browser would, or as someone who forges it."""
    config = json.loads(visitor.ask("config")[1])
    ids = {c["id"]: c["props"].get("elem_id") for c in config["components"]}
    element, name = target.split(".")
    chosen = next(
        dep
        for dep in config["dependencies"]
        if any(ids.get(where) == element and what == name for where, what in dep["targets"])
    )
    body = {"data": data, "fn_index": chosen["id"], "session_hash": session, "event_data": event}
    answer = visitor.ask("gradio_api/run/predict", json.dumps(body).encode(), Content_Type="application/json")
    return answer[1].decode()


def test_a_forged_event_of_a_stranger_shows_no_picture_of_anybody(ann: Visitor) -> None:
    said = raw_call(ann, "cards.pick", [None, None], uuid.uuid4().hex, {"neuron": 3})
    assert "No picture is open" in said


def test_a_full_queue_is_said(page: Served) -> None:
    client = Client(page.address, auth=("ann", "secret"), verbose=False)
    jobs = [client.submit("phantom-fork", "fork and knife", "", 20, api_name="/why") for _ in range(24)]
    ends = [job.exception() for job in jobs]
    assert any(end is None for end in ends), "those in the queue are answered"
    refused = {str(end) for end in ends if end is not None}
    assert refused == {"Queue is full! Please try again."}


def test_who_leaves_is_counted_out(page: Served, ann: Visitor) -> None:
    """The heartbeat of a page tells when it is closed; the folder of uploads stays empty."""
    session = uuid.uuid4().hex
    status, first = ann.ask(f"gradio_api/heartbeat/{session}")
    assert status == 200 and b"ALIVE" in first
    time.sleep(0.5)
    assert page.files() == [] and ann.ask("config")[0] == 200
