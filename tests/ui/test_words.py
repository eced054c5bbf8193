"""Marked words: which words differ between two answers, and where each word button points."""

from __future__ import annotations

import json
import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from explorer.ui.workspace.words import mark, tokens, words


def plain(html: str) -> str:
    """The text of some HTML."""
    return unescape(re.sub("<[^>]*>", "", html))


def asked(html: str) -> list[tuple[int, str]]:
    """Where each word button says its word begins, and the word."""
    found = re.findall(r'data-with="([^"]*)">([^<]*)</button>', html)
    return [(json.loads(unescape(data))["at"], unescape(word)) for data, word in found]


def bare(before: str, after: str, finished: bool = True):
    return mark(before, after, finished, buttons=False)


def test_marked_words_of_a_removed_phrase() -> None:
    marked = bare("A table with a cake and a fork.", "A table with a cake.")
    assert marked.before == "A table with a cake <del>and a fork</del>."
    assert marked.after == "A table with a cake."
    assert marked.changes == 1


def test_marked_words_of_an_exchange() -> None:
    marked = bare("a red car", "a blue car")
    assert (marked.before, marked.after) == ("a <del>red</del> car", "a <ins>blue</ins> car")


def test_what_a_growing_answer_has_not_reached_is_not_lost() -> None:
    marked = bare("a cake and a fork and a dog", "a cake", finished=False)
    assert (marked.before, marked.after, marked.changes) == ("a cake and a fork and a dog", "a cake", 0)


def test_words_are_buttons_once_the_answer_is_finished() -> None:
    assert "<button" not in mark("a cake", "a dog", finished=False).after
    marked = mark("a cake and a fork.", "a cake.")
    assert asked(marked.before) == [(0, "a"), (2, "cake"), (7, "and"), (11, "a"), (13, "fork")]
    assert asked(marked.after) == [(0, "a"), (2, "cake")]
    assert re.search(r"<del><button [^>]*>and</button> <button [^>]*>a</button>", marked.before)


def test_only_the_first_word_is_in_the_tab_order() -> None:
    for html in (words("A cake and a fork."), mark("x", "A cake and a fork.").after):
        assert html.count('tabindex="0"') == 1
        assert re.search(r'tabindex="0"[^>]*>A<', html)


def test_marks_escape_html() -> None:
    marked = mark("<b>one</b>", '"<script>alert(1)</script>')
    assert "<script" not in marked.after
    assert "<b>" not in marked.before


TEXT = st.text("ab <>&'\".,’ \n", max_size=30)


@given(TEXT, TEXT, st.booleans())
def test_marked_texts_keep_their_words(before: str, after: str, finished: bool) -> None:
    marked = mark(before, after, finished)
    assert plain(marked.before) == before.strip()
    assert plain(marked.after) == after.strip()
    assert plain(words(before)) == before.strip()
    assert mark(before, before).changes == 0


@given(TEXT, TEXT)
def test_buttons_point_at_their_words(before: str, after: str) -> None:
    marked = mark(before, after)
    for text, html in ((before, marked.before), (after, marked.after), (after, words(after))):
        for at, word in asked(html):
            assert text[at : at + len(word)] == word
        assert [at for at, _ in asked(html)] == sorted(
            {token.at for token in tokens(text)} & {at for at, _ in asked(html)}
        )
