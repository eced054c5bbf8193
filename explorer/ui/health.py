"""The line at the top: on which model, SAE, store and device the page runs, and how much memory that takes.

Knows the session's facts and the machine's memory; nothing of any visitor but how many there are.
"""

from __future__ import annotations

from html import escape
from typing import NamedTuple

import gradio as gr

from explorer.session import Session
from explorer.session.machine import Memory, Running, device_of, memory, running
from explorer.ui.hub import AT_ONCE, Hub, html

EVERY = 30
"""Seconds between two looks at the machine while the page is open."""


class Health(NamedTuple):
    """The components of the line."""

    line: gr.HTML
    clock: gr.Timer


class Facts(NamedTuple):
    """What the line tells. indexed: pictures of the store, None without one; visitors: None when unknown."""

    model: str
    block: int
    neurons: int
    indexed: int | None
    running: Running
    memory: Memory
    visitors: int | None = None


def facts(session: Session, visitors: int | None = None) -> Facts:
    """The facts of this moment."""
    indexed = None if session.store is None else session.store.manifest.n_images
    return Facts(
        model=session.lvlm.model_id,
        block=session.block,
        neurons=session.sae.n_neurons,
        indexed=indexed,
        running=running(session.lvlm, session.sae),
        memory=memory(device_of(session.sae)),
        visitors=visitors,
    )


def size(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def drawn(now: Facts) -> str:
    """The title and the line as HTML; the details are folded away."""
    name, _, weights = now.model.partition("@")
    used = now.memory.device_used if now.memory.device_used is not None else now.memory.process
    store = "no store" if now.indexed is None else f"{now.indexed:,} pictures"
    brief = [name.rpartition("/")[2], f"{now.neurons:,} neurons", store, now.running.words(), size(used)]
    rows = {
        "Model": f"{name}{f', weights {weights}' if weights else ''}",
        "SAE": f"{now.neurons:,} neurons at block {now.block} of the vision tower",
        "Store": "none" if now.indexed is None else f"{now.indexed:,} pictures indexed",
        "Device": now.running.device,
        "Numbers": _numbers(now.running),
        "Memory": f"{size(now.memory.process)} of this process",
    }
    if now.memory.device_used is not None and now.memory.device_total is not None:
        rows["Memory"] += f", {size(now.memory.device_used)} of {size(now.memory.device_total)} on the device"
    if now.visitors is not None:
        rows["Visitors"] = f"{now.visitors} at the moment"
    details = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in rows.items())
    return (
        '<header class="title"><h1>Visual neurons</h1><details class="health">'
        f'<summary title="What the page runs on">{escape(" · ".join(brief))}</summary>'
        f"<dl>{details}</dl></details></header>"
    )


def _numbers(now: Running) -> str:
    """In what the model computes, in words."""
    if now.quantized is None:
        return now.dtype
    bits = now.quantized.removesuffix("bit")
    return f"{now.dtype}; the language model's matrices in {bits} bits"


def draw(session: Session) -> Health:
    """Lay out the line."""
    return Health(html("title", drawn(facts(session)), "health.js"), gr.Timer(EVERY))


def wire(hub: Hub, parts: Health) -> None:
    """Look again when a page opens, and now and then."""

    def look() -> str:
        return drawn(facts(hub.session, visitors(hub.page)))

    hub.page.load(look, None, parts.line, **AT_ONCE)
    parts.clock.tick(look, None, parts.line, **AT_ONCE)


def visitors(page: gr.Blocks) -> int | None:
    """How many pages are open; None while none is served."""
    holder = getattr(page, "state_holder", None)
    if holder is None:
        return None
    return sum(not session.is_closed for session in list(holder.session_data.values()))
