// The picture: patches marked by mouse, finger or keys, the value under the pointer, the heat's look, and
// pictures pasted or dropped.
let at = null; // the patch under the pointer, or where the keys have gone
let stroke = null; // the brush stroke being drawn
let swept = null; // patches marked here that the server has not confirmed yet
let soon = 0; // the timer of marks that are about to be sent

const cannotHover = window.matchMedia('(hover: none)').matches;
const cover = () => element.querySelector('.cover');
const count = (area) => ({ rows: Number(area.dataset.rows), cols: Number(area.dataset.cols) });
const keyOf = (cell) => `${cell.row},${cell.col}`;
const marked = (area) =>
  new Set(JSON.parse(area.dataset.marked || '[]').map(([row, col]) => `${row},${col}`));

function words(value) {
  const size = Math.abs(value);
  if (size === 0) return '0';
  return size >= 0.1 ? value.toFixed(2) : value.toPrecision(2);
}

// The outline of a set of patches: the sides that have no marked neighbour.
function outline(cells) {
  let path = '';
  for (const cell of cells) {
    const [row, col] = cell.split(',').map(Number);
    if (!cells.has(`${row - 1},${col}`)) path += `M${col} ${row}h1`;
    if (!cells.has(`${row + 1},${col}`)) path += `M${col} ${row + 1}h1`;
    if (!cells.has(`${row},${col - 1}`)) path += `M${col} ${row}v1`;
    if (!cells.has(`${row},${col + 1}`)) path += `M${col + 1} ${row}v1`;
  }
  return path;
}

function drawMarks() {
  const area = cover();
  if (!area) return;
  const path = outline(stroke ? stroke.cells : (swept ?? marked(area)));
  area.querySelectorAll('.marks path').forEach((line) => line.setAttribute('d', path));
}

function show(cell) {
  const area = cover();
  const cursor = element.querySelector('.cursor');
  const here = element.querySelector('.here');
  if (!area || !cursor || !here) return;
  const { rows, cols } = count(area);
  at = cell && cell.row < rows && cell.col < cols ? cell : null;
  cursor.toggleAttribute('data-on', Boolean(at));
  const tick = element.querySelector('.scale .bar i');
  tick?.toggleAttribute('data-on', false);
  if (!at) {
    here.textContent = cannotHover && marked(area).size ? '' : here.dataset.idle; // no Shift, no Alt there
    return;
  }
  cursor.style.setProperty('--row', at.row);
  cursor.style.setProperty('--col', at.col);
  const map = area.dataset.map ? JSON.parse(area.dataset.map) : null;
  const value = map ? map[at.row][at.col] : null;
  here.textContent = `Row ${at.row + 1}, column ${at.col + 1}${map ? `: ${words(value)}` : ''}`;
  if (map && tick) {
    const { low, high } = tick.closest('.scale').dataset;
    tick.style.left = `${(100 * (value - low)) / (high - low)}%`;
    tick.toggleAttribute('data-on', true);
  }
}

function under(event, area) {
  const box = area.getBoundingClientRect();
  const { rows, cols } = count(area);
  const place = (offset, length, most) => Math.min(most - 1, Math.max(0, Math.floor((offset / length) * most)));
  return {
    row: place(event.clientY - box.top, box.height, rows),
    col: place(event.clientX - box.left, box.width, cols),
  };
}

function send(cells) {
  clearTimeout(soon);
  soon = 0;
  swept = cells;
  drawMarks();
  if (!cells.size) {
    trigger('back', {});
    return;
  }
  trigger('patches', { cells: [...cells].map((cell) => cell.split(',').map(Number)) });
}

// For keys held down: the marks follow at once, the cards a moment after the last one.
function sendSoon(cells) {
  clearTimeout(soon);
  swept = cells;
  drawMarks();
  soon = setTimeout(() => send(cells), 120);
}

const way = (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return 'less';
  return event.shiftKey ? 'more' : 'new';
};

// All patches on the straight line from the last place to this one, so that a quick stroke has no gaps.
function sweep(cell) {
  const { row, col } = stroke.last;
  const steps = Math.max(Math.abs(cell.row - row), Math.abs(cell.col - col), 1);
  for (let step = 0; step <= steps; step += 1) {
    const passed = keyOf({
      row: Math.round(row + ((cell.row - row) * step) / steps),
      col: Math.round(col + ((cell.col - col) * step) / steps),
    });
    if (stroke.way === 'less') stroke.cells.delete(passed);
    else stroke.cells.add(passed);
  }
  stroke.last = cell;
  drawMarks();
}

