"""In front of every route of the server: login, the size of requests, routes that stay closed, uploads that
nobody may fetch. Knows HTTP and which routes the framework has; nothing of the page.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie
from typing import Any

MOST_SENT = 10_000
"""Uploads that are remembered as such; by then the older ones are long gone."""

MOST_DRAINED = 1 << 28
"""Bytes of a refused request that are read and thrown away."""

ABOVE = 1 << 20
"""Bytes of a request beside the file in it."""

OPEN = ("/", "/login", "/login/", "/favicon.ico", "/manifest.json", "/robots.txt", "/theme.css")
OPEN_BELOW = ("/assets/", "/static/", "/svelte/", "/gradio_api/startup-events")
"""What the page with the log-in form is made of, and what the framework asks of itself when it starts: the
only routes for who has not logged in."""

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


FILES = ("/gradio_api/file=", "/gradio_api/file/")
UPLOAD = "/gradio_api/upload"


class Sent:
    """Which files are uploads, so that nobody can fetch them by their address; those that nobody read yet."""

    def __init__(self) -> None:
        self._since: OrderedDict[str, float] = OrderedDict()

    def add(self, answer: bytes) -> None:
        """Take down the paths in the answer to an upload."""
        for path in json.loads(answer):
            self._since[os.path.realpath(path)] = time.time()
        while len(self._since) > MOST_SENT:
            self._since.popitem(last=False)

    def holds(self, path: str) -> bool:
        """Whether the file of this path was sent; a later one of the same path was made for its visitor."""
        with contextlib.suppress(OSError, ValueError):
            real = os.path.realpath(path)
            return real in self._since and os.stat(real).st_ctime <= self._since[real] + 60
        return False


class Gate:
    """In front of all routes: login, the size of requests, and the routes that stay closed."""

    def __init__(self, app: Any, longest: int) -> None:
        """longest: bytes of the largest file that may be sent."""
        self.app, self.longest, self.sent = app, longest, Sent()

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
            await _drain(receive)
            await _refuse(send, 413, too_large(self.longest))
        elif path.startswith(FILES) and self.sent.holds(path[len(FILES[0]) :]):
            await _refuse(send, 403, "Uploads are for the page alone.")
        else:
            noted = _noted(send, self.sent) if path.rstrip("/") == UPLOAD else send
            await self.app(scope, _bounded(receive, self.longest + ABOVE), noted)


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


def _noted(send: Any, sent: Sent) -> Any:
    """The same answer to an upload, taken down before it goes out."""
    good, body = False, b""

    async def pass_on(message: Any) -> None:
        nonlocal good, body
        if message["type"] == "http.response.start":
            good = message["status"] == 200
        else:
            body += message.get("body", b"")
            if good and not message.get("more_body"):
                sent.add(body)
        await send(message)

    return pass_on


async def _drain(receive: Any) -> None:
    """Let a request that is refused come to its end, as far as that is not abuse: else nobody hears why."""
    seen = 0
    while seen < MOST_DRAINED:
        message = await receive()
        seen += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return


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
