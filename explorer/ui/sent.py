"""What a browser sent with an event, and the visit that it belongs to. Checks nothing but that they exist."""

from __future__ import annotations

import gradio as gr

from explorer.errors import ExplorerError
from explorer.ui.visit import Visit


def there(visit: Visit | None) -> Visit:
    """The visit, once there is one. Raises ExplorerError."""
    if visit is None:
        raise ExplorerError("no picture is open; choose an example or upload one")
    return visit


def sent(event: gr.EventData, name: str) -> object:
    """What the browser sent under a name, unchecked; None when it sent nothing."""
    data = event._data
    return data.get(name) if isinstance(data, dict) else None
