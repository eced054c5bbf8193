// Saves what the server sent as a file; nothing of it stays on the server.
let last = null;
watch('value', () => {
  if (!props.value || props.value === last) return;
  last = props.value;
  const file = JSON.parse(last);
  const bytes = Uint8Array.from(atob(file.data), (sign) => sign.charCodeAt(0));
  const anchor = document.createElement('a');
  anchor.href = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }));
  anchor.download = file.name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
});
