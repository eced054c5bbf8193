// Words x neurons: which measure colours the cells, one cell in the tab order, the read-out below.
let by = 'effect';
let picked = null;
const SIGN = { effect: 0, gradient: 1, attention: 2 };
const cells = () => [...element.querySelectorAll('.wm-cell')];

function paint() {
  const map = element.querySelector('.wordmap');
  if (!map) return;
  map.dataset.by = by;
  for (const button of map.querySelectorAll('[data-measure]')) button.setAttribute('aria-pressed', button.dataset.measure === by);
  for (const cell of cells()) cell.classList.toggle('against', cell.dataset.signs[SIGN[by]] === '-');
}

function stand(cell) {
  for (const other of cells()) {
    other.tabIndex = other === cell ? 0 : -1;
    other.classList.toggle('chosen', other === cell);
  }
}

// The read-out: what a cell holds, and for a chosen one what can be done with its neuron.
function tell(cell, chosen) {
  const told = element.querySelector('.wm-told');
  if (!told || !cell) return;
  const words = document.createElement('span');
  words.textContent = cell.getAttribute('aria-label');
  told.replaceChildren(words);
  if (!chosen) return;
  for (const [name, label] of [['put', 'Put on the bench'], ['page', 'Open its page']]) {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = label;
    button.dataset.do = name;
    button.dataset.with = JSON.stringify({ neuron: Number(cell.dataset.neuron) });
    told.append(button);
  }
}

function pick(neuron) {
  if (picked !== neuron) trigger('pick', { neuron });
  picked = neuron;
}

element.addEventListener('click', (event) => {
  const measure = event.target.closest('[data-measure]');
  if (measure) { by = measure.dataset.measure; paint(); return; }
  const found = event.target.closest('[data-do]');
  if (found) { trigger(found.dataset.do, JSON.parse(found.dataset.with || '{}')); return; }
  const cell = event.target.closest('.wm-cell');
  const head = event.target.closest('.wm-head');
  if (cell) { stand(cell); tell(cell, true); pick(Number(cell.dataset.neuron)); }
  if (head) pick(Number(head.dataset.neuron));
});

element.addEventListener('keydown', (event) => {
  const cell = event.target.closest('.wm-cell');
  if (!cell) return;
  const all = cells();
  const width = cell.closest('tr').querySelectorAll('.wm-cell').length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width }[event.key];
  const next = step && all[all.indexOf(cell) + step];
  if (!next) return;
  event.preventDefault();
  for (const other of all) other.tabIndex = other === next ? 0 : -1;
  next.focus();
});

element.addEventListener('focusin', (event) => tell(event.target.closest('.wm-cell'), event.target.closest('.wm-cell.chosen')));
element.addEventListener('mouseover', (event) => {
  const cell = event.target.closest('.wm-cell');
  if (cell) tell(cell, cell.classList.contains('chosen'));
});
element.addEventListener('mouseleave', () => tell(element.querySelector('.wm-cell.chosen'), true));

watch('value', () => { picked = null; paint(); });
paint();
