// A click on a point of the gallery's chart opens that neuron's page. Charts are drawn anew with every change,
// so each is tied when the pointer first comes to it, which is before any click.
const tied = new WeakSet();

function tie(event) {
  const chart = event.target.closest?.('#gallery-chart .js-plotly-plot');
  if (!chart || tied.has(chart) || typeof chart.on !== 'function') return;
  tied.add(chart);
  chart.on('plotly_click', (clicked) => {
    const neuron = clicked.points?.[0]?.customdata;
    if (neuron !== undefined) trigger('page', { neuron: Number(neuron) });
  });
}
for (const name of ['pointerover', 'pointerdown', 'pointermove']) {
  document.addEventListener(name, tie, { capture: true, passive: true });
}
