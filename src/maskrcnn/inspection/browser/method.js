'use strict';
// The two choices of the method, repeated in float32 exactly as the program makes them:
// candidates -> proposals, and class candidates -> detections. Boxes are in the network's units.

const { fround } = Math;
const NOBODY = -1;

// Rows by falling value; equal values keep their order.
function byFalling(rows, values) {
  return Array.from(rows).sort((a, b) => values[b] - values[a]);
}

// Move the boxes of groups apart, as torchvision does for up to rules.maxShifted boxes.
function shifted(boxes, groups, rows) {
  if (!trace.rules.groupsShifted || rows.length === 0 || rows.length > trace.rules.maxShifted) return boxes;
  let highest = -Infinity;
  for (const row of rows) for (let k = 0; k < 4; k++) highest = Math.max(highest, boxes[4 * row + k]);
  const step = fround(highest + 1), moved = new Float32Array(boxes.length);
  for (const row of rows) {
    const offset = fround(groups[row] * step);
    for (let k = 0; k < 4; k++) moved[4 * row + k] = fround(boxes[4 * row + k] + offset);
  }
  return moved;
}

// The areas of intersection and union of boxes i and j, 0 and 1 if they do not meet.
const areas = new Float32Array(2);
function measure(boxes, i, j) {
  const a = 4 * i, b = 4 * j;
  const w = fround(Math.min(boxes[a + 2], boxes[b + 2]) - Math.max(boxes[a], boxes[b]));
  const h = fround(Math.min(boxes[a + 3], boxes[b + 3]) - Math.max(boxes[a + 1], boxes[b + 1]));
  if (w <= 0 || h <= 0) {
    areas[0] = 0;
    areas[1] = 1;
    return;
  }
  const shared = fround(w * h);
  const areaA = fround(fround(boxes[a + 2] - boxes[a]) * fround(boxes[a + 3] - boxes[a + 1]));
  const areaB = fround(fround(boxes[b + 2] - boxes[b]) * fround(boxes[b + 3] - boxes[b + 1]));
  areas[0] = shared;
  areas[1] = fround(fround(areaA + areaB) - shared);
}

// Non-maximum suppression of rows, best first: the kept rows, and for each dropped one the row that dropped it.
// A row that neither is kept nor has such a row came after `limit` better ones.
function suppress(boxes, groups, rows, threshold, limit) {
  const places = shifted(boxes, groups, rows), limitIou = fround(threshold);
  const kept = [], keptOf = new Map(), by = new Map();
  for (const row of rows) {
    if (!keptOf.has(groups[row])) keptOf.set(groups[row], []);
    const rivals = keptOf.get(groups[row]);
    let winner = NOBODY;
    for (const rival of rivals) {
      measure(places, row, rival);
      if (areas[0] > 0 && fround(areas[0] / areas[1]) > limitIou) {
        winner = rival;
        break;
      }
    }
    if (winner !== NOBODY) by.set(row, winner);
    else if (kept.length < limit) {
      kept.push(row);
      rivals.push(row);
    }
  }
  return { kept, by };
}

const eligible = byFalling([...trace.candidates.eligible.keys()].filter(row => trace.candidates.eligible[row]),
  trace.candidates.rank);

function chooseProposals({ proposalThreshold, proposals }) {
  const { boxes, group } = trace.candidates;
  return suppress(boxes, group, eligible, proposalThreshold, proposals);
}

const reaches = (score, threshold) => trace.rules.bestOnly ? score >= fround(threshold) : score > fround(threshold);

// The mean box of a row, weighted by score, over itself and the members that overlap it by more than rules.votingIou.
function vote(row, members) {
  const { boxes, scores, labels } = trace.classCandidates, limit = fround(trace.rules.votingIou);
  const voters = [row], mean = new Float32Array(4);
  let total = scores[row];
  for (let k = 0; k < 4; k++) mean[k] = fround(scores[row] * boxes[4 * row + k]);
  for (const other of members) {
    if (other === row || labels[other] !== labels[row]) continue;
    measure(boxes, row, other);
    if (!(areas[0] > 0 && areas[0] > fround(limit * areas[1]))) continue;
    voters.push(other);
    total = fround(total + scores[other]);
    for (let k = 0; k < 4; k++) mean[k] = fround(mean[k] + fround(scores[other] * boxes[4 * other + k]));
  }
  return { box: mean.map(sum => sum / total), voters };
}

const maskOf = new Map([...trace.masks.row].map((row, mask) => [row, mask]));

// Detections, best first. With mask scoring, a score is multiplied by the certainty of its mask where that is known.
function chooseDetections({ threshold, score, detections }, proposals) {
  const { boxes, scores, labels, candidate, large } = trace.classCandidates, { rules } = trace;
  const isProposal = new Uint8Array(trace.candidates.rank.length);
  for (const row of proposals) isProposal[row] = 1;
  const minScore = rules.voting ? Math.min(score, rules.votingScore) : score;
  const members = [...scores.keys()].filter(row => isProposal[candidate[row]] && reaches(scores[row], minScore));
  const competing = byFalling(members.filter(row => large[row] && reaches(scores[row], score)), scores);
  const { kept, by } = suppress(boxes, labels, competing, threshold, detections);
  let found = kept.map(row => {
    const { box, voters } = rules.voting ? vote(row, members) : { box: boxes.slice(4 * row, 4 * row + 4), voters: [row] };
    const mask = maskOf.get(row) ?? NOBODY;
    return { row, label: labels[row], box, voters, mask, classScore: scores[row], score: scores[row] };
  });
  if (rules.maskScoring) {
    for (const one of found) {
      if (one.mask !== NOBODY) one.score = fround(one.classScore * trace.masks.certainty[one.mask]);
    }
    found = found.filter(one => one.score >= fround(score));
    found.sort((a, b) => b.score - a.score);
  }
  return { members, competing, kept, by, found: found.filter(one => isVisible(pictureBox(one.box))) };
}

function isVisible([x1, y1, x2, y2]) {
  return x2 > x1 && y2 > y1;
}

// A box in pixels of the network's input.
function inputBox(box) {
  const { span, shift } = trace.units;
  return Array.from(box, (value, k) => value * span[k] + shift[k]);
}

// A box in pixels of the picture, in float32 as the program computes it.
function pictureBox(box) {
  const [left, top, right, bottom] = trace.window, { width, height } = trace.picture;
  if (trace.units.rounded) return roundedBox(box);
  return Array.from(box, (value, k) => {
    const [start, end, length] = k % 2 ? [top, bottom, height] : [left, right, width];
    const moved = fround(fround(value - start) * fround(length / (end - start)));
    return Math.min(Math.max(moved, 0), length);
  });
}

// Matterport's rule: boxes run from the first pixel to the last, and are rounded, half to even.
function roundedBox(box) {
  const { width, height } = trace.picture, { span, shift } = trace.units;
  return Array.from(box, (value, k) => {
    const start = (trace.window[k % 2] - shift[k % 2]) / span[k % 2];
    const end = (trace.window[2 + k % 2] - shift[2 + k % 2]) / span[k % 2];
    const place = (value - start) / (end - start) * ((k % 2 ? height : width) - 1) + (k < 2 ? 0 : 1);
    const floor = Math.floor(place), fraction = place - floor;
    return fraction > 0.5 || (fraction === 0.5 && floor % 2) ? floor + 1 : floor;
  });
}
