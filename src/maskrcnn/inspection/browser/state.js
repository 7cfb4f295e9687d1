'use strict';
// What the reader has chosen: settings, the detection that is followed. Every part of the page draws itself from this.

const modelSettings = Object.freeze({ ...trace.settings });
const settings = { ...modelSettings };
let proposals, selection, followed = NOBODY;  // followed: a row of the class candidates
const parts = [];

const element = id => document.getElementById(id);
const className = label => trace.classes[label - 1];
const percent = value => value >= 0.0001 || value === 0 ? value.toFixed(4) : value.toExponential(1);
const counted = (n, noun, plural = noun + 's') => `${n.toLocaleString('en')} ${n === 1 ? noun : plural}`;
const sizeOf = ([x1, y1, x2, y2]) => `${(x2 - x1).toFixed(1)} × ${(y2 - y1).toFixed(1)} px`;
const boxOf = (boxes, row) => inputBox(boxes.subarray(4 * row, 4 * row + 4));
const candidateBox = row => boxOf(trace.candidates.boxes, row);
const classBox = row => boxOf(trace.classCandidates.boxes, row);

const levelStarts = [0];
for (const level of trace.levels) {
  levelStarts.push(levelStarts.at(-1) + level.rows * level.columns * level.cellAnchors.length);
}

// Where the anchor of a candidate stands: level, row, column and number in the cell.
function placeOf(candidate) {
  const number = trace.candidates.level[candidate], level = trace.levels[number];
  const anchor = trace.candidates.anchor[candidate] - levelStarts[number], perCell = level.cellAnchors.length;
  const cell = Math.floor(anchor / perCell);
  return { level: number, row: Math.floor(cell / level.columns), column: cell % level.columns, anchor: anchor % perCell };
}

const anchorBox = ({ level, row, column, anchor }) => {
  const { cellAnchors, step } = trace.levels[level];
  return cellAnchors[anchor].map((value, k) => value + (k % 2 ? row * step[1] : column * step[0]));
};

// What became of a candidate under the present settings.
function fateOf(candidate) {
  if (!trace.candidates.eligible[candidate]) return 'too small, or below the floor';
  const rank = proposals.rankOf.get(candidate);
  if (rank !== undefined) return `proposal ${rank + 1}`;
  const winner = proposals.by.get(candidate);
  return winner === undefined ? 'cut by the limit' : `suppressed by proposal ${proposals.rankOf.get(winner) + 1}`;
}

function choose() {
  proposals = chooseProposals(settings);
  proposals.rankOf = new Map(proposals.kept.map((row, rank) => [row, rank]));
  selection = chooseDetections(settings, proposals.kept);
}

const followedDetection = () => selection.found.find(one => one.row === followed);
const followedCandidate = () => followed === NOBODY ? NOBODY : trace.classCandidates.candidate[followed];

function follow(row) {
  followed = row;
  document.dispatchEvent(new CustomEvent('followed'));
  draw();
}

let isWaiting = false;
function change(name, value) {
  settings[name] = value;
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    choose();
    draw();
  });
}

function draw() {
  for (const part of parts) part();
}
