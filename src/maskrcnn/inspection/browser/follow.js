'use strict';
// Follow one detection back through the stages: class scores, proposal, sampling points, anchor, mask.

const list = element('follow-list');
list.addEventListener('change', () => follow(Number(list.value)));
for (const [id, step] of [['follow-previous', -1], ['follow-next', 1]]) {
  element(id).addEventListener('click', () => {
    const { found } = selection, at = found.findIndex(one => one.row === followed);
    if (found.length) follow(found[(at + step + found.length) % found.length].row);
  });
}
const nameOf = (one, rank) => `${rank + 1}: ${className(one.label)} ${one.score.toFixed(3)}`;

parts.push(() => {
  const options = selection.found.map((one, rank) => new Option(nameOf(one, rank), one.row));
  if (!followedDetection()) {
    const text = followed === NOBODY ? 'none' : 'not a detection under these settings';
    options.unshift(new Option(text, followed));
  }
  list.replaceChildren(...options);
  list.value = followed;
});

// Detections as a table.
parts.push(() => {
  element('detection-rows').replaceChildren(...selection.found.map((one, rank) => {
    const certainty = one.mask === NOBODY ? '–' : trace.masks.certainty[one.mask].toFixed(3);
    const box = pictureBox(one.box).map(value => value.toFixed(1)).join(', ');
    const row = tableRow(['', className(one.label), one.score.toFixed(3), one.classScore.toFixed(3), certainty, box], 2);
    const button = Object.assign(document.createElement('button'), { textContent: rank + 1 });
    button.setAttribute('aria-label', `Follow detection ${rank + 1}`);
    button.addEventListener('click', () => follow(one.row));
    row.firstChild.append(button);
    row.classList.toggle('chosen', one.row === followed);
    return row;
  }));
});

// RoIAlign.
function samplingPoints(candidate) {
  const [x, dx, nx, y, dy, ny] = trace.candidates.samples.subarray(6 * candidate, 6 * candidate + 6);
  return Array.from({ length: nx * ny }, (_, k) => [x + dx * (k % nx), y + dy * Math.floor(k / nx)]);
}

new View('pool-view', view => {
  view.box(candidateBox(followedCandidate()), FOLLOWED, { width: 2 });
  view.points(samplingPoints(followedCandidate()), COLORS[3]);
}, () => followed === NOBODY ? null : around(candidateBox(followedCandidate())));

parts.push(() => {
  const candidate = followedCandidate(), side = 7, isNone = candidate === NOBODY;
  element('pool-cells').hidden = isNone;
  element('pool-text').textContent = isNone ? 'Follow a detection to see where RoIAlign reads.' : describePool(candidate);
  if (isNone) return;
  const cells = trace.candidates.pooled.subarray(side * side * candidate, side * side * (candidate + 1));
  drawCells(element('pool-cells'), cells, side, value => [value, value, value]);
});

function describePool(candidate) {
  const { name, stride } = trace.levels[trace.candidates.pooledLevel[candidate]];
  const [, , nx, , , ny] = trace.candidates.samples.subarray(6 * candidate, 6 * candidate + 6);
  return `The proposal measures ${sizeOf(candidateBox(candidate))}, so RoIAlign reads ${name} (a cell is ${stride} px) at `
    + `${nx} × ${ny} points and averages them to 7 × 7 cells. The grey squares are the length of each cell's features.`;
}

// Class and box head.
new View('head-view', view => {
  view.box(candidateBox(followedCandidate()), FOLLOWED, { dash: true });
  view.box(classBox(followed), COLORS[0], { width: 2 });
}, () => followed === NOBODY ? null : around(candidateBox(followedCandidate()), classBox(followed)));

parts.push(() => {
  const candidate = followedCandidate();
  element('head-text').textContent = candidate === NOBODY ? 'Follow a detection to see the scores of its classes.'
    : `The box head gives the proposal (dashed) these probabilities and moves it to ${sizeOf(classBox(followed))}.`;
  element('head-scores').replaceChildren(...(candidate === NOBODY ? [] : classScores(candidate)).map(scoreBar));
});

