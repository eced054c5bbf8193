// How the answer is made, beside the bench. The settings are the component's value, as JSON, in both directions.
// `facts` says what the page's session has: always-on neurons (null without a store), defaults, limits.
const METHODS = [
  ['plain', 'plain', 'The likeliest word, as the model ranks it.'],
  ['vcd', 'VCD', 'Contrasts with what the model would say of the noisy picture.'],
  ['m3id', 'M3ID', 'Contrasts with what it would say without a picture, more as the answer grows.'],
  ['icd', 'ICD', 'Contrasts with what it would say under a confusing instruction.'],
  ['pai', 'PAI', 'Makes the answer look at the picture more, and contrasts with no picture.'],
  ['vaf', 'VAF', 'Turns attention from the text before the picture to the picture.'],
];
let settings = {};
let last = null;

const facts = () => props.facts ?? { defaults: {}, alphas: {}, always_on: null, longest: 256 };
const make = (tag, how = {}, ...children) => {
  const { aria, data, ...rest } = how;
  const node = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(aria ?? {})) node.setAttribute(`aria-${name}`, value);
  for (const [name, value] of Object.entries(data ?? {})) node.dataset[name] = value;
  node.append(...children);
  return node;
};

function read() {
  try {
    return { ...facts().defaults, ...JSON.parse(props.value || '{}') };
  } catch {
    return { ...facts().defaults };
  }
}

function tell(key = '', held = false) {
  const detail = { settings: JSON.stringify(settings), key, held };
  document.dispatchEvent(new CustomEvent('steering', { detail }));
}

// Every change goes out at once; a new longest answer also asks the untouched model anew.
function change(name, value, held = false) {
  settings[name] = value;
  last = JSON.stringify(settings);
  props.value = last;
  tell(`settings ${name}`, held);
  trigger(name === 'max_new_tokens' ? 'length' : 'input');
}

// A label, its control and its one line of explanation, which screen readers get too.
function line(name, words, meaning, ...controls) {
  const id = `why-${name}`;
  for (const control of controls) {
    if (control.matches('input, select')) control.setAttribute('aria-describedby', id);
  }
  const more = make('span', { id, className: 'unseen', textContent: meaning });
  const node = make('div', { className: `line ${name}`, title: meaning });
  node.append(make('span', { className: 'label', textContent: words }), ...controls, more);
  return node;
}

function toggle(name, words, meaning, disabled = false, changed = () => {}) {
  const box = make('input', { type: 'checkbox', checked: Boolean(settings[name]), disabled, data: { at: name } });
  box.setAttribute('aria-describedby', `why-${name}`);
  box.addEventListener('change', () => {
    changed(box.checked);
    change(name, box.checked);
    draw();
  });
  const more = make('span', { id: `why-${name}`, className: 'unseen', textContent: meaning });
  const label = make('label', { className: `line toggle ${name}`, title: meaning }, box, make('span', { textContent: words }), more);
  label.classList.toggle('off', disabled);
  return label;
}

const within = (value, { min, max }) => Math.min(max, Math.max(min, value));

function number(name, label, { min, max, step, whole = true, empty }) {
  const shown = settings[name] ?? '';
  const box = make('input', { type: 'number', min, max, step, value: shown, placeholder: empty ?? '', aria: { label }, data: { at: `${name} number` } });
  box.addEventListener('change', () => {
    const typed = box.value.trim() === '' ? NaN : Number(box.value);
    const known = Number.isFinite(typed) ? within(whole ? Math.round(typed) : typed, { min, max }) : empty !== undefined ? null : facts().defaults[name];
    change(name, known);
    draw();
  });
  return box;
}

function pull(name, label, { min, max, step, big }, after = () => {}) {
  const slider = make('input', { type: 'range', min, max, step, value: settings[name], aria: { label }, data: { at: name } });
  let held = false;
  const show = () => {
    slider.style.setProperty('--share', `${(100 * (slider.value - min)) / (max - min)}%`);
    const box = element.querySelector(`[data-at="${name} number"]`);
    if (box) box.value = slider.value;
  };
  slider.addEventListener('pointerdown', () => { held = true; });
  slider.addEventListener('pointerup', () => { held = false; });
  slider.addEventListener('input', () => {
    change(name, Number(slider.value), held);
    show();
  });
  slider.addEventListener('change', after);
  slider.addEventListener('keydown', (event) => {
    const far = { ArrowLeft: -1, ArrowDown: -1, PageDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 1 }[event.key];
    if (!far || !(event.shiftKey || event.key.startsWith('Page'))) return;
    event.preventDefault();
    slider.value = Number(slider.value) + far * big;
    slider.dispatchEvent(new Event('input'));
  });
  slider.style.setProperty('--share', `${(100 * (within(settings[name], { min, max }) - min)) / (max - min)}%`);
  return slider;
}

function dice(name, label) {
  const button = make('button', { type: 'button', className: 'small', textContent: 'new', title: label, aria: { label }, data: { at: `${name} dice` } });
  button.addEventListener('click', () => {
    change(name, Math.floor(Math.random() * 10000));
    draw();
  });
  return button;
}

const SEED = { min: 0, max: 2 ** 31 - 1, step: 1 };
const STEP = { min: 0, max: 999, step: 1, big: 50 };

