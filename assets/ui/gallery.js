// The gallery's head and tiles: buttons as everywhere, and the controls that change without a click.
element.addEventListener('click', (event) => {
  const found = event.target.closest('[data-do]');
  if (found && element.contains(found)) {
    trigger(found.dataset.do, JSON.parse(found.dataset.with || '{}'));
  }
});
element.addEventListener('change', (event) => {
  const control = event.target;
  if (control.matches('[data-sort]')) {
    const descending = control.selectedOptions[0].dataset.descending === 'true';
    trigger('alter', { sort: control.value, descending });
  }
  if (control.matches('[data-page]')) {
    const page = Math.round(Number(control.value));
    const last = Number(control.max);
    trigger('alter', { page: Math.min(Math.max(Number.isFinite(page) ? page : 1, 1), last) - 1 });
  }
});

// Another page of tiles begins at its top; a star that was pressed leaves everything where it is.
const pageOf = () => element.querySelector('[data-page]')?.getAttribute('value') ?? '';
let former = pageOf();
watch('value', () => {
  const now = pageOf();
  if (now !== former && element.querySelector('.tiles') && element.getBoundingClientRect().top < 0) {
    document.getElementById('gallery-results')?.scrollIntoView({ block: 'start' });
  }
  former = now;
});
