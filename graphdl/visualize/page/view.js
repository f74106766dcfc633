// One picture in one pane: draws a stage of a model, zooms, pans, marks.

/** Of a letter at 11 px: no usual monospaced font is wider. */
const HEADER_WIDTH = 6.7;
const CLOSED_PADDING = 14;
const ZOOM_STEP = 1.2;
/** Below this scale only titles are readable, below the next one nothing is. */
const SMALL = 0.45;
const TINY = 0.22;
/** Of a picture with more boxes than this, texts are made only when they can be read. */
const MANY = 500;
/** What the legend takes at the lower border. */
const LEGEND_ROOM = 52;
/** What counts as an op: not the names of results, nor what is drawn again. */
const COUNTED = new Set(["op", "constant"]);

class View {
  /** `on` hears: select(what), toggle(group), hover(what, event). */
  constructor(pane, on) {
    this.pane = pane;
    this.on = on;
    this.world = draw("g");
    this.svg = draw("svg", { class: "graph", role: "img" }, arrowHeads(), this.world);
    pane.append(this.svg);
    this.x = 0;
    this.y = 0;
    this.scale = 1;
    this.closed = new Map(); // stage -> the closed groups of its picture
    this.levels = new Map(); // stage -> what is shown of it
    this.countsOf = new Map();
    new ResizeObserver(() => this.resized()).observe(pane);
    this.listen();
  }

  // --- what is shown ----------------------------------------------------------------------

  show(model, stage, level = startLevel(stage), fit = false) {
    this.model = model;
    this.stage = stage;
    this.setLevel(this.levels.get(stage) ?? level, false, fit);
  }

  /** What is closed: with an overview, scopes are a picture of their own. */
  setLevel(wanted, anew = true, fit = false) {
    const { stage } = this;
    const level = levelIn(this.model, stage, wanted);
    this.levels.set(stage, level);
    this.isOverview = level === "scope" && stage.overview !== undefined;
    this.picture = this.isOverview ? stage.overview : stage.picture;
    if (this.isOverview) this.closedGroups = new Set();
    else if (anew || !this.closed.has(stage)) this.closed.set(stage, closedAt(stage, level));
    if (!this.isOverview) this.closedGroups = this.closed.get(stage);
    this.render(fit);
  }

  /** Open a part of a scope: its kernels are closed or, where there are none, all other parts. */
  enter(frame) {
    const { stage, model } = this;
    if (!this.closed.has(stage)) {
      this.closed.set(stage, closedAt(stage, model.groups.length ? "kernel" : "scope"));
    }
    this.closed.get(stage).delete(frame);
    this.setLevel("kernel", false);
  }

  /** The widest a closed group may be: its name and the line below it. */
  closedWidth(at) {
    const [first, second] = this.closedText(at);
    return Math.max(first.length, second.length) * HEADER_WIDTH + CLOSED_PADDING;
  }

  closedText(at) {
    const frame = this.picture.groups[at];
    const group = this.groupAt(at);
    const limit = Math.max(4, Math.floor((frame.w - CLOSED_PADDING) / HEADER_WIDTH));
    const count = this.counts[at];
    const time = !group.time ? "" : ` · ${asSeconds(group.time)}`;
    return [cut(group.name, limit), cut(`${plural(count, "op")}${time}`, limit)];
  }

  /** What is known of a group of the picture: a kernel, or a part of a scope. */
  groupAt(at) {
    const { groups: frames, boxes } = this.stage.picture;
    const { group, name } = frames[at];
    if (group !== undefined) return this.model.groups[group];
    const groups = frames.filter((frame) => frame.in === at).map((frame) => this.model.groups[frame.group]);
    const nodes = boxes.filter((box) => box.in === at && COUNTED.has(box.kind))
      .map((box) => box.node);
    return summed(name, groups, nodes);
  }