element.addEventListener('pointerdown', (event) => {
  const area = event.target.closest('.cover');
  if (!area || event.button !== 0 || stroke) return;
  area.setPointerCapture(event.pointerId);
  const how = way(event);
  const cells = how === 'new' ? new Set() : new Set(swept ?? marked(area));
  stroke = { way: how, cells, last: under(event, area), pointer: event.pointerId };
  show(stroke.last);
  sweep(stroke.last);
});
element.addEventListener('pointermove', (event) => {
  const area = cover();
  if (!area || (stroke && event.pointerId !== stroke.pointer)) return;
  if (!stroke && !area.contains(event.target)) {
    show(null);
    return;
  }
  const cell = under(event, area);
  show(cell);
  if (stroke) sweep(cell);
});
element.addEventListener('pointerup', (event) => {
  if (!stroke || event.pointerId !== stroke.pointer) return;
  const { cells } = stroke;
  stroke = null;
  send(cells);
});
function giveUp() {
  stroke = null;
  drawMarks();
}
element.addEventListener('pointercancel', giveUp);
element.addEventListener('pointerleave', () => stroke || show(null));
element.addEventListener('click', (event) => {
  if (event.target.closest('.clear')) send(new Set());
});

element.addEventListener('keydown', (event) => {
  const area = cover();
  if (!area || event.target !== area) return;
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const { rows, cols } = count(area);
  const cells = new Set(swept ?? marked(area));
  if (event.key in steps) {
    const [down, right] = steps[event.key];
    const from = at ?? { row: Math.floor(rows / 2) - down, col: Math.floor(cols / 2) - right };
    show({
      row: Math.min(rows - 1, Math.max(0, from.row + down)),
      col: Math.min(cols - 1, Math.max(0, from.col + right)),
    });
    if (event.shiftKey) sendSoon(cells.add(keyOf(from)).add(keyOf(at)));
  } else if ((event.key === 'Enter' || event.key === ' ') && at) {
    const how = way(event);
    if (how === 'new') cells.clear();
    if (how === 'less') cells.delete(keyOf(at));
    else cells.add(keyOf(at));
    send(cells);
  } else if (event.key === 'Escape') {
    if (stroke) giveUp();
    else send(new Set());
  } else {
    return;
  }
  event.preventDefault();
});
element.addEventListener('focusout', (event) => event.target === cover() && !stroke && show(null));

watch('value', () => {
  if (!soon) swept = null;
  show(at);
  drawMarks();
});
drawMarks();

// How the heat looks is the browser's business alone.
element.addEventListener('input', (event) => {
  const control = event.target;
  if (control.matches('[data-raw]')) element.toggleAttribute('data-raw-patches', control.checked);
  if (control.matches('[data-grid]')) element.toggleAttribute('data-no-grid', !control.checked);
  if (control.matches('[data-heat]')) element.style.setProperty('--heat', control.value);
});

document.querySelector('#upload')?.setAttribute('title', 'Choose a picture. You can also paste one, or drop it here.');

// Pasted and dropped pictures go the way of uploaded ones.
function give(files) {
  const input = document.querySelector('#upload input[type=file], input#upload[type=file]')
    ?? document.querySelector('#upload')?.parentElement?.querySelector('input[type=file]');
  if (!input || !files.length) return;
  const bag = new DataTransfer();
  bag.items.add(files[0]);
  input.files = bag.files;
  input.dispatchEvent(new Event('change', { bubbles: true }));
}
document.addEventListener('paste', (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) {
    event.preventDefault();
    give(files);
  }
});
const column = document.querySelector('#picture-column') ?? element;
column.addEventListener('dragover', (event) => {
  if (!event.dataTransfer?.types.includes('Files')) return;
  event.preventDefault();
  column.toggleAttribute('data-drop', true);
});
for (const end of ['dragleave', 'drop']) {
  column.addEventListener(end, (event) => {
    if (end === 'dragleave' && column.contains(event.relatedTarget)) return;
    column.toggleAttribute('data-drop', false);
  });
}
column.addEventListener('drop', (event) => {
  event.preventDefault();
  give([...(event.dataTransfer?.files ?? [])]);
});
