"""Events that carry data run each time; those that only read values may be overtaken."""

from __future__ import annotations

import gradio as gr

from explorer.ui.clicks import count_each
from explorer.ui.plain import plainly


@plainly
def clicked(value: str, event: gr.EventData) -> str:
    return value


@plainly
def moved(value: str) -> str:
    return value


def test_handlers_that_read_the_event_run_each_time() -> None:
    with gr.Blocks() as page:
        part = gr.HTML("", js_on_load="trigger('pick', {}); trigger('move')")
        for trigger in (part.pick, part.move):
            trigger(clicked, part, part, trigger_mode="always_last")
            trigger(moved, part, part, trigger_mode="always_last")
            trigger(clicked, part, part, trigger_mode="once")
    count_each(page)
    modes = [event["trigger_mode"] for event in page.get_config_file()["dependencies"]]
    assert modes == ["multiple", "always_last", "once"] * 2