function noise() {
  return [
    line('step', 'Noise t', 'How much noise the second picture gets: 0 is none, 999 is nothing but noise. The paper takes 500.',
      pull('step', 'Noise step t', STEP), number('step', 'Noise step t', STEP)),
    line('noise_seed', 'Noise seed', 'Which noise: the same seed gives the same noise.',
      number('noise_seed', 'Noise seed', SEED), dice('noise_seed', 'Another noise')),
  ];
}

function contrast() {
  const known = facts().always_on;
  const rows = [toggle('cns', 'Contrast with noise (CNS)',
    'Strengthens the neurons that noise takes from the picture, and takes out those that it brings.', false,
    (on) => { if (on && known === null) settings.suppress_always_on = false; })];
  if (!settings.cns) return rows;
  const lambda = { min: -1, max: 3, step: 0.05, big: 0.5, whole: false };
  const [step, seed] = noise();
  const suppress = known === null
    ? 'Leave always-on neurons alone (only a store knows them)'
    : `Leave the ${known === 1 ? 'one always-on neuron' : `${known} always-on neurons`} alone`;
  const meaning = known === null
    ? 'Which neurons are always on is known to a store, and this page runs without one.'
    : `Neurons among the strongest 20 of every indexed picture say little about this one; the store knows ${known}.`;
  rows.push(make('div', { className: 'details' },
    step,
    line('strength', 'Strength λ', 'How strongly the difference counts: 0 changes nothing. The paper takes 1.',
      pull('strength', 'Strength lambda', lambda), number('strength', 'Strength lambda', lambda)),
    seed,
    toggle('suppress_always_on', suppress, meaning, known === null && !settings.suppress_always_on),
    toggle('clamp', 'No activation crosses 0', 'The paper lets contrasted activations cross 0; this stops them there.')));
  return rows;
}

function choice() {
  const select = make('select', { aria: { label: 'Decoding' }, data: { at: 'method' } });
  for (const [value, textContent] of METHODS) select.append(make('option', { value, textContent }));
  select.value = settings.method;
  select.addEventListener('change', () => {
    settings.alpha = null;
    change('method', select.value);
    draw();
  });
  return select;
}

function decoding() {
  const meaning = METHODS.find(([name]) => name === settings.method)?.[2] ?? '';
  const own = facts().alphas[settings.method];
  const head = line('method', 'Decoding', meaning, choice());
  if (own !== undefined) {
    head.append(make('span', { className: 'label alpha', textContent: 'α', title: 'Strength of the method; empty for its own.' }),
      number('alpha', 'Strength alpha of the decoding', { min: 0, max: 10, step: 0.1, whole: false, empty: String(own) }));
  }
  const rows = [head];
  if (settings.method !== 'plain') rows.push(make('p', { className: 'quiet', textContent: meaning }));
  if (settings.method === 'vcd' && !settings.cns) rows.push(make('div', { className: 'details' }, ...noise()));
  return rows;
}

function sampling() {
  const heat = { min: 0, max: 2, step: 0.05, big: 0.5, whole: false };
  const share = { min: 0.05, max: 1, step: 0.05, big: 0.1, whole: false };
  const drawn = settings.temperature > 0;
  const crossed = () => { if (drawn !== settings.temperature > 0) draw(); };
  const rows = [line('temperature', 'Temperature', '0 takes the best word each time; more draws among the likely ones.',
    pull('temperature', 'Temperature', heat, crossed), number('temperature', 'Temperature', heat))];
  if (!(settings.temperature > 0)) return rows;
  rows.push(make('div', { className: 'details' },
    line('top_p', 'Top-p', 'Draws among the likeliest words that make up this share together; 1 is all.',
      pull('top_p', 'Top-p', share), number('top_p', 'Top-p', share)),
    line('top_k', 'Top-k', 'Draws among this many words at most; 0 is all.', number('top_k', 'Top-k', { min: 0, max: 1000, step: 1 })),
    line('seed', 'Seed', 'The same seed draws the same answer.', number('seed', 'Sampling seed', SEED), dice('seed', 'Draw another answer'))));
  return rows;
}

function rest() {
  const length = { min: 1, max: facts().longest, step: 1 };
  return [
    line('max_new_tokens', 'Longest answer', 'At most so many tokens, steered or not.', number('max_new_tokens', 'Longest answer, in tokens', length), make('span', { className: 'quiet', textContent: 'tokens' })),
    toggle('replace', "Feed the SAE's reconstruction", 'As in the literature: what the SAE does not explain is lost. Otherwise only the change is added.'),
  ];
}

function draw() {
  const place = element.querySelector('.settings');
  if (!place) return;
  const at = place.contains(document.activeElement) ? document.activeElement.dataset.at : '';
  const top = place.scrollTop;
  place.replaceChildren(...contrast(), ...decoding(), ...sampling(), ...rest());
  place.scrollTop = top;
  if (at) place.querySelector(`[data-at="${at}"]`)?.focus();
}

function take(value) {
  last = value;
  settings = read();
  draw();
}

watch('value', () => {
  if (props.value === last) return;
  const length = settings.max_new_tokens;
  take(props.value);
  tell('server');
  if (settings.max_new_tokens !== length) trigger('length');
});
watch('facts', () => draw());
document.addEventListener('steering-restore', (event) => {
  if (!element.isConnected) return;
  props.value = event.detail.settings;
  take(event.detail.settings);
});
document.addEventListener('steering-hello', () => { if (element.isConnected) tell(); });
take(props.value);
tell();
