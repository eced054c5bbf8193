"""The script that keeps streams of answers from ending too early, on a network played by the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

SCRIPT = Path(__file__).parents[2] / "assets" / "ui" / "streams.js"

NETWORK = """
window.asked = [];  // what was asked of the server, in turn
window.fetch = (input, init) => new Promise((resolve, reject) => {
  const one = {
    path: String(input.url ?? input).split('?')[0].split('/').pop(),
    joined: (id, status = 200) => resolve(new Response(JSON.stringify({ event_id: id }), { status })),
    open: () => resolve(new Response(new ReadableStream({ start(controller) { one.out = controller; } }))),
    refuse: (status) => resolve(new Response('', { status })),
    say: (text) => one.out.enqueue(new TextEncoder().encode(text)),
    end: () => one.out.close(),
    lose: () => one.out.error(new TypeError('network error')),
  };
  input.signal?.addEventListener('abort', () => {
    one.aborted = true;
    reject(input.signal.reason);
    one.out?.error(input.signal.reason);
  });
  asked.push(one);
});
"""
PAGE = """
const ADDRESS = 'http://page.test/neurons/gradio_api/queue/';
window.message = (msg, id) => `data: {"msg":"${msg}","event_id":${id ? `"${id}"` : null},"output":{}}\\n\\n`;
window.CLOSE = message('close_stream');
window.soon = () => new Promise((resolve) => setTimeout(resolve, 30));
window.streams = () => asked.filter((one) => one.path === 'data');

// A stream as the framework reads it: `heard` is what came, `ended` how it went out. It closes when told to.
window.listen = () => {
  const stop = new AbortController();
  const shown = { heard: '', stop };
  shown.ended = (async () => {
    const answer = await fetch(new Request(`${ADDRESS}data?session_hash=me`, { signal: stop.signal }));
    if (!answer.ok) return answer.status;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      shown.heard += part.value;
      if (shown.heard.includes(CLOSE) && !shown.deaf) stop.abort();
    }
    return 'end';
  })().catch((error) => error.status ?? error.name);
  return shown;
};
window.join = () => {
  const joining = { done: false };
  joining.answer = fetch(`${ADDRESS}join?`, { method: 'POST', body: '{}' }).then((answer) => {
    joining.done = true;
    return answer;
  });
  joining.server = asked.at(-1);
  return joining;
};
// An event that has joined, and the stream that the framework opens for it.
window.begin = async (id) => {
  const first = join();
  first.server.joined(id);
  await first.answer;
  const shown = listen();
  await soon();
  streams().at(-1).open();
  await soon();
  return shown;
};
"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page with the script between what the tests ask and the network that they play."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    for code in (NETWORK, SCRIPT.read_text(encoding="utf-8"), PAGE):
        page.add_script_tag(content=code)
    yield page
    context.close()


def test_a_stream_whose_events_have_completed_closes(page: Page) -> None:
    """Also when its messages come in pieces; and nothing is asked for a second time."""
    found = page.evaluate("""async () => {
        const shown = await begin('a1');
        const whole = message('process_starts', 'a1') + message('process_completed', 'a1') + CLOSE;
        for (const letter of whole) streams()[0].say(letter);
        streams()[0].end();
        return [await shown.ended, shown.heard === whole, asked.length];
    }""")
    assert found == ["end", True, 2]


@pytest.mark.parametrize("answered", ["before", "after"])
def test_a_stream_goes_on_for_an_event_that_joined_as_it_ended(page: Page, answered: str) -> None:
    """Whether its joining was answered before the end came, or after."""
    found = page.evaluate(
        """async (before) => {
        const shown = await begin('a1');
        const next = join();
        if (before) next.server.joined('b2');
        if (before) await next.answer;
        streams()[0].say(message('process_completed', 'a1') + CLOSE);
        streams()[0].end();
        await soon();
        const early = streams().length;
        if (!before) next.server.joined('b2');
        await next.answer;
        await soon();
        const heard = shown.heard;
        streams()[1].open();
        await soon();
        streams()[1].say(message('process_completed', 'b2') + CLOSE);
        streams()[1].end();
        const ended = await shown.ended;
        return [early, heard.includes(CLOSE), ended, shown.heard.includes('"b2"'), streams().length];
    }""",
        answered == "before",
    )
    assert found == [2 if answered == "before" else 1, False, "end", True, 2]


