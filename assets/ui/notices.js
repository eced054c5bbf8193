// Copies the command of a notice; where the browser does not allow that, marks it for copying by hand.
element.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-copy]');
  if (!button) return;
  const code = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = 'Copied';
  } catch {
    const range = document.createRange();
    range.selectNodeContents(code);
    const marked = getSelection();
    marked.removeAllRanges();
    marked.addRange(range);
    button.textContent = 'Marked';
  }
});
