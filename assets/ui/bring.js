// Pictures pasted anywhere, or dropped on the picture's column, go the way of uploaded ones.
(() => {
  function give(files) {
    const input = document.querySelector('#upload input[type=file], input#upload[type=file]')
      ?? document.querySelector('#upload')?.parentElement?.querySelector('input[type=file]');
    if (!input || !files.length) return;
    const bag = new DataTransfer();
    bag.items.add(files[0]);
    input.files = bag.files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
  }
  const column = (place) => place?.closest?.('#picture-column');

  document.addEventListener('paste', (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    give(files);
  });
  document.addEventListener('dragover', (event) => {
    if (!column(event.target) || !event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    column(event.target).toggleAttribute('data-drop', true);
  });
  document.addEventListener('dragleave', (event) => {
    const left = column(event.target);
    if (left && !left.contains(event.relatedTarget)) left.toggleAttribute('data-drop', false);
  });
  document.addEventListener('drop', (event) => {
    const here = column(event.target);
    if (!here) return;
    event.preventDefault();
    here.toggleAttribute('data-drop', false);
    give([...(event.dataTransfer?.files ?? [])]);
  });
})();
