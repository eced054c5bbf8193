// The line is drawn anew now and then; details that a person unfolded stay unfolded.
let open = false;
const details = () => element.querySelector('details');
element.addEventListener('toggle', (event) => { open = event.target.open; }, true);
element.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && open) { details().open = false; details().querySelector('summary').focus(); }
});
watch('value', () => { const fresh = details(); if (fresh && open) fresh.open = true; });
document.addEventListener('click', (event) => {
  if (open && !element.contains(event.target)) details().open = false;
});
