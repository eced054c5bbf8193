"""Serving the page to people: the gate in front of every route, the folder that uploads pass through, and
what happens when a visitor leaves. Knows HTTP and the framework; nothing of models.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from explorer.ui.hub import Hub
from explorer.ui.visit import Visit

KEPT = 900
"""Seconds that a file may lie in the folder of uploads: those of pictures are removed once read, so this is
for what nobody came to read, and for files that wait to be downloaded."""

RETURN = 600
"""Seconds in which a visitor whose connection broke finds pictures and sliders again."""

ABOVE = 1 << 20
"""Bytes of a request beside the file in it."""

OPEN = ("/", "/login", "/login/", "/favicon.ico", "/manifest.json", "/robots.txt", "/theme.css")
OPEN_BELOW = ("/assets/", "/static/", "/svelte/")
"""What the page with the login form is made of: the only routes for who has not logged in."""

CLOSED_BELOW = (
    "/gradio_api/deep_link",
    "/gradio_api/runs",
    "/gradio_api/run-history",
    "/gradio_api/vibe",
    "/gradio_api/undo-vibe",
    "/gradio_api/process_recording",
    "/gradio_api/component_server",
    "/gradio_api/proxy",
    "/monitoring",
)
"""Routes of the framework that this page never uses: some would write a visitor's pictures to the disk."""


class TooLarge(OSError):
    """A request went on after more bytes than allowed."""


class Gate:
    """In front of all routes: login, the size of requests, and the routes that stay closed."""

    def __init__(self, app: Any, longest: int) -> None:
        """longest: bytes of the largest file that may be sent."""
        self.app, self.longest = app, longest

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer for the page where it must not be reached, else pass on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = _inner(scope["path"], scope.get("root_path", ""))
        if path.startswith(CLOSED_BELOW):
            await _refuse(send, 404, "There is nothing here.")
        elif not _welcome(scope, path):
            await _refuse(send, 401, "Log in first.")
        elif _length(scope) > self.longest + ABOVE:
            await _refuse(send, 413, too_large(self.longest))
        else:
            await self.app(scope, _bounded(receive, self.longest + ABOVE), send)


def _inner(path: str, root: str) -> str:
    """The path without the prefix under which a proxy serves the page, whether the proxy cut it or not."""
    prefix = root.rstrip("/")
    return path[len(prefix) :] or "/" if prefix and path.startswith(prefix + "/") else path


def _header(scope: dict[str, Any], name: bytes) -> str:
    """A header of the request, "" without it."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _length(scope: dict[str, Any]) -> int:
    """The bytes that a request says it brings."""
    said = _header(scope, b"content-length")
    return int(said) if said.isdecimal() else 0


def _welcome(scope: dict[str, Any], path: str) -> bool:
    """Whether this route is for everybody, or the visitor has logged in."""
    site = scope["app"]
    if site.auth is None or path in OPEN or path.startswith(OPEN_BELOW):
        return True
    cookies = SimpleCookie()
    with contextlib.suppress(CookieError):
        cookies.load(_header(scope, b"cookie"))
    names = (f"access-token-{site.cookie_id}", f"access-token-unsecure-{site.cookie_id}")
    return any(site.tokens.get(cookies[name].value) for name in names if name in cookies)


def _bounded(receive: Any, longest: int) -> Any:
    """The same messages, until they hold more bytes than allowed."""
    seen = 0

    async def next_message() -> Any:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > longest else message

    return next_message


async def _refuse(send: Any, status: int, words: str) -> None:
    body = words.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def too_large(longest: int) -> str:
    """What a person reads who sends more than `longest` bytes."""
    return f"The file is too large. Choose one of at most {size_words(longest)}."


def size_words(count: int) -> str:
    """Bytes as they are given to --max-upload."""
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} bytes"


@contextlib.contextmanager
def uploads_folder() -> Iterator[Path]:
    """A folder of this process alone for what visitors send, emptied now and then and removed at the end.

    Must be entered before the page is built.
    """
    former = os.environ.get("GRADIO_TEMP_DIR")
    folder = Path(tempfile.mkdtemp(prefix="neurons-", dir=former)).resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    done = threading.Event()
    threading.Thread(target=_keep_empty, args=(folder, done), daemon=True).start()
    try:
        yield folder
    finally:
        done.set()
        if former is None:
            os.environ.pop("GRADIO_TEMP_DIR", None)
        else:
            os.environ["GRADIO_TEMP_DIR"] = former
        shutil.rmtree(folder, ignore_errors=True)


def _keep_empty(folder: Path, done: threading.Event) -> None:
    while not done.wait(60):
        sweep(folder)


def sweep(folder: Path, kept: float = KEPT) -> None:
    """Remove files older than `kept` seconds, and folders that they leave empty."""
    oldest = time.time() - kept
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                path = Path(place, name)
                if path.lstat().st_mtime <= oldest:
                    path.unlink()
        if Path(place) != folder:
            with contextlib.suppress(OSError):
                os.rmdir(place)


def wire(hub: Hub) -> None:
    """When a visitor leaves: stop the answer in the making, and soon forget pictures and sliders."""

    def leave(request: gr.Request) -> None:
        holder, key = hub.page.state_holder, request.session_hash
        session = holder.session_data.get(key) if key else None
        if session is None:
            return
        visit = session.state_data.get(hub.states.visit._id)
        if isinstance(visit, Visit):
            visit.turn.stop()
        timer = threading.Timer(RETURN, forget, (hub.page, key, time.time()))
        timer.daemon = True
        timer.start()

    hub.page.unload(leave)


def forget(page: gr.Blocks, key: str, left: float) -> None:
    """Drop all that is kept of a visitor who left at `left` and did not come back since."""
    holder = page.state_holder
    used = holder.time_last_used.get(key)
    if used is not None and used.timestamp() <= left:
        holder.session_data.pop(key, None)
        holder.time_last_used.pop(key, None)


def launch(page: gr.Blocks, longest: int, visitors: int, **more: Any) -> None:
    """Serve the page until interrupted. longest: bytes of the largest upload; more: as `Blocks.launch`."""
    page.launch(
        ssr_mode=False,
        show_error=False,
        enable_monitoring=False,
        max_file_size=longest,
        state_session_capacity=visitors,
        app_kwargs={"middleware": [Middleware(Gate, longest=longest)]},
        **more,
    )
