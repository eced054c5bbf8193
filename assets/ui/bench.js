// The bench: a slider per neuron. Its rows are the component's value, as JSON, in both directions.
const RANGES = {
  set: { min: -100, max: 100, step: 1 },
  add: { min: -100, max: 100, step: 1 },
  scale: { min: -10, max: 10, step: 0.1 },
};
const MODES = [['set', 'set to'], ['add', 'add'], ['scale', 'multiply by']];
let rows = [];
let last = null;

const home = () => element.querySelector('.rows');
const rest = (row) => ({ set: row.rest, add: 0, scale: 1 })[row.mode];
const make = (tag, facts = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), facts);
  node.append(...children);
  return node;
};

function read() {
  try {
    return JSON.parse(props.value || '[]');
  } catch {
    return [];
  }
}

function send() {
  last = JSON.stringify(rows);
  props.value = last;
  trigger('input');
}

function choice(label, options, chosen, change) {
  const select = make('select', { ariaLabel: label });
  for (const [value, words, disabled] of options) {
    select.append(make('option', { value, textContent: words, disabled: Boolean(disabled) }));
  }
  select.value = chosen;
  select.title = select.selectedOptions[0]?.textContent ?? '';
  select.addEventListener('change', () => change(select.value));
  return select;
}

function regions(row) {
  const marked = row.region === 'marked' ? row.patches : (props.marked ?? row.patches);
  let words = `at ${marked.length} marked patches`;
  if (!marked.length) words = 'at the marked patches';
  if (marked.length === 1) words = `at patch ${marked[0][0] + 1}, ${marked[0][1] + 1}`;
  const options = [['active', 'where it fires'], ['all', 'everywhere'], ['marked', words, !marked.length]];
  if (row.concept) options.unshift(['seen', `where ${row.concept.replaceAll('_', ' ')} is seen`]);
  return choice(`Region of ${row.name}`, options, row.region, (value) => {
    row.region = value;
    if (value === 'marked') row.patches = marked;
    draw();
    if (row.value !== null) send();
  });
}

function drawRow(row) {
  const range = RANGES[row.mode];
  const slider = make('input', { type: 'range', ...range, ariaLabel: `${row.name}, neuron ${row.neuron}` });
  const number = make('input', { type: 'number', step: 'any', ariaLabel: `Value for ${row.name}` });
  const node = make('div', { className: 'row' });
  const sync = () => {
    const value = row.value ?? rest(row);
    slider.value = value;
    number.value = row.value === null ? '' : value;
    number.placeholder = String(rest(row));
    node.classList.toggle('moved', row.value !== null);
    const share = (Math.min(range.max, Math.max(range.min, value)) - range.min) / (range.max - range.min);
    slider.style.setProperty('--share', `${100 * share}%`);
  };
  const set = (value) => {
    row.value = value;
    sync();
    send();
  };
  slider.addEventListener('input', () => set(Number(slider.value)));
  number.addEventListener('change', () => {
    const typed = number.value.trim();
    set(typed === '' || !Number.isFinite(Number(typed)) ? null : Number(typed));
  });
  const mode = choice(`Mode of ${row.name}`, MODES, row.mode, (value) => {
    const moved = row.value !== null;
    row.mode = value;
    row.value = null;
    draw();
    if (moved) send();
  });
  const reset = make('button', { type: 'button', textContent: '↺', title: 'Back to rest', ariaLabel: `Reset ${row.name}` });
  reset.addEventListener('click', () => set(null));
  const remove = make('button', { type: 'button', textContent: '×', title: 'Take off the bench', ariaLabel: `Remove ${row.name}` });
  remove.addEventListener('click', () => {
    rows = rows.filter((other) => other !== row);
    draw();
    send();
  });
  node.append(
    make('div', { className: 'who' },
      make('span', { className: 'name', textContent: row.name, title: row.name }),
      make('span', { className: 'id', textContent: row.name.endsWith(` ${row.neuron}`) ? '' : `#${row.neuron}` }),
      mode, regions(row), reset, remove),
    make('div', { className: 'pull' }, slider, number),
  );
  sync();
  return node;
}

function draw() {
  const place = home();
  if (!place) return;
  const all = make('button', { type: 'button', className: 'reset-all', textContent: 'Reset all' });
  all.addEventListener('click', () => {
    rows.forEach((row) => { row.value = null; });
    draw();
    send();
  });
  const hint = make('p', { className: 'quiet', textContent: 'Empty. The + on a card puts its neuron here.' });
  place.replaceChildren(...(rows.length ? [...rows.map(drawRow), all] : [hint]));
}

watch('value', () => {
  if (props.value === last) return;
  last = props.value;
  rows = read();
  draw();
});
watch('marked', () => draw());
rows = read();
draw();