def test_an_event_that_completed_before_its_joining_was_answered_is_not_waited_for(page: Page) -> None:
    found = page.evaluate("""async () => {
        const shown = await begin('a1');
        const next = join();
        streams()[0].say(message('process_completed', 'b2') + message('process_completed', 'a1') + CLOSE);
        streams()[0].end();
        await soon();
        next.server.joined('b2');
        await next.answer;
        return [await shown.ended, streams().length];
    }""")
    assert found == ["end", 1]


def test_who_joins_a_closing_stream_hears_of_it_once_it_is_closed(page: Page) -> None:
    found = page.evaluate("""async () => {
        const shown = await begin('a1');
        shown.deaf = true;
        streams()[0].say(message('process_completed', 'a1') + CLOSE);
        streams()[0].end();
        await shown.ended;
        const next = join();
        next.server.joined('b2');
        await soon();
        const before = next.done;
        shown.stop.abort();
        return [before, (await (await next.answer).json()).event_id, streams().length];
    }""")
    assert found == [False, "b2", 1]


def test_a_refused_joining_keeps_no_stream_open(page: Page) -> None:
    found = page.evaluate("""async () => {
        const shown = await begin('a1');
        const next = join();
        streams()[0].say(message('process_completed', 'a1') + CLOSE);
        streams()[0].end();
        await soon();
        next.server.joined(null, 503);
        return [(await next.answer).status, await shown.ended, streams().length];
    }""")
    assert found == [503, "end", 1]


def test_an_event_that_the_server_gave_up_reopens_nothing(page: Page) -> None:
    """It had joined before the stream was asked for, so the end of that says that nobody works on it."""
    found = page.evaluate("""async () => {
        const shown = await begin('a1');
        streams()[0].lose();
        const lost = await shown.ended;
        const again = await begin('b2');
        streams()[1].say(message('process_completed', 'b2') + CLOSE);
        streams()[1].end();
        return [lost, await again.ended, streams().length];
    }""")
    assert found == ["TypeError", "end", 2]


def test_what_goes_wrong_reaches_the_page_as_before(page: Page) -> None:
    """A refused stream, one refused when it was to go on, one that breaks off, an error told in a message."""
    found = page.evaluate("""async () => {
        const refused = listen();
        await soon();
        streams()[0].refuse(401);
        const first = await refused.ended;
        const shown = await begin('a1');
        const next = join();
        next.server.joined('b2');
        await next.answer;
        streams()[1].say(message('process_completed', 'a1') + CLOSE);
        streams()[1].end();
        await soon();
        streams()[2].refuse(503);
        const second = await shown.ended;
        const told = await begin('c3');
        streams()[3].say(message('unexpected_error'));
        streams()[3].end();
        const third = [await told.ended, told.heard === message('unexpected_error')];
        const last = join();
        last.server.joined('d4');
        await soon();
        return [first, second, ...third, last.done, streams().length];
    }""")
    assert found == [401, 503, "end", True, True, 4]


def test_a_page_that_stops_listening_ends_the_stream_at_the_server(page: Page) -> None:
    found = page.evaluate("""async () => {
        const shown = await begin('a1');
        shown.stop.abort();
        return [await shown.ended, streams()[0].aborted];
    }""")
    assert found == ["AbortError", True]


def test_events_join_in_the_order_in_which_they_were_triggered(page: Page) -> None:
    found = page.evaluate("""async () => {
        const first = join();
        const second = fetch(`${ADDRESS}join?`, { method: 'POST', body: '{}' });
        await soon();
        const early = asked.length;
        first.server.joined('a1');
        await first.answer;
        await soon();
        asked.at(-1).joined('b2');
        return [early, asked.length, (await (await second).json()).event_id];
    }""")
    assert found == [1, 2, "b2"]


def test_no_message_comes_before_the_page_knows_its_event(page: Page) -> None:
    """It would be acted on at once, before older messages, which wait for a task of their own."""
    found = page.evaluate("""async () => {
        const shown = await begin('a1');
        const next = join();
        streams()[0].say(message('process_completed', 'a1') + message('process_completed', 'b2') + CLOSE);
        streams()[0].end();
        await soon();
        const early = shown.heard.includes('"b2"');
        next.server.joined('b2');
        const known = (await next.answer).json().then(() => shown.heard.includes('"b2"'));
        const first = shown.heard.includes('"a1"');
        return [first, early, await known, await shown.ended, shown.heard.includes('"b2"')];
    }""")
    assert found == [True, False, False, "end", True]
