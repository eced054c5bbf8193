// A neuron's page: buttons, forms, the link, drafts of notes, the way back, and where the list stood.
// Buttons trigger the event in data-do, as in buttons.js.
element.addEventListener('click', (event) => {
  const found = event.target.closest('[data-do]');
  if (found && element.contains(found)) {
    trigger(found.dataset.do, JSON.parse(found.dataset.with || '{}'));
  }
  const copy = event.target.closest('[data-copy]');
  if (copy) share(copy.dataset.copy);
});

// Forms: data-form names the event, the fields are what it carries.
const drafts = new Map(); // neuron -> { name, note } typed and not saved
let sent = null;
const field = (form, name) => form.elements.namedItem(name);

element.addEventListener('submit', (event) => {
  event.preventDefault();
  const form = event.target;
  const data = Object.fromEntries(new FormData(form));
  if (form.dataset.form === 'page') data.neuron = Number(data.neuron);
  if (form.dataset.form === 'save') {
    data.neuron = Number(form.dataset.neuron);
    data.changed = form.dataset.changed;
    sent = { neuron: data.neuron, name: data.name, note: data.note };
    tell(form, 'Saving …');
  }
  trigger(form.dataset.form, data);
});
element.addEventListener('input', (event) => {
  const form = event.target.form;
  if (!form || form.dataset.form !== 'save') return;
  drafts.set(form.dataset.neuron, { name: field(form, 'name').value, note: field(form, 'note').value });
  tell(form, 'Not saved yet.');
});
const tell = (form, words) => {
  const place = form.querySelector('.told');
  if (place) place.textContent = words;
};

// The server drew the page anew: typed text stays until it is saved.
let neuron = null;
let saved = '';
function settle() {
  const form = element.querySelector('form[data-form=save]');
  if (form) {
    const key = form.dataset.neuron;
    if (form.dataset.saved && form.dataset.saved !== saved && sent && String(sent.neuron) === key) {
      const typed = drafts.get(key);
      if (!typed || (typed.name === sent.name && typed.note === sent.note)) drafts.delete(key);
      sent = null;
    }
    saved = form.dataset.saved;
    const draft = drafts.get(key);
    const [name, note] = [field(form, 'name'), field(form, 'note')];
    name.value = draft ? draft.name : name.getAttribute('value') ?? '';
    note.value = draft ? draft.note : note.defaultValue;
    if (draft) tell(form, 'Not saved yet.');
  }
  const enlist = element.querySelector('form[data-form=enlist]');
  if (enlist) field(enlist, 'list').value = '';
  const ways = element.querySelector('[data-neuron].ways');
  const now = ways ? ways.dataset.neuron : null;
  const number = element.querySelector('form[data-form=page] input');
  if (number) number.value = number.getAttribute('value');
  if (element.querySelector('.ways') || neuron !== null) moved(now);
}

// A page opens at its top with the focus on its name; going back finds the list as it was left.
let place = { top: 0, opener: null };
function moved(now) {
  if (now === neuron) return;
  const opening = neuron === null;
  neuron = now;
  remember(now);
  if (now !== null) {
    const title = element.querySelector('.title-row h2');
    if (!opening && element.contains(document.activeElement)) return;
    window.scrollTo(0, 0);
    if (title) title.focus({ preventScroll: true });
    return;
  }
  requestAnimationFrame(() => {
    window.scrollTo(0, place.top);
    if (place.opener?.isConnected) place.opener.focus({ preventScroll: true });
  });
}
document.addEventListener('click', (event) => {
  const opener = event.target.closest?.('#gallery-list [data-do=page]');
  if (!opener || !element.isConnected) return;
  const button = opener.matches('button') ? opener : opener.closest('li')?.querySelector('button[data-do=page]');
  place = { top: window.scrollY, opener: button ?? null };
}, true);

// The browser's Back and Forward: each neuron opened or left is a step, which knows the tab that it was asked on.
let front = 'workspace'; // this script begins when the gallery's tab is first in front, so a click before was there
document.addEventListener('click', () => {
  front = document.querySelector('#tabs [role=tab][aria-selected=true]')?.dataset.tabId ?? front;
}, true);
let going = null; // the step that the browser went to and that is not drawn yet
function arrive({ neuron: wanted, tab }) {
  if (wanted === null) document.querySelector(`#tabs [role=tab][data-tab-id="${tab}"]`)?.click();
}
function remember(now) {
  const step = going;
  going = null;
  if (step?.neuron === now) {
    arrive(step);
    return;
  }
  if ((history.state?.neuron ?? null) === now) return;
  if (now !== null && new URLSearchParams(location.search).get('neuron') === now) {
    history.replaceState({ neuron: now }, '');
    return;
  }
  history.replaceState({ ...history.state, tab: front }, '');
  history.pushState({ neuron: now, tab: 'gallery' }, '', now === null ? location.pathname : `?neuron=${now}`);
}
if (element.closest('#neuron-head')) {
  window.addEventListener('popstate', ({ state }) => {
    if (!element.isConnected) return;
    const step = { neuron: state?.neuron ?? null, tab: state?.tab };
    going = null;
    if (step.neuron === neuron) {
      arrive(step);
      return;
    }
    going = step;
    if (step.neuron === null) trigger('leave');
    else trigger('page', { neuron: Number(step.neuron) });
  });
}

// The link to this page: copied, or shown to be copied by hand where the browser forbids it.
async function share(query) {
  const link = `${location.origin}${location.pathname}${query}`;
  const said = element.querySelector('.copied');
  try {
    await navigator.clipboard.writeText(link);
    said.textContent = 'Copied.';
  } catch {
    const box = Object.assign(document.createElement('input'), { value: link, readOnly: true, ariaLabel: 'Link' });
    said.replaceChildren(box);
    box.select();
  }
}

// The export arrives as text and leaves as a file.
function download() {
  if (!props.file) return;
  const { name, text } = JSON.parse(props.file);
  const url = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  Object.assign(document.createElement('a'), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

watch('value', settle);
watch('file', download);
settle();
