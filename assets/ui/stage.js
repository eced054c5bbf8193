// The picture: patches marked by mouse, finger or keys, the value under the pointer, a closer look, the heat's look.
let at = null; // the patch under the pointer, or where the keys have gone
let stroke = null; // the brush stroke being drawn
let swept = null; // patches marked here that the server has not confirmed yet
let soon = 0; // the timer of marks that are about to be sent
let read = { text: '', map: null }; // the map that was parsed last

const BRUSH = 12; // pixels that a stroke is wide, at least: on fine grids it covers several patches
const LARGE = 44; // pixels that a patch is wide at the closest look
const cannotHover = window.matchMedia('(hover: none)').matches;
const cover = () => element.querySelector('.cover');
const count = (area) => ({ rows: Number(area.dataset.rows), cols: Number(area.dataset.cols) });
const keyOf = (cell) => `${cell.row},${cell.col}`;
const marked = (area) =>
  new Set(JSON.parse(area.dataset.marked || '[]').map(([row, col]) => `${row},${col}`));

function mapOf(area) {
  const text = area.dataset.map;
  if (text !== read.text) read = { text, map: text ? JSON.parse(text) : null };
  return read.map;
}

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
  const map = mapOf(area);
  const value = map ? map[at.row][at.col] : null;
  here.textContent = `Row ${at.row + 1}, column ${at.col + 1}${map ? `: ${words(value)}` : ''}`;
  if (map && tick) {
    const { low, high } = tick.closest('.scale').dataset;
    tick.style.left = `${(100 * (value - low)) / (high - low)}%`;
    tick.toggleAttribute('data-on', true);
  }
}