  /** Ops in each group and in those inside it; found once for each stage. */
  get counts() {
    if (!this.countsOf.has(this.stage)) {
      const { groups, boxes } = this.stage.picture;
      const inside = groups.map(() => new Set());
      for (const box of boxes) {
        if (!COUNTED.has(box.kind)) continue;
        for (let at = box.in; at !== undefined; at = groups[at].in) inside[at].add(box.node);
      }
      this.countsOf.set(this.stage, inside.map((nodes) => nodes.size));
    }
    return this.countsOf.get(this.stage);
  }

  /**
   * Draw anew what is open; with `fit`, at the scale that fits, which is cheaper than to fit after.
   * With `text`, all texts, however small.
   */
  render(fit = false, text = false) {
    const shape = folded(this.picture, this.closedGroups, (at) => this.closedWidth(at));
    this.shape = shape;
    if (fit) this.scaleToFit();
    this.hasText = text || this.picture.boxes.length < MANY || this.scale >= TINY;
    this.boxElements = [];
    this.groupElements = [];
    this.edgeElements = [];
    const frames = draw("g");
    const edges = draw("g", { class: "edges" });
    const boxes = draw("g");
    const names = draw("g");
    shape.bands.forEach((band, at) => frames.append(this.band(band, at)));
    shape.groups.forEach((frame, at) => {
      if (!frame) return;
      const closed = this.closedGroups.has(at);
      if (!closed && this.picture.groups[at].group === undefined) return; // its band shows it
      const element = closed ? this.closedGroup(frame, at) : this.openGroup(frame, at);
      this.groupElements[at] = element;
      (closed ? boxes : frames).append(element);
      if (!closed) names.append(this.header(frame, at));
    });
    for (const edge of shape.edges) {
      const element = draw("path", {
        d: curve(edge.points),
        class: edge.saved ? "edge saved" : "edge",
        "marker-end": this.picture.boxes[edge.to].kind === "label" ? null
          : edge.saved ? "url(#arrow-saved)" : "url(#arrow)",
      });
      this.edgeElements.push({ ...edge, element });
      edges.append(element);
    }
    shape.boxes.forEach((frame, at) => {
      if (!frame) return;
      const element = this.box(frame, at);
      this.boxElements[at] = element;
      boxes.append(element);
    });
    this.world.replaceChildren(frames, edges, names, boxes);
    this.place();
  }

  band(band, at) {
    const open = this.partsOf(at).some((part) => !this.closedGroups.has(part));
    return draw("g", { class: "band", "data-band": at },
      draw("rect", { x: band.x, y: band.y, width: band.w, height: Math.max(band.h, 0), rx: 10 }),
      band.name && draw("text", { class: "name", x: band.x + 10, y: band.y + 16 },
        `${open ? "▾" : "▸"} ${cut(band.name, 60)}`));
  }

  /** The groups that are the parts of a band. */
  partsOf(band) {
    return [...this.picture.groups.keys()].filter((at) => this.picture.groups[at].band === band);
  }

  box(frame, at) {
    const box = this.picture.boxes[at];
    const phase = box.phase ?? this.model.nodes[box.node]?.phase ?? "";
    const { w, h } = frame;
    const { kind, title: first, detail: second } = box;
    const round = kind === "chip" || kind === "output";
    const element = draw("g", {
      class: `box ${phase} ${kind}`,
      transform: `translate(${frame.x} ${frame.y})`,
      "data-box": at,
    },
    draw("rect", { width: w, height: h, rx: round ? h / 2 : 6 }),
    this.hasText && draw("text", { class: "title", x: w / 2, y: second ? h / 2 - 3 : h / 2 + 4 }, first),
    this.hasText && second && draw("text", { class: "detail", x: w / 2, y: h / 2 + 12 }, second));
    return element;
  }

  openGroup(frame, at) {
    return draw("g", {
      class: "group open",
      transform: `translate(${frame.x} ${frame.y})`,
      "data-group": at,
    },
    draw("rect", { width: frame.w, height: Math.max(frame.h, 0), rx: 8 }));
  }

