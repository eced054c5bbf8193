// The bench: a slider per neuron, one line each. Its rows are the component's value, as JSON, in both directions.
// `marked` are the patches marked on the picture; rows that act "at the marked patches" follow them. `reach` is
// how far sliders go, by the size of the picture's activations; one with a value beyond goes further.
function rangeOf(row) {
  if (row.mode === 'scale') return { min: -10, max: 10, step: 0.1 };
  let reach = props.reach > 0 ? props.reach : 100;
  const asked = Math.abs(row.value ?? row.rest);
  while (asked > reach && reach < 1e6) reach *= 10;
  return { min: -reach, max: reach, step: reach / 100 };
}
const MODES = [['set', 'set to'], ['add', 'add'], ['scale', 'multiply']];
let rows = [];
let last = null;

const home = () => element.querySelector('.rows');
const rest = (row) => ({ set: row.rest, add: 0, scale: 1 })[row.mode];
const make = (tag, facts = {}, ...children) => {
  const { data, ...more } = facts;
  const node = Object.assign(document.createElement(tag), more);
  for (const [name, value] of Object.entries(data ?? {})) node.dataset[name] = value;
  node.append(...children);
  return node;
};

function read() {
  try {
    const found = JSON.parse(props.value || '[]');
    return Array.isArray(found) ? found : [];
  } catch {
    return [];
  }
}

function tell(key = '', held = false) {
  document.dispatchEvent(new CustomEvent('steering', { detail: { bench: JSON.stringify(rows), key, held } }));
}

// acts: whether the answer can differ; key, held: what one step of undo takes together.
function send(key, acts = true, held = false) {
  last = JSON.stringify(rows);
  props.value = last;
  tell(key, held);
  if (acts) trigger('input');
}

function choice(row, name, label, options, chosen, change) {
  const select = make('select', { ariaLabel: `${label} of ${row.name}`, data: { at: `${row.neuron} ${name}` } });
  for (const [value, words, disabled] of options) {
    select.append(make('option', { value, textContent: words, disabled: Boolean(disabled) }));
  }
  select.value = chosen;
  select.title = select.selectedOptions[0]?.textContent ?? '';
  select.addEventListener('change', () => change(select.value));
  return select;
}

function regions(row) {
  const marked = props.marked?.length ? props.marked : row.patches ?? [];
  let words = `at ${marked.length} marked patches`;
  if (!marked.length) words = 'at marked patches';
  if (marked.length === 1) words = `at patch ${marked[0][0] + 1}, ${marked[0][1] + 1}`;
  const options = [['active', 'where it fires'], ['all', 'everywhere'], ['marked', words, !marked.length]];
  if (row.concept) options.unshift(['seen', `where ${row.concept.replaceAll('_', ' ')} is seen`]);
  return choice(row, 'region', 'Region', options, row.region, (value) => {
    row.region = value;
    if (value === 'marked') row.patches = marked;
    draw();
    send(`region ${row.neuron}`, row.value !== null && !row.muted);
  });
}

function icon(row, name, textContent, title, act) {
  const button = make('button', { type: 'button', textContent, title, className: name, ariaLabel: `${title}: ${row.name}`, data: { at: `${row.neuron} ${name}` } });
  button.addEventListener('click', act);
  return button;
}

function mute(row) {
  const box = make('input', { type: 'checkbox', checked: !row.muted, title: 'Apply this row', ariaLabel: `Apply ${row.name}`, data: { at: `${row.neuron} mute` } });
  box.addEventListener('change', () => {
    row.muted = !box.checked;
    draw();
    send(`mute ${row.neuron}`, row.value !== null);
  });
  return box;
}

// Why a row does nothing, where that is known.
function idle(row) {
  if (row.region === 'seen' && row.absent) return `${row.concept.replaceAll('_', ' ')} is not seen here: no effect`;
  if (row.region === 'active' && !row.rest) return 'it does not fire here: no effect';
  return '';
}

