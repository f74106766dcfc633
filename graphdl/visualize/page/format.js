// Numbers and names as people read them, and elements as the other files make them.

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes by name, `on…` as listeners, text only ever as text. */
function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== undefined && child !== null && child !== false) element.append(child);
  }
  return element;
}

/** A length in pixels, as fine as anyone sees. */
const tenths = (length) => Math.round(10 * length) / 10;

/** Three digits, no exponent. */
function digits(value) {
  if (value === 0) return "0";
  const places = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(places, 6)).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

function scaled(value, step, units) {
  let at = 0;
  while (Math.abs(value) >= step && at < units.length - 1) {
    value /= step;
    at += 1;
  }
  return `${digits(value)} ${units[at]}`.trim();
}

const asBytes = (value) => scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
const asCount = (value) => scaled(value, 1000, ["", "k", "M", "G", "T", "P"]);
const asFlops = (value) => scaled(value, 1000, ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"]);
const asRate = (value, unit) => `${digits(value / 1e9)} G${unit}/s`;
const asIntensity = (value) => `${digits(value)} FLOP/B`;

function asSeconds(value) {
  if (value === 0) return "0 s";
  const [unit, factor] =
    value >= 1 ? ["s", 1] : value >= 1e-3 ? ["ms", 1e3] : value >= 1e-6 ? ["µs", 1e6] : ["ns", 1e9];
  return `${digits(value * factor)} ${unit}`;
}

const asPercent = (value) => `${digits(100 * value)} %`;
/** 12,345: by hand, because the first toLocaleString of a page loads tables for 40 ms. */
const withCommas = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ",");
const plural = (count, word) => `${withCommas(count)} ${word}${count === 1 ? "" : "s"}`;
const asShape = (node) => (node.shape.length ? node.shape.join(" × ") : "scalar");
const asType = (node) => `${node.dtype}[${node.shape.join(", ")}]`;
const SHORT = { float: "f", int: "i", uint: "u", complex: "c" };
/** As in boxes: f32[128,784]. */
const shortType = (node) => {
  const [, stem, size] = node.dtype.match(/^(.*?)(\d*)$/);
  return (SHORT[stem] ?? stem) + size + (node.shape.length ? `[${node.shape.join(",")}]` : "");
};
const baseName = (path) => path.replace(/^.*[\\/]/, "");
const asLine = (source) => `${baseName(source.file)}:${source.line}`;

/** A text of at most `limit` characters; what is cut shows as an ellipsis. */
function cut(text, limit) {
  const letters = Array.from(text.length > 4 * limit ? text.slice(0, 4 * limit) : text);
  return letters.length <= limit && letters.join("") === text
    ? text
    : letters.slice(0, limit - 1).join("") + "…";
}
