"""The page as hosted: behind a proxy with a log-in and without a store; bad uploads; two visitors at once."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from gradio_client import Client
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.ui.served import Served, proxied, served

PATIENCE_MS = 60_000
PREFIX = "/neurons"


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hosted")
    arguments = ["--store", str(folder / "none"), "--auth", "ann:secret", "--root-path", PREFIX]
    with served(folder, *arguments, "--read-only", "--max-upload", "200KB") as running:
        yield running
    assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="module")
def below(hosted: Served) -> Iterator[str]:
    """Address of the page below a proxy."""
    with proxied(hosted.address, PREFIX) as address:
        yield address


@pytest.fixture
def ann(browser: Browser, below: str) -> Iterator[Page]:
    """A visitor who has logged in, and whose browser asked for nothing outside the page."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, permissions=["clipboard-read", "clipboard-write"]
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    enter(page, below)
    yield page
    context.close()
    urls = [url for url in asked if not url.startswith(("data:", "blob:"))]
    assert [url for url in urls if not url.startswith(below)] == []
    assert {urlsplit(url).path.split("/")[1] for url in urls} == {PREFIX[1:]}


def enter(page: Page, address: str) -> None:
    """Log in, and wait for the first caption."""
    page.goto(address)
    page.get_by_label("username").fill("ann")
    page.get_by_label("password").fill("secret")
    page.get_by_role("button", name="Login").click()
    page.locator("#cards .card").first.wait_for()
    page.locator("#baseline [aria-busy=false]").wait_for()


def upload(page: Page, name: str, data: bytes) -> None:
    field = page.locator("input[type=file]").first
    field.set_input_files({"name": name, "mimeType": "image/png", "buffer": data})


def said(page: Page) -> str:
    """The last message, closed again."""
    toast = page.locator(".toast-body").last
    toast.wait_for()
    words = toast.inner_text()
    page.locator(".toast-close").last.click()
    expect(page.locator(".toast-body")).to_have_count(0)
    return words


def test_the_page_below_a_proxy_without_a_store(
    ann: Page, hosted: Served, shoot: Callable[[Page, str], None]
) -> None:
    notice = ann.locator("#store-notice .notice")
    command = f"python -m index build --scenes 4000 --out {hosted.temp.parent / 'none'}"
    expect(notice).to_contain_text("there is no store at")
    expect(notice.locator("code")).to_have_text(command)
    notice.get_by_role("button", name="Copy").click()
    expect(notice.get_by_role("button")).to_have_text("Copied")
    assert ann.evaluate("navigator.clipboard.readText()") == command
    expect(ann.locator(".notice")).to_have_count(1)
    shoot(ann, "no-store")
    for name in ("Gallery", "Cases", "Workspace"):
        ann.get_by_role("tab", name=name).click()
        expect(notice).to_be_visible()
    ann.locator("#cards .card").first.locator("[data-do=put]").click()
    ann.locator("#bench input[type=range]").first.press("Home")
    expect(ann.locator("#steered .word").first).to_be_visible()
    expect(ann.locator(".toast-body")).to_have_count(0)


def test_no_answer_is_lost_behind_a_slow_proxy(browser: Browser, hosted: Served) -> None:
    """Each stream of answers ends .3 s late, when the event that follows the last one has joined already."""
    with proxied(hosted.address, PREFIX, late=0.3) as address:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        enter(page, address)
        page.locator("#cards .card").first.locator("[data-do=put]").click()
        page.locator("#bench input[type=range]").first.press("Home")
        page.locator("#steered .word").first.wait_for()
        page.locator('#shelf [data-with*="farmyard"]').click()
        page.locator('#shelf [data-with*="farmyard"][aria-pressed=true]').wait_for()
        for panel in ("baseline", "steered"):
            page.locator(f"#{panel} [aria-busy=false] .word").first.wait_for()
        expect(page.locator(".toast-body")).to_have_count(0)
        context.close()


