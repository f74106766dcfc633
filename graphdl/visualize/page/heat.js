// Colours of a heat map: from pale to strong over the logarithm of the values.

/** Light to dark, by equal steps of lightness; readable with dark text up to the last but one. */
const HEAT = ["#fff4d6", "#fee2a3", "#fdc772", "#fba251", "#f0763d", "#d64a33", "#a92b2f"];

/** What is this much less than the most is as pale as can be: it does not matter any more. */
const HEAT_RANGE = 1000;

const HEATS = {
  time: { name: "time", text: asSeconds },
  bytes: { name: "bytes", text: asBytes },
  flops: { name: "flops", text: asFlops },
  intensity: { name: "intensity", text: asIntensity },
};

/** The scale of some values: `of(value)` gives {fill, dark}, undefined what has no colour. */
function heatScale(values) {
  const known = values.filter((value) => value > 0);
  if (!known.length) return { low: 0, high: 0, of: () => undefined };
  const high = known.reduce((a, b) => Math.max(a, b));
  const low = Math.max(known.reduce((a, b) => Math.min(a, b)), high / HEAT_RANGE);
  const span = Math.log(high / low) || 1;
  const of = (value) => {
    if (value === undefined || value === null) return undefined;
    const share = value > low ? Math.log(value / low) / span : 0;
    return { fill: mixed(share), dark: share > 0.72 };
  };
  return { low, high, of };
}

function mixed(share) {
  const place = Math.max(0, Math.min(1, share)) * (HEAT.length - 1);
  const at = Math.min(Math.floor(place), HEAT.length - 2);
  const part = place - at;
  const channel = (colour, i) => parseInt(colour.slice(1 + 2 * i, 3 + 2 * i), 16);
  const mix = (i) => Math.round(channel(HEAT[at], i) * (1 - part) + channel(HEAT[at + 1], i) * part);
  return `#${[0, 1, 2].map((i) => mix(i).toString(16).padStart(2, "0")).join("")}`;
}
