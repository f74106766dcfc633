// The roofline and the memory over the schedule.

const ROOF = { width: 340, height: 214, left: 44, right: 12, top: 20, bottom: 34 };

/** Kernels by intensity and speed, below what the machine can do. */
function roofline(page, chosen) {
  const { model } = page;
  const points = model.groups.filter((group) => group.time > 0 && group.flops > 0 && group.bytes > 0)
    .map((group) => ({ group, x: group.flops / group.bytes, y: group.flops / group.time }));
  if (!points.length) return make("p", { class: "quiet" }, "No kernel does arithmetic.");
  const { peak, bandwidth } = roofOf(model);
  const roofs = peak && bandwidth;
  const xs = points.map((point) => point.x);
  const ys = points.map((point) => point.y);
  if (roofs) {
    xs.push(peak / bandwidth);
    ys.push(peak);
  }
  const across = logScale(xs, ROOF.left, ROOF.width - ROOF.right);
  const up = logScale(ys, ROOF.height - ROOF.bottom, ROOF.top);
  const svg = draw("svg", { class: "chart", viewBox: `0 0 ${ROOF.width} ${ROOF.height}`, role: "img",
    "aria-label": "roofline" });
  svg.append(...gridOf(across, up));
  const [roof, ...names] = roofs ? roofsOf(across, up, peak, bandwidth) : [];
  if (roof) svg.append(roof);
  // of kernels at the same place one is drawn, the chosen or the slowest: layers repeat
  const places = new Map();
  for (const { group, x, y } of points) {
    const place = { group, cx: Math.round(across(x)), cy: Math.round(up(y)) };
    const key = `${place.cx} ${place.cy}`;
    const other = places.get(key)?.group;
    if (!other || group === chosen || (other !== chosen && group.time > other.time)) places.set(key, place);
  }
  for (const { group, cx, cy } of [...places.values()].sort((a, b) => (a.group === chosen) - (b.group === chosen))) {
    svg.append(draw("circle", {
      class: `point ${group.measured ? "measured" : "guess"} ${group === chosen ? "chosen" : ""}`,
      cx, cy, r: group === chosen ? 6 : 4.5,
      onclick: () => page.select({ group: group.index }, true),
      onpointerenter: (event) => page.hover({ group: group.index }, event),
      onpointerleave: () => page.hover(undefined),
    }));
  }
  svg.append(...names);
  const measured = points.every((point) => point.group.measured);
  const note = [measured ? "measured" : "hollow points are estimates",
    roofs ? "" : "; the machine's roof appears with profile=…"].join("");
  return make("figure", {}, svg, make("figcaption", {}, note));
}

/** What was measured of the machine, for the widest floats that a kernel computes with. */
function roofOf(model) {
  const { measured } = model.doc;
  if (!measured) return {};
  const used = new Set(model.kernels.map((kernel) => kernel.profile?.dtype));
  const rates = Object.entries(measured.flops).filter(([dtype]) => used.has(dtype));
  return { peak: Math.max(0, ...rates.map(([, rate]) => rate)), bandwidth: measured.bandwidth };
}

/** A logarithmic scale over whole decades with the values inside. */
function logScale(values, from, to) {
  const low = Math.floor(Math.log10(Math.min(...values)) - 0.15);
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values)) + 0.15));
  const scale = (value) => from + ((Math.log10(value) - low) / (high - low)) * (to - from);
  scale.decades = [...Array(high - low + 1).keys()].map((i) => 10 ** (low + i));
  return scale;
}

function gridOf(across, up) {
  const { width, height, left, right, bottom, top } = ROOF;
  const every = (decades, most) => decades.filter((_, i) => i % Math.ceil(decades.length / most) === 0);
  return [
    ...every(across.decades, 6).flatMap((value) => [
      draw("line", { class: "grid", x1: across(value), x2: across(value), y1: top, y2: height - bottom }),
      draw("text", { class: "tick", x: across(value), y: height - bottom + 13, "text-anchor": "middle" },
        asCount(value)),
    ]),
    ...every(up.decades, 6).flatMap((value) => [
      draw("line", { class: "grid", x1: left, x2: width - right, y1: up(value), y2: up(value) }),
      draw("text", { class: "tick", x: left - 5, y: up(value) + 3.5, "text-anchor": "end" }, asCount(value)),
    ]),
    draw("text", { class: "tick", x: width - right, y: height - 4, "text-anchor": "end" }, "FLOP per byte"),
    draw("text", { class: "tick", x: 2, y: 9 }, "FLOP/s"),
  ];
}

