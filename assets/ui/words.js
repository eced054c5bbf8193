// The words of an answer: a click asks "why". One of them is in the tab order; arrow keys go on from it.
const words = () => [...element.querySelectorAll('.word')];

function stand(word) {
  for (const other of words()) other.tabIndex = other === word ? 0 : -1;
}

element.addEventListener('click', (event) => {
  const found = event.target.closest('[data-do]');
  if (!found || !element.contains(found)) return;
  for (const other of words()) other.classList.toggle('asked', other === found);
  stand(found);
  trigger(found.dataset.do, JSON.parse(found.dataset.with || '{}'));
});

element.addEventListener('keydown', (event) => {
  const word = event.target.closest('.word');
  if (!word) return;
  const all = words();
  const at = all.indexOf(word);
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 }[event.key] ?? line(all, at, event.key);
  if (to === undefined) return;
  event.preventDefault();
  const next = all[Math.min(Math.max(to, 0), all.length - 1)];
  stand(next);
  next.focus();
});

// The word nearest in the line above or below.
function line(all, at, key) {
  if (key !== 'ArrowUp' && key !== 'ArrowDown') return undefined;
  const here = all[at].getBoundingClientRect();
  const away = (word) => {
    const box = word.getBoundingClientRect();
    const drop = key === 'ArrowDown' ? box.top - here.top : here.top - box.top;
    return drop < 4 ? Infinity : drop * 1000 + Math.abs(box.left - here.left);
  };
  const best = all.reduce((one, other) => (away(other) < away(one) ? other : one));
  return away(best) === Infinity ? at : all.indexOf(best);
}

// The first word keeps its place in the tab order unless the answer begins with a mark.
watch('value', () => {
  const all = words();
  if (all.length && !all.some((word) => word.tabIndex === 0)) all[0].tabIndex = 0;
});
