"""A person's words in the form that a model was trained on, with or without a picture.

Knows the chat templates of transformers' processors; nothing of tokens.
"""

from __future__ import annotations

from jinja2 import TemplateError
from transformers import ProcessorMixin

from explorer.errors import ModelError


def in_form(processor: ProcessorMixin, prompt: str, preface: str = "", picture: bool = True) -> str:
    """The text that the model reads: one turn of the person, and what opens the answer.

    picture: with one image token, or none. preface: an instruction in front: a system message when the
    template has a form for one, else put before the first turn.
    Raises ModelError for words that contain the image token themselves, and for a template of another model.
    """
    mark = processor.image_token
    if mark in prompt or mark in preface:
        raise ModelError(f"the prompt may not contain {mark!r}: it stands for the picture")
    if not processor.chat_template:
        turn = f"USER: {mark}\n{prompt} ASSISTANT:" if picture else f"USER: {prompt} ASSISTANT:"
        return f"{preface} {turn}" if preface else turn
    shown = [{"type": "image"}] if picture else []
    turn = {"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}
    plain = processor.apply_chat_template([turn], add_generation_prompt=True)
    if picture and plain.count(mark) != 1:
        raise ModelError(
            f"the model's chat template writes {mark!r}, which stands for the picture, {plain.count(mark)} "
            "times instead of once; take the chat template that it was published with"
        )
    if not preface:
        return plain
    return _as_system_message(processor, preface, turn) or f"{preface} {plain}"


def _as_system_message(processor: ProcessorMixin, preface: str, turn: dict) -> str | None:
    """The turn behind a system message; None when the template makes no difference between roles."""
    content = [{"type": "text", "text": preface}]
    texts = []
    for role in ("system", "user"):
        try:
            messages = [{"role": role, "content": content}, turn]
            texts.append(processor.apply_chat_template(messages, add_generation_prompt=True))
        except (TemplateError, TypeError):
            texts.append("")
    return texts[0] if preface in texts[0] and texts[0] != texts[1] else None
