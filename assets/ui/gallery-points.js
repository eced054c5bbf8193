// A click on a point of the gallery's chart opens that neuron's page. Charts are drawn anew with every change,
// so each is tied when the pointer first comes to it, which is before any click; one that is drawn anew in the same
// place forgets who listened, and begins with a fresh `_ev`.
const tied = new WeakSet();

function tie(event) {
  const chart = event.target.closest?.('#gallery-chart .js-plotly-plot');
  const listeners = chart?._ev ?? chart;
  if (!chart || tied.has(listeners) || typeof chart.on !== 'function') return;
  tied.add(listeners);
  chart.on('plotly_click', (clicked) => {
    const neuron = clicked.points?.[0]?.customdata;
    if (neuron !== undefined) trigger('page', { neuron: Number(neuron) });
  });
}
for (const name of ['pointerover', 'pointerdown', 'pointermove']) {
  document.addEventListener(name, tie, { capture: true, passive: true });
}
