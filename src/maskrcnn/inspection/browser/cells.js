'use strict';
// Pick a cell of a feature map and see its anchors, their objectness and what became of them.

const cell = { level: 0, row: 0, column: 0, anchor: NOBODY };
const candidateOf = new Map([...trace.candidates.anchor].map((anchor, row) => [anchor, row]));
const cellInputs = { level: element('cell-level'), row: element('cell-row'), column: element('cell-column') };

// The k anchors of a cell: box, objectness, and the candidate that it became or NOBODY.
function anchorsOf({ level, row, column }) {
  const { columns, cellAnchors, objectness } = trace.levels[level];
  return cellAnchors.map((_, anchor) => {
    const number = (row * columns + column) * cellAnchors.length + anchor;
    return {
      box: anchorBox({ level, row, column, anchor }),
      objectness: objectness[number],
      candidate: candidateOf.get(levelStarts[level] + number) ?? NOBODY,
    };
  });
}

function setCell({ level = cell.level, row, column, anchor = NOBODY }) {
  const { rows, columns } = trace.levels[level];
  Object.assign(cell, {
    level,
    row: Math.min(Math.max(row, 0), rows - 1),
    column: Math.min(Math.max(column, 0), columns - 1),
    anchor,
  });
  drawCell();
}

function cellBox({ level, row, column }) {
  const { stride } = trace.levels[level];
  return [column * stride, row * stride, (column + 1) * stride, (row + 1) * stride];
}

function paintCell(view) {
  anchorsOf(cell).forEach(({ box }, k) => {
    view.box(box, COLORS[k % COLORS.length], { width: k === cell.anchor ? 3 : 1.5 });
  });
  const [x1, y1, x2, y2] = cellBox(cell);
  view.context.fillStyle = '#ffffffb0';
  view.context.fillRect(x1, y1, x2 - x1, y2 - y1);
  view.box([x1, y1, x2, y2], FOLLOWED, { width: 1 });
}

const cellView = new View('cell-view', paintCell);
const cellDetail = new View('cell-detail', paintCell, () => around(cellBox(cell), ...anchorsOf(cell).map(a => a.box)));

function drawCell() {
  const { rows, columns } = trace.levels[cell.level];
  cellInputs.level.value = cell.level;
  cellInputs.row.max = rows - 1;
  cellInputs.column.max = columns - 1;
  cellInputs.row.value = cell.row;
  cellInputs.column.value = cell.column;
  element('cell-anchors').replaceChildren(...anchorsOf(cell).map(({ box, objectness, candidate }, k) => {
    const limit = trace.rules.perLevel.toLocaleString('en');
    const fate = candidate === NOBODY ? `not among the ${limit} best of its level` : fateOf(candidate);
    const swatch = Object.assign(document.createElement('i'), { className: 'swatch' });
    swatch.style.background = COLORS[k % COLORS.length];
    const row = tableRow([`${k + 1}`, fate, percent(objectness), sizeOf(box)], 2);
    row.firstChild.prepend(swatch);
    row.classList.toggle('chosen', k === cell.anchor);
    return row;
  }));
  cellView.draw();
  cellDetail.draw();
}

// A table row of texts, with numbers from column `numbersFrom` on.
function tableRow(texts, numbersFrom) {
  const row = document.createElement('tr');
  row.append(...texts.map((text, k) => {
    const part = document.createElement(k ? 'td' : 'th');
    part.textContent = text;
    if (k >= numbersFrom) part.className = 'n';
    return part;
  }));
  return row;
}

cellView.onClick((x, y) => {
  const { stride } = trace.levels[cell.level];
  setCell({ row: Math.floor(y / stride), column: Math.floor(x / stride) });
});
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
cellView.canvas.addEventListener('keydown', event => {
  const move = MOVES[event.key];
  if (!move) return;
  event.preventDefault();
  setCell({ row: cell.row + move[0], column: cell.column + move[1] });
});
cellInputs.level.addEventListener('change', () => {
  // The cell of the new level under the centre of the old one.
  const [x1, y1, x2, y2] = cellBox(cell), level = Number(cellInputs.level.value), { stride } = trace.levels[level];
  setCell({ level, row: Math.floor((y1 + y2) / 2 / stride), column: Math.floor((x1 + x2) / 2 / stride) });
});
for (const name of ['row', 'column']) {
  cellInputs[name].addEventListener('change', () => setCell({ ...cell, anchor: NOBODY, [name]: Number(cellInputs[name].value) }));
}
parts.push(drawCell);
document.addEventListener('followed', () => {
  if (followed !== NOBODY) Object.assign(cell, placeOf(followedCandidate()));
});
