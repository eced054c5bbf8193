// Cards of cases: buttons that the server hears of, and links that only the browser knows in full.
const address = (id) => `${location.origin}${location.pathname}?case=${encodeURIComponent(id)}`;

function copied(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement('textarea');
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
  return Promise.resolve();
}

element.addEventListener('click', (event) => {
  const link = event.target.closest('[data-link]');
  if (link && element.contains(link)) {
    const words = link.dataset.words ?? link.textContent;
    link.dataset.words = words;
    copied(address(link.dataset.link)).then(() => {
      link.textContent = 'Copied';
      setTimeout(() => { link.textContent = words; }, 1500);
    });
    return;
  }
  const found = event.target.closest('[data-do]');
  if (!found || !element.contains(found)) return;
  trigger(found.dataset.do, JSON.parse(found.dataset.with || '{}'));
  if (found.dataset.do === 'case_open') window.scrollTo({ top: 0 });
});

function spell() {
  element.querySelectorAll('[data-address]').forEach((anchor) => {
    anchor.textContent = address(anchor.dataset.address);
    anchor.href = anchor.textContent;
  });
}
watch('value', spell);
spell();
