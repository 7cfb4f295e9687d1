'use strict';
// Sliders of the settings, proposals and detections under them.

const sliders = [...document.querySelectorAll('input[data-setting]')];
for (const slider of sliders) {
  slider.addEventListener('input', () => change(slider.dataset.setting, Number(slider.value)));
}
element('reset').addEventListener('click', () => {
  Object.assign(settings, modelSettings);
  choose();
  draw();
});

parts.push(() => {
  for (const slider of sliders) {
    slider.value = settings[slider.dataset.setting];
    slider.nextElementSibling.value = settings[slider.dataset.setting];
  }
  element('reset').disabled = Object.keys(settings).every(name => settings[name] === modelSettings[name]);
});

// Proposals, and what the chosen one suppresses.
const candidateEntries = () => proposals.kept.map(row => [candidateBox(row), row]);
let chosenProposal = NOBODY;

const proposalView = new View('proposal-view', view => {
  const show = element('proposal-show').value;
  if (show === 'all') view.boxes(eligible.map(candidateBox), PALE + '50');
  if (show === 'dropped') view.boxes([...proposals.by.keys()].map(candidateBox), WRONG + '80');
  if (show !== 'dropped') view.boxes(proposals.kept.map(candidateBox), COLORS[3]);
  if (chosenProposal !== NOBODY) view.box(candidateBox(chosenProposal), FOLLOWED, { width: 2.5 });
});
const proposalDetail = new View('proposal-detail', view => {
  view.boxes(suppressedBy(chosenProposal).map(candidateBox), WRONG, 1.2);
  view.box(candidateBox(chosenProposal), FOLLOWED, { width: 2.5 });
}, () => chosenProposal === NOBODY ? null
  : around(candidateBox(chosenProposal), ...suppressedBy(chosenProposal).map(candidateBox)));

const suppressedBy = winner => [...proposals.by].filter(([, by]) => by === winner).map(([row]) => row);

function chooseProposal(row) {
  chosenProposal = row;
  draw();
}

proposalView.onClick((x, y) => chooseProposal(pick(candidateEntries(), x, y) ?? NOBODY));
const proposalNumber = element('proposal-number');
proposalNumber.addEventListener('change', () => {
  const rank = Math.min(Math.max(Math.round(proposalNumber.value), 1), proposals.kept.length);
  chooseProposal(proposals.kept[rank - 1] ?? NOBODY);
});
element('proposal-show').addEventListener('change', () => proposalView.draw());
document.addEventListener('followed', () => {
  chosenProposal = followedCandidate();
});

parts.push(() => {
  const { kept, by } = proposals, total = trace.candidates.rank.length;
  const nCut = eligible.length - kept.length - by.size, nUnfit = total - eligible.length;
  element('proposal-counts').textContent = `${counted(total, 'candidate')}: ${counted(kept.length, 'proposal')}, `
    + `${by.size.toLocaleString('en')} suppressed, ${nCut.toLocaleString('en')} cut by the limit`
    + (nUnfit ? `, ${nUnfit.toLocaleString('en')} too small or below the floor` : '') + '.';
  proposalNumber.max = kept.length;
  proposalNumber.value = proposals.rankOf.has(chosenProposal) ? proposals.rankOf.get(chosenProposal) + 1 : '';
  element('proposal-chosen').textContent = chosenProposal === NOBODY ? '' : describeCandidate(chosenProposal);
});

function describeCandidate(row) {
  const place = placeOf(row), n = suppressedBy(row).length;
  const what = proposals.rankOf.has(row) ? `Proposal ${proposals.rankOf.get(row) + 1}` : `A candidate, ${fateOf(row)},`;
  const rest = proposals.rankOf.has(row) ? ` It suppresses ${counted(n, 'weaker candidate')} (orange).` : '';
  return `${what} has objectness ${percent(trace.candidates.objectness[row])}. It is anchor ${place.anchor + 1} of `
    + `${trace.levels[place.level].name}, row ${place.row}, column ${place.column}, moved by the RPN to `
    + `${sizeOf(candidateBox(row))}.${rest}`;
}

// Detections.
const isDashed = one => one.mask === NOBODY;

function paintDetections(view, withMasks) {
  for (const one of selection.found) {
    const color = classColor(one.label);
    if (withMasks && one.mask !== NOBODY) view.outline(trace.masks.outlines, one.mask, color);
    else view.box(inputBox(one.box), color, { dash: isDashed(one) });
  }
  const one = followedDetection();
  if (one) view.box(inputBox(one.box), FOLLOWED, { width: 2.5 });
}

const selectionView = new View('selection-view', view => {
  if (element('selection-members').checked) view.boxes(selection.members.map(classBox), PALE + '60');
  paintDetections(view, false);
});
const detectionView = new View('detection-view', view => paintDetections(view, true));
element('selection-members').addEventListener('change', () => selectionView.draw());
for (const view of [selectionView, detectionView]) {
  view.onClick((x, y) => follow(pick(selection.found.map(one => [inputBox(one.box), one.row]), x, y) ?? NOBODY));
}

parts.push(() => {
  const { members, kept, by, competing, found } = selection, nCut = competing.length - kept.length - by.size;
  const nUncertain = kept.length - found.length, nDashed = found.filter(isDashed).length;
  element('selection-counts').textContent = `${counted(members.length, 'class candidate')}, of which `
    + `${competing.length.toLocaleString('en')} above the score threshold: ${by.size.toLocaleString('en')} suppressed, `
    + `${nCut.toLocaleString('en')} cut by the limit`
    + (nUncertain ? `, ${nUncertain.toLocaleString('en')} dropped for an uncertain or empty mask` : '')
    + `; ${counted(found.length, 'detection')}.`
    + (nDashed ? ` ${counted(nDashed, 'box', 'boxes')} (dashed) without a mask in this page.` : '');
});
