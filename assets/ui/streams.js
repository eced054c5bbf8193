// Stands in the head of the page, between the framework and the network, so that no answer is lost or shown too late.
//
// Answers of queued events come on one stream of messages, which the server ends with "close_stream" once every event
// it knows of has completed. An event that joins the queue while that message is on its way finds the stream open,
// opens none of its own, and would wait for ever. Only here is known both what joined and what the stream has brought:
// a stream that ends too early is opened again, unseen by the framework, and one that ends in time is seen to be closed
// before any later event learns that it has joined.
//
// Events join one after another, in the order in which they were triggered. The framework acts at once on messages that
// came before it knew their event, and on others in a task of their own, so that a newer answer would be overtaken by
// an older one: a message goes on to the framework only once it has learnt that its event has joined.
(() => {
  const ask = window.fetch.bind(window);
  const CLOSED_BY = 2000; // milliseconds in which the framework has surely closed a stream that it was told to
  const joins = new Set(); // promises of events that are joining
  const waiting = new Set(); // ids of events that have joined and not completed
  const learnt = new Map(); // of each of these the promise that the framework knows it
  let before = null; // the event that is joining
  let closing = null; // until the framework has closed the stream

  // Note what the server says of an event that joins; `tell` hands it on to the framework.
  async function note(answer) {
    const said = answer.ok ? await answer.clone().json() : {};
    if (!said.event_id) return () => {};
    let known;
    waiting.add(said.event_id);
    learnt.set(said.event_id, new Promise((resolve) => { known = resolve; }));
    return () => {
      answer.json = async () => said; // read without a further task, so that the next one finds the event known
      setTimeout(known);
    };
  }

  async function join(...request) {
    const turn = before && Promise.race([before, new Promise((go) => setTimeout(go, CLOSED_BY))]);
    const answer = turn ? turn.then(() => ask(...request)) : ask(...request);
    const mine = answer.catch(() => {}).then(() => { if (before === mine) before = null; });
    before = mine;
    const noted = answer.then(note).catch(() => () => {}); // what went wrong is for the framework to see
    joins.add(noted);
    const tell = await noted;
    joins.delete(noted);
    await closing;
    tell();
    return answer;
  }

  // The framework knows the event of a message, or has given it up.
  async function ready(id) {
    while (!learnt.has(id) && joins.size) await Promise.race(joins);
    await learnt.get(id);
  }

  function closed(signal) {
    return new Promise((resolve) => {
      signal.addEventListener('abort', resolve, { once: true });
      setTimeout(resolve, CLOSED_BY);
    });
  }

  // The messages of one stream, each with the blank line at its end.
  async function* messages(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      text += part.value;
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        yield text.slice(0, end + 2);
        text = text.slice(end + 2);
      }
    }
    if (text) yield text;
  }

  // The messages of as many streams as it takes, as of one. `known`: what had joined before the stream was asked for.
  // The server ends no stream before these have completed, so those that it does not name were given up, and each
  // further stream has an event of its own to wait for.
  async function* followed(request, answer, known) {
    for (;;) {
      let close = '';
      for await (const message of messages(answer.body)) {
        const [, kind, id] = /^data: ?\{"msg": ?"(\w+)", ?"event_id": ?(?:"(\w+)")?/.exec(message) ?? [];
        if (id) await ready(id);
        if (kind === 'process_completed') {
          waiting.delete(id);
          learnt.delete(id);
        }
        if (kind === 'close_stream') close = message;
        else yield message;
      }
      if (!close) return;
      for (const id of known) {
        waiting.delete(id);
        learnt.delete(id);
      }
      while (joins.size && !waiting.size) await Promise.race(joins);
      if (!waiting.size) {
        closing = closed(request.signal);
        yield close;
        return;
      }
      known = new Set(waiting);
      answer = await ask(request);
      if (!answer.ok) throw answer;
    }
  }

  async function follow(request) {
    const stop = new AbortController();
    request.signal.addEventListener('abort', () => stop.abort(request.signal.reason));
    const known = new Set(waiting);
    const asked = new Request(request, { signal: stop.signal });
    const answer = await ask(asked);
    if (!answer.ok) return answer;
    const source = followed(asked, answer, known);
    const encoder = new TextEncoder();
    const body = new ReadableStream({
      async pull(controller) {
        const { done, value } = await source.next();
        if (done) controller.close();
        else controller.enqueue(encoder.encode(value));
      },
      cancel: () => stop.abort(),
    });
    return new Response(body, { status: answer.status, headers: answer.headers });
  }

  window.fetch = (input, init) => {
    const [path] = String(input?.url ?? input).split(/[?#]/);
    if (path.endsWith('/queue/join')) return join(input, init);
    if (path.endsWith('/queue/data')) return follow(new Request(input, init));
    return ask(input, init);
  };
})();
