// Buttons inside server-drawn HTML: one listener for all of them, so that redrawing loses nothing.
// <button data-do="NAME" data-with='{"neuron": 3}'> triggers the event NAME with what it carries.
element.addEventListener('click', (event) => {
  const found = event.target.closest('[data-do]');
  if (!found || !element.contains(found)) return;
  const act = () => trigger(found.dataset.do, JSON.parse(found.dataset.with || '{}'));
  if (found.dataset.do === 'put') inTurn(act);
  else act();
});

// Neurons go onto the bench one after another: each needs the bench as the one before left it.
const LONGEST_WAIT = 1500; // milliseconds, for a bench that does not change
function inTurn(act) {
  const before = window.benchAtRest ?? Promise.resolve();
  window.benchAtRest = before.then(() => new Promise((done) => {
    document.addEventListener('bench', done, { once: true });
    setTimeout(done, LONGEST_WAIT);
    act();
  }));
}

// A new list starts at its top; a redrawn one stays where it was.
let heading = '';
watch('value', () => {
  const title = element.querySelector('.heading h2');
  if (title && title.textContent !== heading) {
    heading = title.textContent;
    const list = element.querySelector('.cards');
    if (list) list.scrollTop = 0;
  }
});
