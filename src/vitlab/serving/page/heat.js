// Numbers and colours: decodes 16-bit floats, and maps [0, 1] to a perceptually uniform colour scale.

const HALF = halfTable();
const ANCHORS = [
  [0, 0, 4], [22, 11, 57], [66, 10, 104], [106, 23, 110], [147, 38, 103], [188, 55, 84], [221, 81, 58],
  [243, 120, 25], [252, 165, 10], [246, 215, 70], [252, 255, 164],
];
export const COLOURS = colourTable();

function halfTable() {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits += 1) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    table[bits] = bits & 32768 ? -size : size;
  }
  return table;
}

function colourTable() {
  const table = new Uint8ClampedArray(256 * 3);
  for (let index = 0; index < 256; index += 1) {
    const place = (index / 255) * (ANCHORS.length - 1);
    const before = Math.min(Math.floor(place), ANCHORS.length - 2);
    for (let channel = 0; channel < 3; channel += 1) {
      const [low, high] = [ANCHORS[before][channel], ANCHORS[before + 1][channel]];
      table[3 * index + channel] = low + (place - before) * (high - low);
    }
  }
  return table;
}

/** Decodes little-endian 16-bit floats. */
export function halves(buffer) {
  const view = new DataView(buffer);
  const numbers = new Float32Array(buffer.byteLength / 2);
  for (let index = 0; index < numbers.length; index += 1) numbers[index] = HALF[view.getUint16(2 * index, true)];
  return numbers;
}

/** An image with `columns` pixels per row, each coloured by its value between `least` and `most`. */
export function heatImage(values, columns, least, most) {
  const image = new ImageData(columns, values.length / columns);
  const spread = most - least || 1;
  values.forEach((value, index) => {
    const colour = 3 * Math.round(255 * Math.min(1, Math.max(0, (value - least) / spread)));
    image.data.set([COLOURS[colour], COLOURS[colour + 1], COLOURS[colour + 2], 255], 4 * index);
  });
  return image;
}

/** A share as a percentage. */
export function percent(share) {
  const value = 100 * share;
  const digits = value === 0 || value >= 9.95 ? 0 : value >= 0.095 ? 1 : 2;
  return `${value.toFixed(digits)}\u00a0%`;
}
