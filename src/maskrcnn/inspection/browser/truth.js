'use strict';
// True objects: which were found, and the stage that lost each of the others.

if (trace.truth) {
  const { objects, outlines } = trace.truth;
  const boxes = objects.map(({ box }) => box);
  let chosen = NOBODY;

  const truthView = new View('truth-view', view => {
    objects.forEach((object, k) => view.outline(outlines, k, object.found ? RIGHT : WRONG, { fill: !object.found }));
    paintChosen(view);
  });
  const truthDetail = new View('truth-detail', view => {
    view.outline(outlines, chosen, objects[chosen].found ? RIGHT : WRONG, { fill: false });
    for (const one of selection.found) view.box(inputBox(one.box), classColor(one.label), { width: 1 });
    paintChosen(view);
  }, () => chosen === NOBODY ? null : around(boxes[chosen], objects[chosen].by));

  function paintChosen(view) {
    if (chosen === NOBODY) return;
    view.box(boxes[chosen], FOLLOWED, { width: 2.5 });
    if (objects[chosen].by) view.box(objects[chosen].by, COLORS[6], { width: 2, dash: true });
  }

  function explain(k) {
    chosen = k;
    const { name, cause, detail, setting, remark, by } = objects[k];
    const parts = [`Object ${k + 1}, ${name}: ${cause}. ${detail[0].toUpperCase()}${detail.slice(1)}.`];
    if (by) parts.push('The dashed box suppressed it.');
    if (remark) parts.push(`It was ${remark}.`);
    if (setting) parts.push(`The setting ${setting} decides this.`);
    element('truth-text').textContent = parts.join(' ');
    for (const button of document.querySelectorAll('[data-object]')) {
      button.setAttribute('aria-pressed', Number(button.dataset.object) === k);
    }
    truthView.draw();
    truthDetail.draw();
  }

  truthView.onClick((x, y) => {
    const k = pick(boxes.map((box, k) => [box, k]), x, y);
    if (k !== null) explain(k);
  });
  for (const button of document.querySelectorAll('[data-object]')) {
    button.addEventListener('click', () => explain(Number(button.dataset.object)));
  }
  const missed = objects.findIndex(object => !object.found);
  if (missed >= 0) explain(missed);
}
