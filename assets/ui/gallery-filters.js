// The gallery's filters. What is asked for is the component's value, as JSON, in both directions; what can be
// asked for comes in the properties facets, classes, labels and lists.
const PAUSE = 250;
let query = {};
let last = null;
let timer = 0;

const make = (tag, facts = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), facts);
  node.append(...children);
  return node;
};
const plain = (label) => label.replaceAll('_', ' ');

function read() {
  try {
    return JSON.parse(props.value || '{}');
  } catch {
    return {};
  }
}

function send(changes, wait = 0) {
  Object.assign(query, changes, { page: 0 });
  for (const [name, value] of Object.entries(query)) {
    const open = Array.isArray(value) && name !== 'given' && value.every((end) => end === null);
    if (value === '' || value === 0 || open) delete query[name];
  }
  clearTimeout(timer);
  timer = setTimeout(() => {
    last = JSON.stringify(query);
    props.value = last;
    trigger('input');
  }, wait);
}

const syncs = [];
const synced = (sync) => {
  syncs.push(sync);
  sync();
};

function group(title, ...children) {
  return make('fieldset', {}, make('legend', { textContent: title }), ...children);
}

function words() {
  const box = make('input', { type: 'search', placeholder: 'names, labels, words, notes', ariaLabel: 'Search in names, labels, words and notes', maxLength: 80 });
  box.addEventListener('input', () => send({ text: box.value.trim() }, PAUSE));
  synced(() => { if (document.activeElement !== box || !query.text) box.value = query.text ?? ''; });
  return group('Text', box);
}

function asks(textContent, name, data, title) {
  const node = make('button', { type: 'button', textContent, title });
  node.addEventListener('click', () => trigger(name, data));
  return node;
}

function likeness() {
  const pair = make('div', { className: 'pair' },
    asks('My picture', 'alike', { what: 'picture' }, 'Neurons whose exemplars look like the picture of the workspace'),
    asks('Marked patches', 'alike', { what: 'patches' }, 'Neurons whose exemplars look like the patches marked in the workspace'));
  return group('Looks like', pair);
}

function labels() {
  const list = make('datalist', { id: 'gallery-labels' });
  const byWords = new Map();
  for (const [label, count] of props.labels ?? []) {
    byWords.set(plain(label), label);
    list.append(make('option', { value: plain(label), label: `${count} neuron${count === 1 ? '' : 's'}` }));
  }
  const box = make('input', { type: 'search', placeholder: byWords.size ? `such as ${byWords.keys().next().value}` : '', ariaLabel: 'Label', autocomplete: 'off', maxLength: 80 });
  box.setAttribute('list', list.id);
  const choose = () => {
    const typed = box.value.trim();
    const label = byWords.get(typed) ?? typed;
    if (label !== (query.label ?? '')) send({ label });
  };
  box.addEventListener('change', choose);
  box.addEventListener('input', () => { if (!box.value.trim() || byWords.has(box.value.trim())) choose(); });
  synced(() => { if (document.activeElement !== box || !query.label) box.value = plain(query.label ?? ''); });
  return group('Label', box, list);
}

function classes() {
  const boxes = (props.classes ?? []).map(({ key, words: name, meaning, count }) => {
    const box = make('input', { type: 'checkbox', value: key });
    box.addEventListener('change', () => send({ classes: boxes.map((node) => node.querySelector('input')).filter((one) => one.checked).map((one) => one.value) }));
    synced(() => { box.checked = (query.classes ?? []).includes(key); });
    return make('label', { className: 'check', title: meaning }, box, make('span', { textContent: name }),
      make('span', { className: 'num', textContent: count.toLocaleString('en') }));
  });
  return group('Class', ...boxes);
}

