// How the answer is made, beside the bench. The settings are the component's value, as JSON, in both directions.
let settings = {};
let last = null;

function read() {
  try {
    return JSON.parse(props.value || '{}');
  } catch {
    return {};
  }
}

function toggle(name, words) {
  const box = Object.assign(document.createElement('input'), { type: 'checkbox', checked: Boolean(settings[name]) });
  box.addEventListener('change', () => {
    settings[name] = box.checked;
    last = JSON.stringify(settings);
    props.value = last;
    trigger('input');
  });
  const label = document.createElement('label');
  label.append(box, ` ${words}`);
  return label;
}

function draw() {
  element.querySelector('.settings')?.replaceChildren(
    toggle('cns', 'Contrast with noise (CNS)'),
    toggle('replace', "Feed the SAE's reconstruction, as in the paper"),
  );
}

watch('value', () => {
  if (props.value === last) return;
  last = props.value;
  settings = read();
  draw();
});
settings = read();
draw();
