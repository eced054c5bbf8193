// A click on a point of the gallery's chart opens that neuron's page. Charts are drawn anew with every change,
// so each is tied when the pointer first comes to it, which is before any click; one that is drawn anew in the same
// place forgets who listened, and begins with a fresh `_ev`.
//
// The chart also forgets what is under the pointer when it is drawn anew between press and release, and then says
// nothing of the click: the point that it last named there is meant.
const CHART = '#gallery-chart .js-plotly-plot';
const NEAR = 6; // pixels that a hand may move
const tied = new WeakSet();
let named = null; // the neuron that the chart last named, and where the pointer was
let pressed = null; // where the pointer was pressed
let opened = false; // a neuron since then

const near = (place, event) =>
  place && Math.hypot(event.clientX - place.x, event.clientY - place.y) <= NEAR;

function open(neuron) {
  if (opened) return;
  opened = true;
  trigger('page', { neuron });
}

function listen(chart) {
  chart.on('plotly_hover', ({ points, event }) => {
    const neuron = points?.[0]?.customdata;
    named = neuron === undefined ? null : { neuron: Number(neuron), x: event.clientX, y: event.clientY };
  });
  chart.on('plotly_click', ({ points }) => {
    const neuron = points?.[0]?.customdata;
    if (neuron !== undefined) open(Number(neuron));
  });
}

function tie(event) {
  const chart = event.target.closest?.(CHART);
  const listeners = chart?._ev ?? chart;
  if (!chart || tied.has(listeners) || typeof chart.on !== 'function') return;
  tied.add(listeners);
  listen(chart);
}
for (const name of ['pointerover', 'pointerdown', 'pointermove']) {
  document.addEventListener(name, tie, { capture: true, passive: true });
}
document.addEventListener('pointerdown', (event) => {
  pressed = { x: event.clientX, y: event.clientY };
  opened = false;
}, { capture: true, passive: true });
document.addEventListener('click', (event) => {
  if (event.target.closest?.(CHART) && near(pressed, event) && near(named, event)) open(named.neuron);
}, { capture: true, passive: true });
