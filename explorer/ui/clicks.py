"""Lets no click of a visitor get lost. Knows the framework's events; nothing of the page.

An event that a newer one overtakes can wait and run once more ("always_last"), but then with the data of the
first click, not of the last: the neuron clicked first would be shown again. Right for sliders, whose value
is read afresh; wrong for buttons that say what was clicked. Those run each time.
"""

from __future__ import annotations

import gradio as gr


def count_each(page: gr.Blocks) -> None:
    """Run every event whose handler reads what came along with it; call once all events are tied."""
    for event in page.fns.values():
        if event.collects_event_data and event.trigger_mode == "always_last":
            event.trigger_mode = "multiple"