const MAX_BARS = 8;
function classScores(candidate) {
  const { scores, labels } = trace.classCandidates, background = trace.candidates.background[candidate];
  const rows = [...scores.keys()].filter(row => trace.classCandidates.candidate[row] === candidate);
  const bars = byFalling(rows, scores).slice(0, MAX_BARS).map(row => [className(labels[row]), scores[row]]);
  const rest = 1 - background - bars.reduce((sum, [, score]) => sum + score, 0);
  return [...bars, ['background', background], ...(rest > 5e-5 ? [['all other classes', rest]] : [])];
}

function scoreBar([name, score]) {
  const item = document.createElement('li'), bar = document.createElement('i'), value = document.createElement('b');
  const label = Object.assign(document.createElement('span'), { textContent: name, dir: 'auto' });
  bar.style.width = `${100 * score}%`;
  value.textContent = percent(score);
  item.append(label, bar, value);
  return item;
}

// Masks.
new View('mask-view', view => {
  const one = followedDetection();
  if (one.mask !== NOBODY) view.outline(trace.masks.outlines, one.mask, classColor(one.label), { fill: false, width: 2 });
  view.box(inputBox(one.box), FOLLOWED);
}, () => followedDetection() ? around(inputBox(followedDetection().box)) : null);

parts.push(() => {
  const one = followedDetection(), mask = one ? one.mask : NOBODY, canvas = element('mask-cells');
  canvas.hidden = mask === NOBODY;
  element('mask-text').textContent = !one ? 'Follow a detection to see the logits of its mask.'
    : mask === NOBODY ? 'This page has no mask for this box.' : describeMask(mask);
  if (mask !== NOBODY) drawCells(canvas, logitsOf(mask), trace.masks.side, logitColor);
});

const logitsOf = mask => trace.masks.logits.subarray(mask * trace.masks.side ** 2, (mask + 1) * trace.masks.side ** 2);

// Orange above 0, which is mask, blue below; white at 0.
function logitColor(tenths) {
  const share = Math.min(Math.abs(tenths) / 60, 1), end = tenths > 0 ? [213, 94, 0] : [0, 90, 160];
  return end.map(value => Math.round(255 + (value - 255) * share));
}

function describeMask(mask) {
  const logits = logitsOf(mask), nInside = logits.filter(value => value > 0).length, { side } = trace.masks;
  return `The mask head gives ${side} × ${side} logits from ${(Math.min(...logits) / 10).toFixed(1)} to `
    + `${(Math.max(...logits) / 10).toFixed(1)}. Cells above 0 (orange) are mask: `
    + `${nInside.toLocaleString('en')}. Their mean probability, the certainty of the mask, is `
    + `${trace.masks.certainty[mask].toFixed(3)}.`;
}

// The whole way, as one list.
parts.push(() => {
  element('origin').replaceChildren(...(followed === NOBODY ? [] : originOf(followed)).map(text => {
    const item = document.createElement('li');
    item.textContent = text;
    return item;
  }));
});

function originOf(row) {
  const { scores, labels, candidate } = trace.classCandidates, one = followedDetection(), place = placeOf(candidate[row]);
  const { name } = trace.levels[place.level], ways = [];
  if (one) {
    const others = one.voters.length - 1;
    ways.push(`Detection: ${className(one.label)}, score ${one.score.toFixed(3)}`
      + (others ? `; its box is the mean with ${counted(others, 'overlapping candidate')}.` : '.'));
  }
  ways.push(`Class candidate: ${className(labels[row])} scores ${scores[row].toFixed(3)}, box ${sizeOf(classBox(row))}`
    + (one ? '.' : `, ${classFate(row)}.`));
  ways.push(`Candidate: objectness ${percent(trace.candidates.objectness[candidate[row]])}, ${fateOf(candidate[row])}, box `
    + `${sizeOf(candidateBox(candidate[row]))}.`);
  ways.push(`Anchor ${place.anchor + 1} of ${name}, row ${place.row}, column ${place.column}: ${sizeOf(anchorBox(place))}.`);
  return ways;
}

function classFate(row) {
  if (!proposals.rankOf.has(trace.classCandidates.candidate[row])) return 'whose box is no proposal under these settings';
  if (selection.by.has(row)) return 'suppressed by a better one of its class';
  if (!selection.competing.includes(row)) return 'below the score threshold';
  return selection.kept.includes(row) ? 'dropped for an uncertain or empty mask' : 'cut by the limit';
}