  /** The name of an open group, on a piece of its area that hides the edges behind it. */
  header(frame, at) {
    const limit = Math.max(3, Math.floor((frame.w - 20) / HEADER_WIDTH));
    const name = cut(`▾ ${this.groupAt(at).name}`, limit);
    return draw("g", { class: "header", transform: `translate(${frame.x} ${frame.y})`, "data-group": at },
      draw("rect", { x: 6, y: 4, width: name.length * HEADER_WIDTH + 6, height: 15 }),
      draw("text", { class: "name", x: 9, y: 15 }, name));
  }

  closedGroup(frame, at) {
    const [first, second] = this.closedText(at);
    return draw("g", {
      class: `group closed ${this.phaseOf(at)}`,
      transform: `translate(${frame.x} ${frame.y})`,
      "data-group": at,
    },
    draw("rect", { class: "under", x: 3, y: 3, width: frame.w, height: frame.h, rx: 7 }),
    draw("rect", { width: frame.w, height: frame.h, rx: 7 }),
    draw("text", { class: "title", x: frame.w / 2, y: 16 }, first),
    draw("text", { class: "detail", x: frame.w / 2, y: 30 }, second));
  }

  /** The phase of most of what a group computes. */
  phaseOf(at) {
    if (this.picture.groups[at].phase) return this.picture.groups[at].phase;
    const count = {};
    for (const node of this.groupAt(at).nodes) {
      const phase = this.model.nodes[node].phase;
      count[phase] = (count[phase] || 0) + 1;
    }
    return Object.entries(count).sort((a, b) => b[1] - a[1])[0]?.[0] ?? "";
  }

  // --- colours and marks ------------------------------------------------------------------

  /** Colour by phase, or by a heat map. Returns the scale of a heat map. */
  colour(what) {
    const heat = what in HEATS;
    const boxes = [];
    this.boxElements.forEach((element, at) => {
      const box = this.picture.boxes[at];
      const isOp = heat && (box.kind === "op" || box.kind === "constant");
      const frame = box.in === undefined ? undefined : this.picture.groups[box.in];
      const group = frame?.group === undefined ? undefined : this.model.groups[frame.group];
      const value = isOp ? nodeHeat(this.model, what, box.node, group)
        : heat && box.cell !== undefined ? groupHeat(what, this.groupAt(box.cell)) : undefined;
      boxes.push([element, value]);
    });
    this.groupElements.forEach((element, at) => {
      if (!this.closedGroups.has(at)) return;
      const group = this.groupAt(at);
      boxes.push([element, heat ? groupHeat(what, group) : undefined]);
    });
    const scale = heatScale(boxes.map(([, value]) => value));
    this.svg.classList.toggle("heat", heat);
    for (const [element, value] of boxes) {
      const colour = heat ? scale.of(value) : undefined;
      const rect = element.querySelector("rect:not(.under)");
      rect.style.fill = colour ? colour.fill : "";
      element.classList.toggle("hot", Boolean(colour));
      element.classList.toggle("dark", Boolean(colour?.dark));
    }
    return scale;
  }

  /** Put a class on the boxes of some nodes, and on the closed groups that hide them. */
  mark(name, nodes) {
    for (const element of this.world.querySelectorAll(`.${name}`)) element.classList.remove(name);
    for (const node of nodes) {
      for (const element of this.elementsOf(node)) element.classList.add(name);
    }
  }

  /** What shows a node: its boxes, or the closed groups around them. */
  elementsOf(node) {
    const all = this.stage.boxesOf.get(node) || [];
    if (this.isOverview) return all.map((at) => this.elementOf(this.stage.cellOf[at])).filter(Boolean);
    const found = all.map((at) => {
      if (this.boxElements[at]) return this.boxElements[at];
      let group = this.picture.boxes[at].in;
      while (group !== undefined && !this.groupElements[group]) group = this.picture.groups[group].in;
      return group === undefined ? undefined : this.groupElements[group];
    });
    return found.filter(Boolean);
  }

