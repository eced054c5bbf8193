"""Serving the page to people: the folder that uploads pass through, and what happens when a visitor leaves.

Knows the framework and the disk; nothing of models.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.tunneling import CURRENT_TUNNELS
from starlette.middleware import Middleware

from explorer.ui.gate import Gate
from explorer.ui.hub import Hub
from explorer.ui.visit import Turn, Visit

KEPT = 900
"""Seconds that a file may lie in the folder of uploads: those of pictures are removed once read, so this is
for what nobody came to read, and for files that wait to be downloaded."""

RETURN = 600
"""Seconds in which a visitor whose connection broke finds pictures and sliders again."""


@contextlib.contextmanager
def uploads_folder() -> Iterator[Path]:
    """A folder of this process alone for what visitors send, emptied now and then and removed at the end.

    Must be entered before the page is built.
    """
    former = os.environ.get("GRADIO_TEMP_DIR") or None
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
    """When a visitor leaves: stop answers and replays in the making, and soon forget pictures and sliders."""

    def leave(request: gr.Request) -> None:
        holder, key = hub.page.state_holder, request.session_hash
        session = holder.session_data.get(key) if key else None
        if session is None:
            return
        for kept in list(session.state_data.values()):
            turns = (kept.turn, kept.study) if isinstance(kept, Visit) else (kept,)
            for turn in turns:
                if isinstance(turn, Turn):
                    turn.stop()
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
        prevent_thread_lock=True,
        **more,
    )
    try:
        while True:
            time.sleep(0.5)  # not one long wait: a signal must find this thread awake
    finally:
        page.close(verbose=False)
        for tunnel in CURRENT_TUNNELS:
            tunnel.kill()
