'use strict';
// A canvas that shows the network's input, or a region of it, with boxes, points and outlines on top.

const COLORS = ['#e69f00', '#56b4e9', '#009e73', '#f0e442', '#0072b2', '#d55e00', '#cc79a7'];
const FOLLOWED = '#ffffff', WRONG = '#d55e00', RIGHT = '#009e73', PALE = '#56b4e9';
const classColor = label => trace.classes.length > 1 ? COLORS[label % COLORS.length] : COLORS[0];
const image = element('input-picture');

class View {
  // paint(view) draws on the picture; region() returns the corners that are shown, by default all.
  constructor(id, paint, region = () => [0, 0, trace.input.width, trace.input.height]) {
    this.canvas = element(id);
    this.context = this.canvas.getContext('2d');
    this.paint = paint;
    this.region = region;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    parts.push(() => this.draw());
  }

  draw() {
    const region = this.region();
    this.canvas.hidden = region === null;
    if (region === null) return;
    const [x1, y1, x2, y2] = region, width = this.canvas.clientWidth;
    if (!width) return;
    const scale = width / (x2 - x1), ratio = window.devicePixelRatio || 1;
    this.canvas.style.aspectRatio = `${x2 - x1} / ${y2 - y1}`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round((y2 - y1) * scale * ratio);
    this.pixel = 1 / scale;
    this.context.setTransform(ratio * scale, 0, 0, ratio * scale, -x1 * ratio * scale, -y1 * ratio * scale);
    this.context.imageSmoothingEnabled = scale < 2;
    this.context.drawImage(image, 0, 0, trace.input.width, trace.input.height);
    this.paint(this);
  }

  // The place of a mouse event in input pixels.
  place(event) {
    const [x1, y1, x2] = this.region(), scale = (x2 - x1) / this.canvas.clientWidth;
    return [x1 + event.offsetX * scale, y1 + event.offsetY * scale];
  }

  onClick(choose) {
    this.canvas.addEventListener('click', event => choose(...this.place(event)));
  }

  stroke(color, width, dash) {
    const { context, pixel } = this;
    context.setLineDash([]);
    context.lineWidth = (width + 1.6) * pixel;
    context.strokeStyle = '#0009';
    if (!dash) context.stroke();
    context.setLineDash(dash ? [5 * pixel, 3 * pixel] : []);
    context.lineWidth = width * pixel;
    context.strokeStyle = color;
    context.stroke();
  }

  box([x1, y1, x2, y2], color, { width = 1.5, dash = false } = {}) {
    this.context.beginPath();
    this.context.rect(x1, y1, x2 - x1, y2 - y1);
    this.stroke(color, width, dash);
  }

  // Many thin boxes in one stroke.
  boxes(list, color, width = 1) {
    this.context.beginPath();
    for (const [x1, y1, x2, y2] of list) this.context.rect(x1, y1, x2 - x1, y2 - y1);
    this.context.setLineDash([]);
    this.context.lineWidth = width * this.pixel;
    this.context.strokeStyle = color;
    this.context.stroke();
  }

  points(list, color) {
    this.context.fillStyle = '#000a';
    for (const [x, y] of list) this.disc(x, y, 2.6);
    this.context.fillStyle = color;
    for (const [x, y] of list) this.disc(x, y, 1.8);
  }

  disc(x, y, radius) {
    this.context.beginPath();
    this.context.arc(x, y, radius * this.pixel, 0, 2 * Math.PI);
    this.context.fill();
  }

  // The outline of mask k of `outlines`, filled lightly.
  outline(outlines, k, color, { fill = true, width = 1.5 } = {}) {
    const { context } = this, [x1, y1, x2, y2] = trace.window;
    const sx = (x2 - x1) / outlines.width, sy = (y2 - y1) / outlines.height;
    context.beginPath();
    for (let ring = outlines.masks[k]; ring < outlines.masks[k + 1]; ring++) {
      for (let p = outlines.rings[ring]; p < outlines.rings[ring + 1]; p++) {
        const x = x1 + outlines.points[2 * p] * sx, y = y1 + outlines.points[2 * p + 1] * sy;
        if (p === outlines.rings[ring]) context.moveTo(x, y);
        else context.lineTo(x, y);
      }
      context.closePath();
    }
    if (fill) {
      context.fillStyle = color + '40';
      context.fill('evenodd');
    }
    this.stroke(color, width, false);
  }
}

// A square region around boxes, with room on every side, moved into the input if it fits and the boxes lie there.
function around(...boxes) {
  const known = boxes.filter(Boolean);
  if (!known.length) return null;
  const low = [0, 1].map(k => Math.min(...known.map(box => box[k])));
  const high = [2, 3].map(k => Math.max(...known.map(box => box[k])));
  const side = Math.max(32, 1.6 * Math.max(high[0] - low[0], high[1] - low[1]));
  const start = [0, 1].map(k => {
    const length = k ? trace.input.height : trace.input.width, first = (low[k] + high[k] - side) / 2;
    const isInside = side <= length && low[k] >= 0 && high[k] <= length;
    return isInside ? Math.min(Math.max(first, 0), length - side) : first;
  });
  return [...start, start[0] + side, start[1] + side];
}

// The smallest of the boxes [[box, value], ..] that holds a point, or the nearest one by its centre.
function pick(entries, x, y) {
  const holds = entries.filter(([[x1, y1, x2, y2]]) => x >= x1 && x <= x2 && y >= y1 && y <= y2);
  const area = ([[x1, y1, x2, y2]]) => (x2 - x1) * (y2 - y1);
  const distance = ([[x1, y1, x2, y2]]) => Math.hypot((x1 + x2) / 2 - x, (y1 + y2) / 2 - y);
  const [cost, among] = holds.length ? [area, holds] : [distance, entries];
  let best = null;
  for (const entry of among) if (best === null || cost(entry) < cost(best)) best = entry;
  return best && best[1];
}

// Values 0 to 255 (or -128 to 127 around 0) of `side` x `side` cells on a small canvas.
function drawCells(canvas, values, side, color) {
  canvas.width = canvas.height = side;
  const context = canvas.getContext('2d'), pixels = context.createImageData(side, side);
  values.forEach((value, k) => pixels.data.set([...color(value), 255], 4 * k));
  context.putImageData(pixels, 0, 0);
}