  /** What shows a group: its frame, its closed box, or its box in the overview. */
  elementOf(at) {
    if (!this.isOverview) return this.groupElements[at];
    return this.boxElements[this.picture.boxes.findIndex((box) => box.cell === at)];
  }

  /** Mark what is selected, and the edges that lead there and from there. */
  select(what) {
    for (const element of this.world.querySelectorAll(".selected, .near")) {
      element.classList.remove("selected", "near");
    }
    const elements = new Set();
    if (what?.node !== undefined) {
      for (const element of this.elementsOf(what.node)) elements.add(element);
    }
    const frame = what?.frame ?? this.frameOf(what?.group);
    if (frame !== undefined && this.elementOf(frame)) elements.add(this.elementOf(frame));
    for (const element of elements) element.classList.add("selected");
    this.svg.classList.toggle("focused", elements.size > 0);
    const isIn = (element) => element !== undefined && elements.has(element);
    for (const edge of this.edgeElements) {
      const ends = [[edge.tail, edge.from], [edge.head, edge.to]];
      const near = ends.some(([group, box]) => isIn(this.endElement(group, box)));
      edge.element.classList.toggle("near", near);
      if (near) {
        for (const [group, box] of ends) this.endElement(group, box)?.classList.add("near");
      }
    }
    return elements;
  }

  /** The place of a group in the picture, through the part of a band around it in an overview. */
  frameOf(group) {
    if (group === undefined) return undefined;
    const at = this.stage.picture.groups.findIndex((frame) => frame.group === group);
    if (at < 0) return undefined;
    return this.isOverview ? this.stage.picture.groups[at].in : at;
  }

  endElement(group, box) {
    if (group >= 0) return this.groupElements[group];
    return this.boxElements[box];
  }

  // --- opening and closing ----------------------------------------------------------------

  toggle(at) {
    const closed = this.closedGroups;
    if (!closed.delete(at)) closed.add(at);
    // the group stays where it was on the screen, so that the eye need not look for it
    const before = this.shape.groups[at];
    this.render();
    const after = this.shape.groups[at];
    if (before && after) {
      this.y += (before.y - after.y) * this.scale;
      this.place();
    }
  }

  toggleBand(band) {
    const parts = this.partsOf(band);
    const open = parts.some((part) => !this.closedGroups.has(part));
    for (const part of parts) {
      if (open) this.closedGroups.add(part);
      else this.closedGroups.delete(part);
    }
    const before = this.shape.bands[band].y;
    this.render();
    this.y += (before - this.shape.bands[band].y) * this.scale;
    this.place();
  }


  /** Open whatever hides a node. */
  reveal(node) {
    const boxes = this.stage.boxesOf.get(node) || [];
    if (this.isOverview) this.setLevel("kernel", false);
    if (!boxes.length || boxes.some((at) => this.boxElements[at])) return;
    for (let at = this.picture.boxes[boxes[0]].in; at !== undefined; at = this.picture.groups[at].in) {
      this.closedGroups.delete(at);
    }
    this.render();
  }

  // --- zoom and pan -----------------------------------------------------------------------

  place() {
    const { x, y, scale } = this;
    if (!this.hasText && scale >= TINY) this.on.grown();
    this.world.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
    this.svg.classList.toggle("small", scale < SMALL);
    this.svg.classList.toggle("tiny", scale < TINY);
    this.on.moved?.();
  }

  /** Kept, because to ask would have the browser lay out at the old scale what has just changed. */
  get size() {
    this.measured ??= { width: this.pane.clientWidth, height: this.pane.clientHeight };
    return this.measured;
  }

  /** To be called by who changes the size of the pane and draws before the browser has told. */
  resized() {
    this.measured = undefined;
  }