function lists() {
  const select = make('select', { ariaLabel: 'List' });
  select.append(make('option', { value: '', textContent: 'any' }));
  for (const [name, count] of props.lists ?? []) select.append(make('option', { value: name, textContent: `${name} (${count})` }));
  select.addEventListener('change', () => send({ listed: select.value }));
  synced(() => {
    const wanted = query.listed ?? '';
    if (wanted && ![...select.options].some((one) => one.value === wanted)) select.append(make('option', { value: wanted, textContent: `${wanted} (0)` }));
    select.value = wanted;
  });
  return group('In a list', select);
}

const said = (unit, value) => {
  if (unit !== 'share') return Number(value.toPrecision(3)).toString();
  const percent = 100 * value;
  return `${percent === 0 || percent >= 10 ? Math.round(percent) : Number(percent.toPrecision(2))} %`;
};

// A distribution with two handles at the edges of its bins. Ends at the outermost edges are open.
function range({ key, title, unit, edges, counts }) {
  const n = counts.length;
  const top = Math.sqrt(Math.max(...counts, 1));
  const bars = counts.map((count, i) => {
    const bar = make('i', { title: `${said(unit, edges[i])} to ${said(unit, edges[i + 1])}: ${count.toLocaleString('en')} neurons` });
    bar.style.height = `${count ? Math.max(6, 100 * Math.sqrt(count) / top) : 0}%`;
    return bar;
  });
  const handle = (name) => make('input', { type: 'range', min: 0, max: n, step: 1, ariaLabel: `${title}, ${name}` });
  const low = handle('at least');
  const high = handle('at most');
  const shown = make('output');
  const paint = () => {
    const [from, to] = [Number(low.value), Number(high.value)];
    bars.forEach((bar, i) => bar.toggleAttribute('data-out', i < from || i >= to));
    shown.textContent = from === 0 && to === n ? 'any' : `${said(unit, edges[from])} – ${said(unit, edges[to])}`;
    low.setAttribute('aria-valuetext', from === 0 ? 'no lower end' : said(unit, edges[from]));
    high.setAttribute('aria-valuetext', to === n ? 'no upper end' : said(unit, edges[to]));
    low.style.zIndex = from > n / 2 ? 2 : 1;
  };
  const moved = (node) => {
    if (Number(low.value) >= Number(high.value)) {
      if (node === low) low.value = Math.max(0, Number(high.value) - 1);
      else high.value = Math.min(n, Number(low.value) + 1);
    }
    paint();
    const [from, to] = [Number(low.value), Number(high.value)];
    send({ [key]: [from === 0 ? null : edges[from], to === n ? null : edges[to]] }, PAUSE / 2);
  };
  for (const node of [low, high]) node.addEventListener('input', () => moved(node));
  const nearest = (value) => edges.reduce((best, edge, i) => (Math.abs(edge - value) < Math.abs(edges[best] - value) ? i : best), 0);
  synced(() => {
    const [from, to] = query[key] ?? [null, null];
    low.value = from === null ? 0 : nearest(from);
    high.value = to === null ? n : nearest(to);
    paint();
  });
  const node = group(title, shown, make('div', { className: 'bars', ariaHidden: 'true' }, ...bars), make('div', { className: 'handles' }, low, high));
  node.className = 'range';
  return node;
}

function draw() {
  const place = element.querySelector('.filters');
  if (!place) return;
  syncs.length = 0;
  const open = place.querySelector('details')?.open ?? matchMedia('(min-width: 900px)').matches;
  if (!props.facets) {
    place.replaceChildren();
    return;
  }
  const fold = make('details', { open }, make('summary', { textContent: 'Filters' }),
    words(), likeness(), labels(), classes(), ...props.facets.map(range), lists());
  const random = asks('Random neuron', 'random', {}, 'Open the page of any neuron that is not dead');
  random.className = 'plain';
  place.replaceChildren(random, fold);
}

watch('value', () => {
  if (props.value === last) return;
  last = props.value;
  query = read();
  syncs.forEach((sync) => sync());
});
for (const name of ['facets', 'lists']) watch(name, () => draw());
watch('go', () => { if (props.go) trigger('page', { neuron: props.go.neuron }); });
query = read();
draw();
trigger('ready');