def test_the_line_at_the_top_unfolds(ann: Page) -> None:
    line = ann.locator(".health")
    expect(line.locator("summary")).to_contain_text("no store")
    line.locator("summary").press("Enter")
    expect(line.locator("dl")).to_be_visible()
    expect(line.locator("dl")).to_contain_text("of this process")
    line.locator("summary").press("Escape")
    expect(line.locator("dl")).to_be_hidden()


def test_bad_uploads_are_refused_and_no_upload_is_kept(ann: Page, hosted: Served) -> None:
    shown = ann.locator("#stage img").first
    before = shown.get_attribute("src")
    upload(ann, "large.png", os.urandom(300 << 10))
    assert "maximum" in said(ann) and shown.get_attribute("src") == before
    upload(ann, "broken.png", b"\x89PNG\r\n\x1a\n" + os.urandom(500))
    words = said(ann)
    assert "broken.png" in words and "Traceback" not in words and shown.get_attribute("src") == before
    stream = io.BytesIO()
    Image.effect_noise((120, 90), 60).convert("RGB").save(stream, "PNG")
    upload(ann, "good.png", stream.getvalue())
    expect(ann.locator("#shelf")).to_contain_text("Your own picture")
    assert hosted.files() == []


def reads(page: Page, panel: str, words: str) -> None:
    """Wait until a panel shows exactly these words."""
    shown = f"document.querySelector('#{panel} .text').innerText.split(/\\s+/).join(' ').trim()"
    page.wait_for_function(f"words => {shown} === words", arg=words)


def test_two_visitors_at_once_never_meet(visit: Callable[..., Page], address: str) -> None:
    """Both change pictures and sliders in turns, without waiting; each ends with its own of everything."""
    keys = ("phantom-fork", "farmyard")
    pages = [visit() for _ in keys]
    for round_ in range(3):
        for page, key in zip(pages, reversed(keys) if round_ == 1 else keys, strict=True):
            page.locator(f'#shelf [data-with*="{key}"]').click()
    for page, key in zip(pages, keys, strict=True):
        page.locator(f'#shelf [data-with*="{key}"][aria-pressed=true]').wait_for()
        page.locator("#baseline [aria-busy=false]").wait_for()
    neurons = []
    for place, page in enumerate(pages):
        put = page.locator("#cards .card").nth(2 * place).locator("[data-do=put]")
        neurons.append(json.loads(put.get_attribute("data-with") or "")["neuron"])
        put.click()
        page.locator("#bench input[type=range]").first.wait_for()
    for key in ("Home", "End", "Home"):
        for page in pages:
            page.locator("#bench input[type=range]").first.press(key)
    photos, client = set(), Client(address, verbose=False)
    for page, key, neuron in zip(pages, keys, neurons, strict=True):
        value = float(page.locator("#bench input[type=number]").first.input_value())
        alone = client.predict(key, edits=[{"neuron": neuron, "value": value}], api_name="/caption")
        reads(page, "baseline", alone["baseline"])
        reads(page, "steered", alone["steered"])
        expect(page.locator("#bench input[type=range]")).to_have_count(1)
        photos.add(page.locator("#stage img").first.get_attribute("src"))
    assert len(photos) == 2


def test_programs_at_once_never_meet(address: str) -> None:
    """Eight calls at once give what each gives alone."""
    clients = [Client(address, verbose=False) for _ in range(2)]
    asked = [
        (key, [{"neuron": neuron, "value": value}])
        for key in ("phantom-fork", "picnic")
        for neuron, value in ((114, -30), (87, 40))
    ]
    alone = [clients[0].predict(key, edits=edits, api_name="/caption") for key, edits in asked]
    jobs = [
        [client.submit(key, edits=edits, api_name="/caption") for key, edits in asked] for client in clients
    ]
    assert [[job.result() for job in mine] for mine in jobs] == [alone, alone]
    assert len({one["baseline"] for one in alone}) == 2