  zoom(factor, cx = this.size.width / 2, cy = this.size.height / 2) {
    const scale = Math.max(0.01, Math.min(4, this.scale * factor));
    const ratio = scale / this.scale;
    this.x = cx - (cx - this.x) * ratio;
    this.y = cy - (cy - this.y) * ratio;
    this.scale = scale;
    this.place();
  }

  /** The whole picture if that is readable, otherwise its whole width from the top. */
  fit() {
    this.scaleToFit();
    this.place();
  }

  scaleToFit() {
    const { width, height } = this.size;
    const margin = 20;
    const room = height - LEGEND_ROOM;
    const across = (width - 2 * margin) / Math.max(this.shape.width, 1);
    const down = (room - margin) / Math.max(this.shape.height, 1);
    this.scale = Math.min(1.25, Math.min(across, down) >= SMALL ? Math.min(across, down) : across);
    this.x = (width - this.shape.width * this.scale) / 2;
    this.y = Math.max(margin, (room + margin - this.shape.height * this.scale) / 2);
  }

  /** Fill the window with a part of the picture. */
  zoomTo(rect) {
    if (!rect) return;
    const { width, height } = this.size;
    const margin = 40;
    this.scale = Math.min(1, (width - 2 * margin) / rect.w, Math.max((height - 2 * margin) / rect.h, SMALL));
    this.x = width / 2 - (rect.x + rect.w / 2) * this.scale;
    this.y = rect.h * this.scale > height ? margin - rect.y * this.scale
      : height / 2 - (rect.y + rect.h / 2) * this.scale;
    this.place();
  }

  /** Bring an element into view, at a readable size. */
  centre(element) {
    if (!element) return;
    const pane = this.pane.getBoundingClientRect();
    if (this.scale < SMALL) this.zoom(0.8 / this.scale);
    const rect = element.getBoundingClientRect();
    const inside = rect.left >= pane.left + 8 && rect.right <= pane.right - 8 &&
      rect.top >= pane.top + 8 && rect.bottom <= pane.bottom - 8;
    if (inside) return;
    this.x += pane.left + pane.width / 2 - (rect.left + rect.width / 2);
    this.y += pane.top + pane.height / 2 - (rect.top + Math.min(rect.height, pane.height - 60) / 2);
    this.place();
  }

  listen() {
    const pointers = new Map();
    let moved = 0;
    const local = (event) => {
      const rect = this.svg.getBoundingClientRect();
      return [event.clientX - rect.left, event.clientY - rect.top];
    };
    this.svg.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (event.ctrlKey || event.metaKey || !event.shiftKey) {
        this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), ...local(event));
      } else {
        this.x -= event.deltaY + event.deltaX;
        this.place();
      }
    }, { passive: false });
    this.svg.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, local(event));
      moved = 0;
    });
    window.addEventListener("pointermove", (event) => {
      if (!pointers.has(event.pointerId)) return;
      const [x, y] = local(event);
      const [fromX, fromY] = pointers.get(event.pointerId);
      if (pointers.size === 2) this.pinch(pointers, event.pointerId, [x, y]);
      else {
        this.x += x - fromX;
        this.y += y - fromY;
      }
      moved += Math.abs(x - fromX) + Math.abs(y - fromY);
      pointers.set(event.pointerId, [x, y]);
      this.svg.classList.toggle("dragging", moved > 4);
      this.place();
    });
    const release = (event) => {
      pointers.delete(event.pointerId);
      this.svg.classList.remove("dragging");
    };
    window.addEventListener("pointerup", release);
    window.addEventListener("pointercancel", release);
    this.svg.addEventListener("click", (event) => {
      if (moved > 4) return;
      const what = this.at(event.target);
      if (what?.band !== undefined) this.on.toggleBand(what.band);
      else this.on.select(what);
    });
    this.svg.addEventListener("dblclick", (event) => {
      const what = this.at(event.target);
      if (what?.frame !== undefined) this.on.toggle(what.frame);
    });
    this.svg.addEventListener("pointerover", (event) => this.on.hover(this.at(event.target), event));
    this.svg.addEventListener("pointerleave", () => this.on.hover(undefined));
  }

  pinch(pointers, id, [x, y]) {
    const [other] = [...pointers].filter(([key]) => key !== id).map(([, point]) => point);
    const [fromX, fromY] = pointers.get(id);
    const before = Math.hypot(fromX - other[0], fromY - other[1]);
    const after = Math.hypot(x - other[0], y - other[1]);
    if (before > 0) this.zoom(after / before, ...other);
  }

  /** What an element of the picture stands for. */
  at(target) {
    const element = target.closest?.("[data-box], [data-group], [data-band]");
    if (!element) return undefined;
    if (element.dataset.band !== undefined) {
      return target.classList.contains("name") ? { band: Number(element.dataset.band) } : undefined;
    }
    if (element.dataset.box !== undefined) {
      const box = this.picture.boxes[Number(element.dataset.box)];
      if (box.cell !== undefined) return { frame: box.cell };
      return box.node === undefined ? undefined : { node: box.node };
    }
    const frame = Number(element.dataset.group);
    return { frame, group: this.stage.picture.groups[frame].group };
  }
}