function drawRow(row) {
  const range = rangeOf(row);
  const slider = make('input', { type: 'range', ...range, ariaLabel: `${row.name}, neuron ${row.neuron}`, data: { at: `${row.neuron} slider` } });
  const number = make('input', { type: 'number', step: 'any', ariaLabel: `Value for ${row.name}`, data: { at: `${row.neuron} number` } });
  const node = make('div', { className: 'row' });
  let held = false;
  const sync = () => {
    const value = row.value ?? rest(row);
    slider.value = value;
    number.value = row.value === null ? '' : Number(value.toPrecision(6));
    number.placeholder = String(Number(rest(row).toPrecision(6)));
    node.classList.toggle('moved', row.value !== null);
    node.classList.toggle('muted', Boolean(row.muted));
  };
  const set = (value, key = `value ${row.neuron}`) => {
    row.value = value;
    sync();
    send(key, !row.muted, held);
  };
  const tidy = (value) => Number((Math.round((value / range.step) * 10) * range.step / 10).toPrecision(6));
  slider.addEventListener('pointerdown', () => { held = true; });
  slider.addEventListener('pointerup', () => { held = false; });
  slider.addEventListener('pointercancel', () => { held = false; });
  slider.addEventListener('input', () => set(Number(slider.value)));
  slider.addEventListener('keydown', (event) => {
    const way = { ArrowLeft: -1, ArrowDown: -1, PageDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 1 }[event.key];
    if (event.key === 'Home' || event.key === 'End') set(event.key === 'Home' ? range.min : range.max);
    else if (way) {
      const far = event.shiftKey || event.key.startsWith('Page') ? 10 : 1;
      set(Math.min(range.max, Math.max(range.min, tidy(Number(slider.value) + way * far * range.step))));
    } else return;
    event.preventDefault();
  });
  number.addEventListener('change', () => {
    const typed = number.value.trim();
    set(typed === '' || !Number.isFinite(Number(typed)) ? null : Number(typed), `type ${row.neuron}`);
  });
  const mode = choice(row, 'mode', 'Mode', MODES, row.mode, (value) => {
    const moved = row.value !== null;
    row.mode = value;
    row.value = null;
    draw();
    send(`mode ${row.neuron}`, moved && !row.muted);
  });
  const reset = icon(row, 'reset', '↺', 'Back to rest', () => set(null, `reset ${row.neuron}`));
  const remove = icon(row, 'remove', '×', 'Remove', () => {
    const moved = row.value !== null && !row.muted;
    rows = rows.filter((other) => other !== row);
    draw();
    send(`remove ${row.neuron}`, moved);
  });
  const named = row.name.endsWith(` ${row.neuron}`) ? '' : `#${row.neuron}`;
  node.append(mute(row),
    make('span', { className: 'who', title: `${row.name} #${row.neuron}` },
      make('span', { className: 'name', textContent: row.name }), make('span', { className: 'id', textContent: named })),
    slider, number, mode, regions(row), reset, remove);
  if (idle(row)) node.append(make('p', { className: 'idle', role: 'status', textContent: idle(row) }));
  sync();
  return node;
}

// Redrawing keeps the keyboard where it was; a control that is gone leaves it on the bench.
function draw() {
  const place = home();
  if (!place) return;
  const inside = place.contains(document.activeElement);
  const at = inside ? document.activeElement.dataset.at : '';
  const hint = make('p', { className: 'quiet empty' }, 'Empty. The + on a card puts its neuron here; its slider then changes the answer.');
  place.replaceChildren(...(rows.length ? rows.map(drawRow) : [hint]));
  if (inside) (place.querySelector(`[data-at="${at}"]`) ?? place).focus();
}

function take(value) {
  last = value;
  rows = read();
  draw();
}

watch('value', () => {
  if (props.value === last) return;
  take(props.value);
  tell('server');
  document.dispatchEvent(new Event('bench'));
});

watch('reach', draw);

watch('marked', () => {
  const followers = rows.filter((row) => row.region === 'marked');
  const moved = followers.some((row) => JSON.stringify(row.patches) !== JSON.stringify(props.marked));
  if (props.marked?.length && moved) {
    for (const row of followers) row.patches = props.marked;
    send('brush', followers.some((row) => row.value !== null && !row.muted));
  }
  draw();
});

document.addEventListener('steering-restore', (event) => {
  if (!element.isConnected) return;
  props.value = event.detail.bench;
  take(event.detail.bench);
});
document.addEventListener('bench-reset', () => {
  if (!element.isConnected || rows.every((row) => row.value === null)) return;
  for (const row of rows) row.value = null;
  draw();
  send('reset all');
});
document.addEventListener('steering-hello', () => { if (element.isConnected) tell(); });
take(props.value);
tell();
