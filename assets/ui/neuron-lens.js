// One exemplar enlarged, in a dialog that keeps the focus inside; its tiles are in #neuron-sheet.
const dialog = element.querySelector('dialog');
const part = (name) => dialog.querySelector(name);
let tiles = [];
let at = -1;

function show(index) {
  at = Math.min(tiles.length - 1, Math.max(0, index));
  const tile = tiles[at];
  if (!tile) return;
  const small = tile.querySelector('img');
  if (!dialog.open || !part('.photo').src) {
    part('.photo').src = small.src;
    part('.heat').hidden = true;
  }
  part('.num').textContent = `${at + 1} of ${tiles.length}`;
  for (const step of dialog.querySelectorAll('[data-step]')) {
    step.disabled = !tiles[at + Number(step.dataset.step)];
  }
  if (!dialog.open) dialog.showModal();
  trigger('enlarge', { kind: tile.dataset.kind, rank: Number(tile.dataset.rank) });
}

document.addEventListener('click', (event) => {
  const tile = event.target.closest?.('#neuron-sheet .tile');
  if (!tile || !element.isConnected) return;
  tiles = [...tile.closest('ol').querySelectorAll('.tile')];
  part('.photo').removeAttribute('src');
  show(tiles.indexOf(tile));
});

// What the server knows of the exemplar. Answers to tiles that were left meanwhile are not shown.
watch('value', () => {
  const tile = tiles[at];
  if (!props.value || !tile) return;
  const found = JSON.parse(props.value);
  if (found.kind !== tile.dataset.kind || String(found.rank) !== tile.dataset.rank) return;
  part('h2').textContent = found.title;
  part('.photo').src = found.photo;
  part('.photo').alt = [found.title, ...found.facts].join('. ');
  part('.heat').src = found.heat;
  part('.heat').hidden = false;
  part('.facts').replaceChildren(...found.facts.map((text) => {
    const line = document.createElement('p');
    line.textContent = text;
    return line;
  }));
  part('.origin').textContent = found.origin;
});

// The browser would let Tab leave the dialog for its own bars; here it goes round.
function turn(event) {
  const stops = [...dialog.querySelectorAll('button:enabled, input')];
  const end = event.shiftKey ? stops[0] : stops.at(-1);
  if (document.activeElement !== end && dialog.contains(document.activeElement)) return;
  event.preventDefault();
  (event.shiftKey ? stops.at(-1) : stops[0]).focus();
}

dialog.addEventListener('keydown', (event) => {
  if (event.key === 'Tab') turn(event);
  if (event.target.matches('input')) return;
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  if (event.key in steps) {
    event.preventDefault();
    show(at + steps[event.key]);
  }
});
dialog.addEventListener('click', (event) => {
  const step = event.target.closest('[data-step]');
  if (step) show(at + Number(step.dataset.step));
  if (event.target === dialog || event.target.closest('.close')) dialog.close();
});
dialog.addEventListener('close', () => tiles[at]?.focus());
part('.opacity input').addEventListener('input', (event) => {
  dialog.style.setProperty('--heat', event.target.value);
});