const LEVELS = ["op", "kernel", "scope"];

/** Above 150 ops kernels start closed, above 2,000 scopes. */
function startLevel(stage) {
  const count = stage.nodes.length;
  return count > 2000 ? "scope" : count > 150 ? "kernel" : "op";
}

/** The level itself if the graph has it, otherwise the next finer one. */
function levelIn(model, stage, level) {
  if (level === "scope" && stage.overview !== undefined) return level;
  return level !== "op" && model.groups.length ? "kernel" : "op";
}

/** What is closed where ops, kernels or only scopes are to be seen. */
function closedAt(stage, level) {
  const groups = stage.picture.groups;
  const isClosed = (group) => level === "scope" || (level === "kernel" && group.group !== undefined);
  return new Set([...groups.keys()].filter((at) => isClosed(groups[at])));
}

const CORNER = 7;

/** A line through points: corners are round, and what is neither upright nor level is an S. */
function curve(points) {
  const n = tenths;
  const isStraight = ([x0, y0], [x1, y1]) => Math.abs(x0 - x1) < 0.6 || Math.abs(y0 - y1) < 0.6;
  const towards = ([x0, y0], [x1, y1]) => {
    const length = Math.hypot(x1 - x0, y1 - y0) || 1;
    const part = Math.min(CORNER, length / 2) / length;
    return `${n(x0 + (x1 - x0) * part)} ${n(y0 + (y1 - y0) * part)}`;
  };
  let path = `M${n(points[0][0])} ${n(points[0][1])}`;
  for (let i = 1; i < points.length; i += 1) {
    const [before, at, after] = [points[i - 1], points[i], points[i + 1]];
    if (!isStraight(before, at)) {
      const half = n((before[1] + at[1]) / 2);
      path += `C${n(before[0])} ${half} ${n(at[0])} ${half} ${n(at[0])} ${n(at[1])}`;
    } else if (after && isStraight(at, after)) {
      path += `L${towards(at, before)}Q${n(at[0])} ${n(at[1])} ${towards(at, after)}`;
    } else path += `L${n(at[0])} ${n(at[1])}`;
  }
  return path;
}

function arrowHeads() {
  const head = (id, name) =>
    draw("marker", {
      id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto",
      markerUnits: "userSpaceOnUse",
    }, draw("path", { class: name, d: "M0 0.6L8 4L0 7.4z" }));
  return draw("defs", {}, head("arrow", "head"), head("arrow-saved", "head saved"),
    head("arrow-near", "head near"));
}
