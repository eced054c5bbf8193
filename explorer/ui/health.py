"""The line at the top: on which model, SAE, store and device the page runs, and how much memory that takes.

Also how the model was opened, and what was said of it then. Knows the session's facts and the machine's
memory; nothing of any visitor but how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import NamedTuple

import gradio as gr

from explorer.session import Session
from explorer.session.machine import Memory, Running, device_of, memory, running
from explorer.ui.hub import AT_ONCE, Hub, html
from explorer.vlm.loading import Choice

EVERY = 30
"""Seconds between two looks at the machine while the page is open."""


FAMILIES = {
    "idefics3": "Idefics3",
    "instructblip": "InstructBLIP",
    "internvl": "InternVL",
    "llava": "LLaVA",
    "llava_next": "LLaVA-NeXT",
    "paligemma": "PaliGemma",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_vl": "Qwen2-VL",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_vl_moe": "Qwen3-VL",
    "smolvlm": "SmolVLM",
}
"""What people call the families, by `config.model_type`."""

REMARKS = {"warning: ": True, "note: ": False}
"""How lines begin that are told while a session opens and matter afterwards; whether they warn."""


@dataclass(frozen=True)
class Opening:
    """How the session was opened. options: the arguments but for model, SAE and store, as they were written;
    remarks: what was told of model and SAE then, warnings first, with "Warning: " or "Note: " before each."""

    options: str = ""
    remarks: tuple[str, ...] = ()


def opening(choice: Choice, told: Sequence[str]) -> Opening:
    """How a choice was opened. told: every line that opening told; only warnings and notes are kept."""
    found = [
        (not warns, f"{begin.capitalize()}{line.removeprefix(begin)}")
        for line in dict.fromkeys(told)
        for begin, warns in REMARKS.items()
        if line.startswith(begin)
    ]
    remarks = tuple(words for _, words in sorted(found, key=lambda one: one[0]))
    return Opening(replace(choice, model=None, sae=None).words(), remarks)


class Health(NamedTuple):
    """The components of the line."""

    line: gr.HTML
    clock: gr.Timer


class Facts(NamedTuple):
    """What the line tells. indexed: pictures of the store, None without one; visitors: None when unknown;
    family: "" for an unknown one; pictures: how the model takes them in; sae: what its files say of it, in
    words; store: where its pictures are from, "" without one; opened: how, and what was said."""

    model: str
    block: int
    neurons: int
    indexed: int | None
    running: Running
    memory: Memory
    visitors: int | None = None
    family: str = ""
    pictures: str = ""
    sae: str = ""
    store: str = ""
    opened: Opening = Opening()


def facts(session: Session, visitors: int | None = None, opened: Opening | None = None) -> Facts:
    """The facts of this moment."""
    known = None if session.store is None else session.store.manifest
    return Facts(
        model=session.lvlm.model_id,
        block=session.block,
        neurons=session.sae.n_neurons,
        indexed=None if known is None else known.n_images,
        running=running(session.lvlm, session.sae),
        memory=memory(device_of(session.sae)),
        visitors=visitors,
        family=family_of(session),
        pictures=session.lvlm.preprocessing,
        sae=sae_words(session),
        store="" if known is None else f"{known.n_images:,} indexed: {known.source}",
        opened=opened or Opening(),
    )


def family_of(session: Session) -> str:
    """What people call the model's family; "" when the model does not tell."""
    config = getattr(getattr(session.lvlm, "model", None), "config", None)
    kind = getattr(config, "model_type", "")
    return FAMILIES.get(kind, kind)


def sae_words(session: Session) -> str:
    """The SAE's rule, where its file comes from, how it scales its inputs, and the beginning of its id."""
    sae = session.sae
    rule = sae.rule.kind + (f", k = {sae.rule.k}" if sae.rule.k else "")
    parts = [rule, str(sae.facts.get("project") or sae.facts.get("format") or "")]
    parts.append("scales its inputs" if sae.scaling else "")
    return ", ".join([*filter(None, parts), f"id {sae.short_id}"])


def size(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def drawn(now: Facts) -> str:
    """The title and the line as HTML; the details are folded away."""
    name, _, weights = now.model.partition("@")
    brief = [name.rpartition("/")[2], now.family, f"{now.neurons:,} neurons"]
    brief.append("no store" if now.indexed is None else f"{now.indexed:,} pictures")
    used = now.memory.device_used if now.memory.device_used is not None else now.memory.process
    brief += [now.running.words(), size(used)]
    rows = {
        "Model": f"{name}{f', weights {weights}' if weights else ''}",
        "Family": now.family,
        "Pictures": now.pictures,
        "SAE": f"{now.neurons:,} neurons at block {now.block} of the vision tower",
        "": now.sae,
        "Store": now.store or "none",
        "Device": now.running.device,
        "Numbers": _numbers(now.running),
        "Opened with": now.opened.options,
        "Memory": _memory(now.memory),
        "Visitors": "" if now.visitors is None else f"{now.visitors} at the moment",
    }
    details = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in rows.items() if value
    )
    remarks = "".join(f'<dd class="remark">{escape(words)}</dd>' for words in now.opened.remarks)
    said = escape(" · ".join(filter(None, brief)))
    return (
        '<header class="title"><h1>Visual neurons</h1><details class="health">'
        f'<summary title="What the page runs on"><span class="brief">{said}</span>'
        f"{_count(now.opened.remarks)}</summary><dl>{details}{remarks}</dl></details></header>"
    )


def _count(remarks: Sequence[str]) -> str:
    """How many remarks the details hold."""
    warnings = sum(words.startswith("Warning") for words in remarks)
    notes = len(remarks) - warnings
    said = [f"{n} {word}{'s' if n > 1 else ''}" for n, word in ((warnings, "warning"), (notes, "note")) if n]
    return f'<span class="remarks">{", ".join(said)}</span>' if said else ""


def _memory(now: Memory) -> str:
    if now.device_used is None or now.device_total is None:
        return f"{size(now.process)} of this process"
    on_device = f"{size(now.device_used)} of {size(now.device_total)} on the device"
    return f"{size(now.process)} of this process, {on_device}"


def _numbers(now: Running) -> str:
    """In what the model computes, in words."""
    if now.quantized is None:
        return now.dtype
    bits = now.quantized.removesuffix("bit")
    return f"{now.dtype}; the language model's matrices in {bits} bits"


def draw(session: Session, opened: Opening) -> Health:
    """Lay out the line."""
    return Health(html("title", drawn(facts(session, None, opened)), "health.js"), gr.Timer(EVERY))


def wire(hub: Hub, parts: Health, opened: Opening) -> None:
    """Look again when a page opens, and now and then."""

    def look() -> str:
        return drawn(facts(hub.session, visitors(hub.page), opened))

    hub.page.load(look, None, parts.line, **AT_ONCE)
    parts.clock.tick(look, None, parts.line, **AT_ONCE)


def visitors(page: gr.Blocks) -> int | None:
    """How many pages are open; None while none is served."""
    holder = getattr(page, "state_holder", None)
    if holder is None:
        return None
    return sum(not session.is_closed for session in list(holder.session_data.values()))
