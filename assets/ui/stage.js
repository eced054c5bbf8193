// The picture: pointing at patches with mouse or keys, the heat's look, and pictures pasted or dropped.
let at = null;
const cover = () => element.querySelector('.cover');

function show(cell) {
  at = cell;
  const cursor = element.querySelector('.cursor');
  const area = cover();
  if (!cursor || !area) return;
  cursor.toggleAttribute('data-on', Boolean(cell));
  if (!cell) {
    area.removeAttribute('title');
    return;
  }
  cursor.style.setProperty('--row', cell.row);
  cursor.style.setProperty('--col', cell.col);
  const map = area.dataset.map ? JSON.parse(area.dataset.map) : null;
  const value = map ? ` · ${map[cell.row][cell.col].toFixed(2)}` : '';
  area.title = `row ${cell.row + 1}, column ${cell.col + 1}${value}`;
}

function under(event) {
  const area = cover();
  if (!area || !area.contains(event.target)) return null;
  const box = area.getBoundingClientRect();
  const place = (offset, length, count) =>
    Math.min(Number(count) - 1, Math.max(0, Math.floor((offset / length) * Number(count))));
  return {
    row: place(event.clientY - box.top, box.height, area.dataset.rows),
    col: place(event.clientX - box.left, box.width, area.dataset.cols),
  };
}

const pick = (cell) => cell && trigger('patch', { row: cell.row, col: cell.col });

element.addEventListener('pointermove', (event) => show(under(event)));
element.addEventListener('pointerleave', () => show(null));
element.addEventListener('click', (event) => pick(under(event)));
element.addEventListener('keydown', (event) => {
  const area = cover();
  if (!area || event.target !== area) return;
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  if (event.key in steps) {
    const [down, right] = steps[event.key];
    const rows = Number(area.dataset.rows);
    const cols = Number(area.dataset.cols);
    const from = at ?? { row: Math.floor(rows / 2) - down, col: Math.floor(cols / 2) - right };
    show({
      row: Math.min(rows - 1, Math.max(0, from.row + down)),
      col: Math.min(cols - 1, Math.max(0, from.col + right)),
    });
  } else if (event.key === 'Enter' || event.key === ' ') {
    pick(at);
  } else if (event.key === 'Escape') {
    trigger('back', {});
  } else {
    return;
  }
  event.preventDefault();
});
watch('value', () => show(at));

// How the heat looks is the browser's business alone.
element.addEventListener('input', (event) => {
  const control = event.target;
  if (control.matches('[data-raw]')) element.toggleAttribute('data-raw-patches', control.checked);
  if (control.matches('[data-grid]')) element.toggleAttribute('data-no-grid', !control.checked);
  if (control.matches('[data-heat]')) element.style.setProperty('--heat', control.value);
});

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
element.addEventListener('dragover', (event) => event.preventDefault());
element.addEventListener('drop', (event) => {
  event.preventDefault();
  give([...(event.dataTransfer?.files ?? [])]);
});
