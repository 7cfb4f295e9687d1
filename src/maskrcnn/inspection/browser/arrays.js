'use strict';
// Reading the page's data: base64 -> typed arrays.

const ARRAYS = {
  float32: Float32Array, int32: Int32Array, int16: Int16Array, int8: Int8Array, uint16: Uint16Array, uint8: Uint8Array,
};

function unpacked(value) {
  if (Array.isArray(value) || value === null || typeof value !== 'object') return value;
  if (typeof value.bytes === 'string' && value.type in ARRAYS) {
    const text = atob(value.bytes), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new ARRAYS[value.type](bytes.buffer);
  }
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, unpacked(part)]));
}

const trace = unpacked(DATA);
trace.levels = trace.levels.map(unpacked);
