"""A served page and a browser for the tests in this folder.

The page runs on the embedded model and SAE when they are there, else on random ones of the same shape.
Every page opened here fails its test when it asks anything of another machine or logs an error.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.ui.served import served

ROOT = Path(__file__).parents[2]
BROWSERS = ("/usr/bin/chromium-headless-shell", "/usr/bin/chromium")  # the quicker one first
CHROMIUM = Path(os.environ.get("CHROMIUM") or next(filter(os.path.exists, BROWSERS), BROWSERS[0]))
SCREENSHOTS = ROOT / "screenshots"
PATIENCE_MS = 60_000
SCENES = 120

expect.set_options(timeout=PATIENCE_MS)


def _random_set(folder: Path) -> list[str]:
    """Save a random LVLM of the embedded shape and a random SAE; the arguments that name them."""
    import torch

    from explorer.sae import SAE
    from explorer.sae.model import ActivationRule
    from explorer.vlm import open_lvlm
    from explorer.world.model import build_model, build_processor, build_tokenizer, save

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    save(folder / "lvlm", build_model(tokenizer), build_processor(tokenizer))
    width, neurons = 192, 1024
    rule = ActivationRule("topk", k=20)
    directions = torch.nn.functional.normalize(torch.randn(neurons, width), dim=-1)
    sae = SAE(
        directions.T.clone(),
        torch.zeros(neurons),
        directions,
        torch.zeros(width),
        rule,
        site_block=4,
        model_id=open_lvlm(folder / "lvlm").model_id,
    )
    sae.save(folder / "sae.safetensors")
    return ["--model", str(folder / "lvlm"), "--sae", str(folder / "sae.safetensors")]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A small store of drawn scenes, and the arguments that name its model and SAE; not to be written.

    Workers of one run share it: the first that needs it makes it, the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made"
    folder.mkdir(exist_ok=True)
    there = (ROOT / "assets/lvlm").exists() and (ROOT / "assets/sae/sae.safetensors").exists()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store, done = folder / "store", folder / "parts.json"
        if not done.exists():
            parts = [] if there else _random_set(folder)
            words = ["--scenes", str(SCENES), "--out", str(store), "--quiet", *parts]
            command = [sys.executable, "-m", "index", "build", *words]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            done.write_text(json.dumps(parts))
        return store, json.loads(done.read_text())


@pytest.fixture(scope="session")
def address(made: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a page served by app.py, with a store of its own."""
    folder = tmp_path_factory.mktemp("page")
    store, parts = shutil.copytree(made[0], folder / "store"), made[1]
    with served(folder, "--store", str(store), "--cases", str(folder / "cases"), *parts) as running:
        yield running.address
    assert "Traceback" not in running.log.read_text(), running.log.read_text()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's chromium, without a window."""
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing; install it with: sudo apt-get install {CHROMIUM.name}")
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """Opens the page as a new visitor and waits for its first caption; arguments are those of new_context."""
    elsewhere: list[str] = []
    errors: list[str] = []
    contexts = []

    def open_page(**how: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **how})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: elsewhere.append(request.url) if _foreign(request.url) else None)
        page.on("websocket", lambda socket: elsewhere.append(socket.url) if _foreign(socket.url) else None)
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.locator("#cards .card").first.wait_for()
        page.locator("#baseline [aria-busy=false]").wait_for()
        return page

    def _foreign(url: str) -> bool:
        local = address.split("//")[1]
        return not url.startswith(("data:", "blob:", f"http://{local}", f"ws://{local}"))

    yield open_page
    for context in contexts:
        context.close()
    assert elsewhere == [], "the page asked something of another machine"
    assert errors == [], "the browser's console shows errors"


@pytest.fixture(scope="session")
def shoot() -> Callable[[Page, str], None]:
    """Writes a screenshot into ./screenshots, which git ignores."""
    SCREENSHOTS.mkdir(exist_ok=True)

    def take(page: Page, name: str) -> None:
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    return take