function roofsOf(across, up, peak, bandwidth) {
  const low = across.decades[0];
  const ridge = peak / bandwidth;
  const end = across.decades[across.decades.length - 1];
  const floor = up.decades[0];
  const start = Math.max(low, floor / bandwidth);
  let label = start; // of the bandwidth: far enough up the roof to stand above the ticks
  while (up(label * bandwidth) > ROOF.height - ROOF.bottom - 20) label *= 1.1;
  return [
    draw("path", { class: "roof", d: `M${across(start)} ${up(start * bandwidth)}L${across(ridge)} ${up(peak)}H${across(end)}` }),
    draw("text", { class: "tick strong", x: across(end), y: up(peak) - 8, "text-anchor": "end" }, asRate(peak, "FLOP")),
    draw("text", { class: "tick strong", x: across(label) + 9, y: up(label * bandwidth) + 11 }, asRate(bandwidth, "B")),
  ];
}

/** The memory over the schedule: where each value lies, as far as there is a plan. */
class MemoryChart {
  constructor(element, page) {
    this.element = element;
    this.page = page;
    new ResizeObserver(() => this.show()).observe(element);
  }

  show() {
    const { memory } = this.page.model.doc;
    const width = this.element.clientWidth;
    const height = this.element.clientHeight;
    const isEmpty = !memory?.values.length;
    document.body.classList.toggle("no-memory", isEmpty);
    if (isEmpty || !width) return;
    const live = liveBytes(memory);
    const values = placed(memory);
    const peak = largest(live);
    const most = Math.max(1, values ? largest(values.map((value) => value.offset + value.bytes)) : peak);
    const top = 24;
    this.geometry = { step: width / memory.count, height, top };
    const up = (value) => height - 2 - (value / most) * (height - top - 4);
    this.rects = (values || []).map((value) => this.rect(value, up));
    const svg = draw("svg", { class: "memory", width, height, role: "img", "aria-label": "memory over the schedule" },
      values ? this.areas() : this.area(live, up),
      values && memory.results && draw("line", { class: "arena-line", x1: 0, x2: width, y1: up(memory.arena), y2: up(memory.arena) }));
    if (values) this.listen(svg);
    this.cursor = draw("g", { class: "cursor" });
    svg.append(this.cursor);
    this.element.replaceChildren(make("div", { class: "memory-title" },
      make("b", {}, "Memory over the schedule"),
      values
        ? ` ${asBytes(memory.arena)} shared by values of ${asBytes(memory.unshared)}, and ${asBytes(memory.results)} of results, over ${plural(memory.count, "kernel")}`
        : ` at most ${asBytes(peak)} alive, after ${live.indexOf(peak) + 1} of ${plural(memory.count, "operation")} `,
      values ? "" : badge(false)), svg);
    this.point(this.page.selected);
  }

  /** A value, and its place in the chart. */
  rect(value, up) {
    const { step } = this.geometry;
    const node = this.page.model.nodes[value.node];
    const bottom = up(value.offset);
    const w = (value.last + 1 - value.first) * step;
    const h = Math.max(bottom - up(value.offset + value.bytes), 1);
    return { value, x: value.first * step, y: bottom - h, w, h, phase: node?.phase ?? "", label: node?.op ?? "" };
  }

