// Undo, redo and presets, for bench and settings together. Both tell what they hold with a "steering" event on the
// document, and take it back with "steering-restore"; nothing of it leaves the browser.
const MOST = 200;
const PAUSE = 900;
let now = { bench: null, settings: null };
let undone = [];
let done = [];
let lastKey = '';
let lastTime = 0;

const make = (tag, facts = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), facts);
  node.append(...children);
  return node;
};
const find = (name) => element.querySelector(`[data-tool="${name}"]`);
const whole = () => now.bench !== null && now.settings !== null;

// What a person did to the bench, without what another picture does to it.
function deeds(bench) {
  const rows = JSON.parse(bench || '[]');
  return JSON.stringify(rows.map((row) => [row.neuron, row.value, row.mode, row.region, Boolean(row.muted), row.region === 'marked' ? row.patches : 0]));
}

const wishes = (settings) => JSON.stringify(Object.entries(JSON.parse(settings || '{}')).sort());
const same = (one, other) => wishes(one.settings) === wishes(other.settings) && deeds(one.bench) === deeds(other.bench);

function show() {
  find('undo').disabled = !done.length;
  find('redo').disabled = !undone.length;
}

// Changes of one control are one step while it is held or soon after one another; so are bench and settings
// that arrive from the server together.
function record({ key, held, ...part }) {
  const next = { ...now, ...part };
  if (whole() && !same(next, now)) {
    const time = Date.now();
    const server = key === 'server' ? `server ${Object.keys(part)}` : '';
    const both = server && lastKey.startsWith('server ') && lastKey !== server && time - lastTime < 150;
    const one = key === lastKey && (held || time - lastTime < PAUSE);
    if (!both && !one) done = [...done.slice(1 - MOST), now];
    undone = [];
    [lastKey, lastTime] = [server || key, time];
  }
  now = next;
  show();
}

// A drag that begins anew is a step of its own, however soon it follows.
document.addEventListener('pointerdown', () => { lastKey = ''; }, true);

function restore(wanted) {
  const longer = JSON.parse(wanted.settings).max_new_tokens !== JSON.parse(now.settings).max_new_tokens;
  now = wanted;
  lastKey = '';
  show();
  document.dispatchEvent(new CustomEvent('steering-restore', { detail: wanted }));
  setTimeout(() => trigger(longer ? 'reasked' : 'restored'), 0);
}

function undo() {
  if (!done.length) return;
  const wanted = done.pop();
  undone.push(now);
  restore(wanted);
}

function redo() {
  if (!undone.length) return;
  const wanted = undone.pop();
  done.push(now);
  restore(wanted);
}

function apply(preset) {
  const wanted = { bench: preset.bench ?? now.bench, settings: preset.settings ?? now.settings };
  if (!whole() || same(wanted, now)) return;
  done = [...done.slice(1 - MOST), now];
  undone = [];
  restore(wanted);
}

// Presets: those of the page, and the person's own, kept in this browser for this SAE.
const shelf = () => `explorer presets ${props.sae ?? ''}`;

function own() {
  try {
    const found = JSON.parse(localStorage.getItem(shelf()) ?? '[]');
    const fits = (one) => typeof one?.name === 'string' && typeof one.bench === 'string' && typeof one.settings === 'string';
    return Array.isArray(found) ? found.filter(fits) : [];
  } catch {
    return [];
  }
}

function keep(presets) {
  try {
    localStorage.setItem(shelf(), JSON.stringify(presets));
    return true;
  } catch {
    return false;
  }
}

function entry(preset, mine) {
  const button = make('button', { type: 'button', className: 'preset' },
    make('b', { textContent: preset.name }), make('span', { className: 'quiet', textContent: preset.meaning ?? '' }));
  button.addEventListener('click', () => {
    find('menu').hidePopover();
    apply(preset);
  });
  const item = make('li', {}, button);
  if (mine) {
    const remove = make('button', { type: 'button', className: 'remove', textContent: '×', title: 'Forget this preset', ariaLabel: `Forget preset ${preset.name}` });
    remove.addEventListener('click', () => {
      keep(own().filter((other) => other.name !== preset.name));
      list();
      find('name').focus();
    });
    item.append(remove);
  }
  return item;
}

function meaning(bench) {
  const count = JSON.parse(bench || '[]').length;
  if (!count) return 'An empty bench and its settings.';
  return count === 1 ? 'One neuron and the settings.' : `${count} neurons and the settings.`;
}

function list() {
  const mine = own().map((preset) => entry({ ...preset, meaning: meaning(preset.bench) }, true));
  find('list').replaceChildren(...(props.presets ?? []).map((preset) => entry(preset, false)), ...mine);
}

function save() {
  const name = find('name').value.trim().slice(0, 60);
  if (!name || !whole()) {
    find('name').focus();
    return;
  }
  const others = own().filter((preset) => preset.name !== name);
  const kept = keep([...others, { name, bench: now.bench, settings: now.settings }]);
  find('said').textContent = kept ? `Kept as “${name}” in this browser.` : 'This browser keeps nothing for this page.';
  find('name').value = '';
  list();
}

function open() {
  const menu = find('menu');
  find('said').textContent = '';
  list();
  menu.showPopover();
  const place = find('presets').getBoundingClientRect();
  const room = { width: menu.offsetWidth, height: menu.offsetHeight };
  menu.style.left = `${Math.max(8, Math.min(place.right - room.width, innerWidth - room.width - 8))}px`;
  const below = place.bottom + 4 + room.height < innerHeight;
  menu.style.top = `${Math.max(8, below ? place.bottom + 4 : place.top - 4 - room.height)}px`;
  menu.querySelector('.preset')?.focus({ preventScroll: true });
}

find('undo').addEventListener('click', undo);
find('redo').addEventListener('click', redo);
find('reset').addEventListener('click', () => document.dispatchEvent(new CustomEvent('bench-reset')));
find('presets').addEventListener('click', open);
find('save').addEventListener('click', save);
find('name').addEventListener('keydown', (event) => { if (event.key === 'Enter') save(); });

document.addEventListener('keydown', (event) => {
  if (!element.isConnected || !(event.ctrlKey || event.metaKey) || event.altKey) return;
  if (!event.target.closest?.('#bench-row') || event.target.matches('[data-tool="name"]')) return;
  const key = event.key.toLowerCase();
  if (key !== 'z' && key !== 'y') return;
  event.preventDefault();
  if (key === 'y' || event.shiftKey) redo();
  else undo();
});

document.addEventListener('steering', (event) => { if (element.isConnected) record(event.detail); });
document.dispatchEvent(new CustomEvent('steering-hello'));
show();
// Events: 'restored', 'reasked'
