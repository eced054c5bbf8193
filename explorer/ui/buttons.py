"""Buttons inside HTML that the server draws; assets/ui/buttons.js turns a click into an event (see `hub`)."""

from __future__ import annotations

import json
from html import escape


def does(name: str, **data: object) -> str:
    """The attributes of an element whose click triggers the event `name` with this data."""
    sent = f' data-with="{escape(json.dumps(data))}"' if data else ""
    return f'data-do="{escape(name)}"{sent}'