  /** All values of a phase as one element, thin ones without a line: thousands have to be cheap. */
  areas() {
    const paths = new Map();
    for (const { x, y, w, h, phase } of this.rects) {
      const name = `value ${phase} ${h < 5 || w < 4 ? "thin" : ""}`;
      const [left, top, across, down] = [x + 0.5, y + 0.5, Math.max(w - 1, 0.6), Math.max(h - 1, 0.6)].map(tenths);
      const path = `M${left} ${top}h${across}v${down}h${-across}z`;
      paths.set(name, (paths.get(name) ?? "") + path);
    }
    const texts = this.rects.filter(({ w, h, label }) => label && h > 13 && w > label.length * 6.3 + 8);
    return [...[...paths].map(([name, d]) => draw("path", { class: name, d })),
      ...texts.map(({ x, y, h, label }) => draw("text", { class: "value-name", x: x + 5, y: y + Math.min(h / 2 + 4, 14) }, label))];
  }

  listen(svg) {
    const at = ({ offsetX, offsetY }) => this.rects.findLast(({ x, y, w, h }) =>
      offsetX >= x && offsetX < x + w && offsetY >= y && offsetY < y + h)?.value;
    svg.addEventListener("click", (event) => {
      const value = at(event);
      if (value?.node !== undefined) this.page.select({ node: value.node }, true);
    });
    svg.addEventListener("pointermove", (event) => {
      const value = at(event);
      svg.classList.toggle("points", value?.node !== undefined);
      this.page.hover(!value ? undefined : value.node !== undefined ? { node: value.node }
        : { text: `${value.purpose} · ${asBytes(value.bytes)}` }, event);
    });
    svg.addEventListener("pointerleave", () => this.page.hover(undefined));
  }

  /** Live bytes as one line, where no places are planned. */
  area(live, up) {
    const { step } = this.geometry;
    const { values } = this.page.model.doc.memory;
    let path = `M0 ${up(0)}`;
    const together = Math.max(1, Math.floor(1 / step)); // steps in a pixel, of which the highest shows
    for (let at = 0; at < live.length; at += together) {
      const end = Math.min(at + together, live.length);
      path += `L${tenths(at * step)} ${tenths(up(largest(live.slice(at, end))))}H${tenths(end * step)}`;
    }
    const stepAt = (event) => Math.floor(event.offsetX / step);
    const born = (at) => values.filter((value) => value.first <= at && value.node !== undefined)
      .reduce((best, value) => (!best || value.first > best.first ? value : best), undefined);
    return draw("path", {
      class: "live", d: `${path}V${up(0)}Z`,
      onclick: (event) => {
        const value = born(stepAt(event));
        if (value) this.page.select({ node: value.node }, true);
      },
    });
  }

  /** Mark when the selected node lives and where, or when its kernel runs. */
  point(what) {
    if (!this.cursor) return;
    this.cursor.replaceChildren();
    const { model } = this.page;
    const memory = model.doc.memory;
    const { step, height, top } = this.geometry;
    const kernels = what?.group !== undefined ? model.groups[what.group].own
      : what?.node !== undefined ? model.kernelsOf[what.node] : [];
    const steps = memory.steps === "kernels" ? kernels.map((kernel) => kernel.index)
      : memory.values.filter((value) => value.node === what?.node && what).map((value) => value.first);
    for (const at of steps) {
      this.cursor.append(draw("rect", { x: at * step, y: top - 3, width: Math.max(step, 2), height: height - top + 2 }));
    }
    for (const { value, x, y, w, h } of what?.node === undefined ? [] : this.rects) {
      if (value.node === what.node) this.cursor.append(draw("rect", { class: "chosen", x, y, width: w, height: h }));
    }
  }
}

function liveBytes(memory) {
  const change = new Array(memory.count + 1).fill(0);
  for (const value of memory.values) {
    change[value.first] += value.bytes;
    change[value.last + 1] -= value.bytes;
  }
  const live = [];
  let sum = 0;
  for (let step = 0; step < memory.count; step += 1) live.push((sum += change[step]));
  return live;
}

const largest = (values) => values.reduce((a, b) => Math.max(a, b), 0);

/** Values with their offsets: the results stand above the arena. Null where none is planned. */
function placed(memory) {
  if (memory.arena === undefined) return null;
  let above = memory.arena;
  return memory.values.map((value) => {
    if (value.offset !== undefined) return value;
    const offset = above;
    above += value.bytes;
    const { bytes, first, last, node, purpose } = value;
    return { bytes, first, last, node, purpose, offset };
  });
}