// The patch under the pointer; beyond the edge of what is shown, the nearest that is.
function under(event, area) {
  const box = area.getBoundingClientRect();
  const seen = area.closest('.over').getBoundingClientRect();
  const { rows, cols } = count(area);
  const within = (value, low, high) => Math.min(high, Math.max(low, value));
  const place = (offset, length, most) => within(Math.floor((offset / length) * most), 0, most - 1);
  return {
    row: place(within(event.clientY, seen.top, seen.bottom - 0.5) - box.top, box.height, rows),
    col: place(within(event.clientX, seen.left, seen.right - 0.5) - box.left, box.width, cols),
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

// The patches that a stroke covers at one place: a square of the brush's width around it.
function touch(row, col, reach, area) {
  const { rows, cols } = count(area);
  for (let r = Math.max(0, row - reach); r <= Math.min(rows - 1, row + reach); r += 1) {
    for (let c = Math.max(0, col - reach); c <= Math.min(cols - 1, col + reach); c += 1) {
      if (stroke.way === 'less') stroke.cells.delete(keyOf({ row: r, col: c }));
      else stroke.cells.add(keyOf({ row: r, col: c }));
    }
  }
}

// All patches on the straight line from the last place to this one, so that a quick stroke has no gaps. A click
// is exact, however small the patches.
function sweep(cell, area) {
  const { row, col } = stroke.last;
  const steps = Math.max(Math.abs(cell.row - row), Math.abs(cell.col - col));
  const wide = area.getBoundingClientRect().width / count(area).cols;
  const reach = steps || stroke.moved ? Math.floor(BRUSH / wide / 2) : 0;
  stroke.moved ||= steps > 0;
  for (let step = 0; step <= steps; step += 1) {
    const part = steps ? step / steps : 0;
    touch(Math.round(row + (cell.row - row) * part), Math.round(col + (cell.col - col) * part), reach, area);
  }
  stroke.last = cell;
  drawMarks();
}

// A closer look: how many times as large, and what lies left of and above what is shown, in widths and heights
// of the frame. Kept on the component itself, so that another map leaves it as it is.
const look = { zoom: 1, x: 0, y: 0 };
const fingers = new Map(); // where the fingers on the picture are, by pointer
let pinch = null; // where the fingers were: their middle, and how far they are apart
let drag = null; // where the middle button was while it moves the picture

const frame = () => element.querySelector('.over');

function closest(area) {
  const wide = area.getBoundingClientRect().width / look.zoom / count(area).cols;
  return Math.min(64, Math.max(4, LARGE / wide));
}

function place() {
  const area = cover();
  if (!area) return;
  for (const side of ['x', 'y']) look[side] = Math.min(look.zoom - 1, Math.max(0, look[side]));
  const cell = area.getBoundingClientRect().width / count(area).cols;
  for (const name of ['zoom', 'x', 'y']) element.style.setProperty(`--${name}`, look[name]);
  element.style.setProperty('--lines', Math.min(1, Math.max(0, (cell - 4) / 8)));
  element.toggleAttribute('data-close', look.zoom > 1);
  const [less, more] = ['out', 'in'].map((way) => element.querySelector(`[data-zoom=${way}]`));
  if (less) less.disabled = look.zoom <= 1;
  if (more) more.disabled = look.zoom >= closest(area) - 0.001;
}

// As many times larger, so that the point of the window (x, y) stays where it is; null: the middle.
function zoom(times, point = null) {
  const area = cover();
  if (!area) return;
  const box = frame().getBoundingClientRect();
  const across = point ? (point.x - box.left) / box.width : 0.5;
  const down = point ? (point.y - box.top) / box.height : 0.5;
  const to = Math.min(closest(area), Math.max(1, look.zoom * times));
  const grown = to / look.zoom;
  Object.assign(look, { zoom: to, x: (look.x + across) * grown - across, y: (look.y + down) * grown - down });
  place();
  place(); // the width of the lines follows the size that the first has set
}

// Move what is shown, in pixels; whether anything moved.
function pan(right, down) {
  const before = `${look.x} ${look.y}`;
  const box = frame().getBoundingClientRect();
  look.x += right / box.width;
  look.y += down / box.height;
  place();
  return `${look.x} ${look.y}` !== before;
}

function centre(cell, area) {
  const box = area.getBoundingClientRect();
  const { rows, cols } = count(area);
  return { x: box.left + ((cell.col + 0.5) * box.width) / cols, y: box.top + ((cell.row + 0.5) * box.height) / rows };
}

// Bring the patch that the keys have reached into what is shown.
function follow() {
  const area = cover();
  if (!area || !at || look.zoom <= 1) return;
  const box = frame().getBoundingClientRect();
  const here = centre(at, area);
  const edge = Math.min(LARGE, box.width / 4);
  const past = (value, low, high) => Math.min(0, value - low - edge) + Math.max(0, value - high + edge);
  pan(past(here.x, box.left, box.right), past(here.y, box.top, box.bottom));
}

function pinched() {
  const [one, two] = [...fingers.values()];
  return {
    x: (one.x + two.x) / 2,
    y: (one.y + two.y) / 2,
    apart: Math.max(1, Math.hypot(one.x - two.x, one.y - two.y)),
  };
}

element.addEventListener('wheel', (event) => {
  const area = cover();
  if (!area || !frame().contains(event.target)) return;
  const unit = event.deltaMode === 1 ? 16 : 1;
  const [right, down] = event.shiftKey && !event.deltaX ? [event.deltaY, 0] : [event.deltaX, event.deltaY];
  if (event.ctrlKey || event.metaKey) {
    zoom(Math.exp(-Math.max(-60, Math.min(60, event.deltaY * unit)) / 150), { x: event.clientX, y: event.clientY });
  } else if (look.zoom <= 1 || !pan(right * unit, down * unit)) {
    return; // the page scrolls
  }
  event.preventDefault();
  show(area.contains(event.target) ? under(event, area) : null);
}, { passive: false });

element.addEventListener('pointerdown', (event) => {
  const area = cover();
  if (!area || !frame().contains(event.target)) return;
  if (event.button === 1 && look.zoom > 1) {
    drag = { x: event.clientX, y: event.clientY };
    frame().setPointerCapture(event.pointerId);
    event.preventDefault();
    return;
  }
  if (event.pointerType === 'touch') fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  if (fingers.size > 1) {
    if (stroke) giveUp();
    pinch = fingers.size === 2 ? pinched() : null;
    return;
  }
  if (!area.contains(event.target) || event.button !== 0 || stroke) return;
  area.setPointerCapture(event.pointerId);
  const how = way(event);
  const cells = how === 'new' ? new Set() : new Set(swept ?? marked(area));
  stroke = { way: how, cells, last: under(event, area), pointer: event.pointerId, moved: false };
  show(stroke.last);
  sweep(stroke.last, area);
});
element.addEventListener('pointermove', (event) => {
  const area = cover();
  if (fingers.has(event.pointerId)) fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  if (pinch) {
    const now = pinched();
    pan(pinch.x - now.x, pinch.y - now.y);
    zoom(now.apart / pinch.apart, now);
    pinch = now;
    return;
  }
  if (drag) {
    pan(drag.x - event.clientX, drag.y - event.clientY);
    drag = { x: event.clientX, y: event.clientY };
    return;
  }
  if (!area || (stroke && event.pointerId !== stroke.pointer)) return;
  if (!stroke && !area.contains(event.target)) {
    show(null);
    return;
  }
  const cell = under(event, area);
  show(cell);
  if (stroke && keyOf(cell) !== keyOf(stroke.last)) sweep(cell, area);
});
function lift(event) {
  fingers.delete(event.pointerId);
  if (fingers.size < 2) pinch = null;
  drag = null;
}
element.addEventListener('pointerup', (event) => {
  lift(event);
  if (!stroke || event.pointerId !== stroke.pointer) return;
  const { cells } = stroke;
  stroke = null;
  send(cells);
});
function giveUp() {
  stroke = null;
  drawMarks();
}
element.addEventListener('pointercancel', (event) => {
  lift(event);
  giveUp();
});
// A finger leaves with each tap; what it has read stays.
element.addEventListener('pointerleave', (event) => stroke || event.pointerType === 'touch' || show(null));
element.addEventListener('click', (event) => {
  if (event.target.closest('.clear')) send(new Set());
  const button = event.target.closest('[data-zoom]');
  if (button) zoom(button.dataset.zoom === 'in' ? 2 : 0.5);
});

element.addEventListener('keydown', (event) => {
  const area = cover();
  if (!area || event.target !== area) return;
  const { rows, cols } = count(area);
  const far = Math.max(2, Math.round(rows / 8));
  const steps = {
    ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    PageUp: [-far, 0], PageDown: [far, 0], Home: [0, -cols], End: [0, cols],
  };
  const cells = new Set(swept ?? marked(area));
  if (event.key in steps) {
    const [down, right] = steps[event.key];
    const from = at ?? { row: Math.floor(rows / 2) - down, col: Math.floor(cols / 2) - right };
    show({
      row: Math.min(rows - 1, Math.max(0, from.row + down)),
      col: Math.min(cols - 1, Math.max(0, from.col + right)),
    });
    follow();
    if (event.shiftKey) sendSoon(cells.add(keyOf(from)).add(keyOf(at)));
  } else if (['+', '=', '-', '0'].includes(event.key) && !event.ctrlKey && !event.metaKey) {
    zoom({ '-': 1 / 1.5, 0: 1 / look.zoom }[event.key] ?? 1.5, at && centre(at, area));
    follow();
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

// Another picture is seen whole again.
let photo = '';
watch('value', () => {
  const source = element.querySelector('.photo')?.src ?? '';
  if (source !== photo) Object.assign(look, { zoom: 1, x: 0, y: 0 });
  photo = source;
  if (!soon) swept = null;
  place();
  show(at);
  drawMarks();
});
window.addEventListener('resize', place);
drawMarks();

// How the heat looks is the browser's business alone.
element.addEventListener('input', (event) => {
  const control = event.target;
  if (control.matches('[data-raw]')) element.toggleAttribute('data-raw-patches', control.checked);
  if (control.matches('[data-grid]')) element.toggleAttribute('data-no-grid', !control.checked);
  if (control.matches('[data-heat]')) element.style.setProperty('--heat', control.value);
});

document.querySelector('#upload')?.setAttribute('title', 'Choose a picture. You can also paste one, or drop it here.');
