"""The notice over the whole page when there is no store: why, and the command that builds one."""

from __future__ import annotations

from html import escape

from explorer.session import Session
from explorer.ui.hub import Rules

NOTHING_KNOWN = "<b>No exemplars and no names of neurons:</b>"
MEANWHILE = "Pictures, sliders and answers work without. Run this, then start the page again:"


def trouble(session: Session, rules: Rules) -> str:
    """Why the session has no store, and what to run; "" when it has one."""
    if session.store is not None:
        return ""
    return rules.trouble or f"this session has no store of exemplars; build one with: {session.build_command}"


def no_store(session: Session, rules: Rules) -> str:
    """The notice as HTML, "" when there is a store."""
    why, colon, command = trouble(session, rules).rpartition(": ")
    if not colon:
        return ""
    said = why.rpartition("; ")[0] or why
    return (
        f'<div class="notice store" role="status"><p>{NOTHING_KNOWN} {escape(said)}. {MEANWHILE}</p>'
        f'<p class="command"><code id="build-command">{escape(command)}</code>'
        '<button type="button" class="chip" data-copy="build-command">Copy</button></p></div>'
    )
