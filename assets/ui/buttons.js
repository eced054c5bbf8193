// Buttons inside server-drawn HTML: one listener for all of them, so that redrawing loses nothing.
const actions = [
  ['[data-example]', 'example', (b) => ({ key: b.dataset.example })],
  ['[data-ask]', 'ask', (b) => ({ text: b.dataset.ask })],
  ['[data-put]', 'put', (b) => ({ neuron: Number(b.dataset.put) })],
  ['[data-best]', 'best', () => ({})],
  ['[data-back]', 'back', () => ({})],
  ['[data-pool]', 'pool', (b) => ({ pool: b.dataset.pool })],
  ['[data-pick]', 'pick', (b) => ({ neuron: Number(b.dataset.pick) })],
];
element.addEventListener('click', (event) => {
  for (const [selector, name, data] of actions) {
    const found = event.target.closest(selector);
    if (found && element.contains(found)) {
      trigger(name, data(found));
      return;
    }
  }
});

// A new list starts at its top; a redrawn one stays where it was.
let heading = '';
watch('value', () => {
  const title = element.querySelector('.heading h2');
  if (title && title.textContent !== heading) {
    heading = title.textContent;
    const list = element.querySelector('.cards');
    if (list) list.scrollTop = 0;
  }
});
