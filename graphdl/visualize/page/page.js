// The page: what is shown and selected, and what the mouse and the keys do.

const COLOURS = ["phase", "time", "bytes", "flops", "intensity"];
const KEYS = [
  ["f", "fit the picture into the window"], ["+ −", "zoom"], ["/", "search; Enter goes on"],
  ["← ↑ → ↓", "to the next box that way; without a selection, move"],
  ["space", "open or close a group"], ["e", "everything open: ops"], ["c", "kernels closed"], ["v", "scopes closed"],
  ["[ ]", "the pass before, the pass after"], ["1 – 5", "colour: phase, time, bytes, flops, intensity"],
  ["b", "compare two graphs side by side"], ["d", "dark or light"], ["s", "save as SVG"],
  ["Esc", "select nothing"], ["?", "these keys"],
];

class Page {
  /** The first document is shown; with another one, they are compared. */
  constructor(documents) {
    const [doc] = documents;
    this.$ = (id) => document.getElementById(id);
    this.documents = documents.map(modelOf);
    this.model = this.documents[0];
    this.selected = undefined;
    this.coloured = doc.begin?.color ?? "phase";
    this.hits = [];
    this.panel = new Panel(this.$("panel"), this);
    this.view = this.viewIn(this.$("main-pane"));
    this.other = undefined;
    this.memory = new MemoryChart(this.$("memory"), this);
    this.controls();
    this.keys();
    this.go(this.model.stages.length - 1);
    if (documents.length > 1) this.compare(true);
  }

  viewIn(pane) {
    const view = new View(pane, {
      select: (what) => this.select(what),
      toggle: (frame) => this.toggle(frame),
      toggleBand: (band) => {
        this.view.toggleBand(band);
        this.refresh();
      },
      hover: (what, event) => this.hover(what, event),
      moved: () => this.hover(undefined),
      grown: () => {
        view.render();
        this.refresh();
      },
    });
    return view;
  }

  // --- passes -----------------------------------------------------------------------------

  go(index) {
    const stages = this.model.stages;
    const stage = stages[Math.max(0, Math.min(index, stages.length - 1))];
    if (this.stage === stage) return;
    const anchor = this.anchor(stage);
    this.seesPasses = this.stage !== undefined;
    this.stage = stage;
    this.changes = changes(this.model, stage);
    this.view.show(this.model, stage, this.model.doc.begin?.level, !this.seesPasses);
    if (anchor) this.settle(anchor);
    if (this.selected?.node !== undefined && !stage.members.has(this.selected.node)) {
      this.selected = undefined;
    }
    if (this.selected?.group !== undefined && this.view.frameOf(this.selected.group) === undefined) {
      this.selected = undefined;
    }
    this.showLevel();
    this.$("pass").value = stage.index;
    this.$("pass-name").textContent = stage.name;
    if (this.other) this.compareWith(this.compared);
    else this.refresh();
  }

  /** A node that both pictures have, and where it is on the screen: what the eye holds on to. */
  anchor(stage) {
    if (!this.stage) return undefined;
    const pairs = matched(this.model, this.stage, this.model, stage);
    const { width, height } = this.view.size;
    const pane = this.view.pane.getBoundingClientRect();
    let best;
    this.view.boxElements.forEach((element, at) => {
      const id = this.view.picture.boxes[at].node;
      if (id === undefined || !pairs.has(id)) return;
      const rect = element.getBoundingClientRect();
      const x = rect.left + rect.width / 2 - pane.left;
      const y = rect.top + rect.height / 2 - pane.top;
      const away = id === this.selected?.node ? -1 : Math.hypot(x - width / 2, y - height / 2);
      if (!best || away < best.away) best = { node: pairs.get(id), x, y, away };
    });
    return best;
  }

  settle(anchor) {
    const [element] = this.view.elementsOf(anchor.node);
    if (!element) return;
    const pane = this.view.pane.getBoundingClientRect();
    const rect = element.getBoundingClientRect();
    this.view.x += anchor.x - (rect.left + rect.width / 2 - pane.left);
    this.view.y += anchor.y - (rect.top + rect.height / 2 - pane.top);
    this.view.place();
  }

  // --- selection --------------------------------------------------------------------------

  select(what, centre = false) {
    if (what?.node !== undefined && centre) this.view.reveal(what.node);
    this.selected = what;
    this.hover(undefined);
    this.refresh();
    if (centre) {
      const element = what.node !== undefined ? this.view.elementsOf(what.node)[0]
        : this.view.elementOf(what.frame ?? this.view.frameOf(what.group));
      this.view.centre(element);
    }
  }

  /** Everything that depends on the stage, the selection, the colours and the search. */
  refresh() {
    for (const view of [this.view, this.other].filter(Boolean)) {
      const scale = view.colour(this.coloured);
      if (view === this.view) this.legend(scale);
      view.mark("hit", view === this.view ? this.hits : []);
      const { added, going } = this.marksOf(view);
      view.mark("added", added);
      view.mark("going", going);
    }
    this.view.select(this.selected);
    this.other?.select(this.counterpart(this.selected));
    this.panel.show(this.selected);
    this.memory.point(this.selected);
    this.announce();
  }

  /** What is marked as new or going: between two graphs, or once somebody looks at the passes. */
  marksOf(view) {
    if (this.difference) return this.difference.get(view);
    return this.seesPasses ? this.changes : { added: [], going: [] };
  }

  announce() {
    const what = this.selected;
    const text = what?.node !== undefined ? this.view.stage.labels.get(what.node) + " " + asType(this.model.nodes[what.node])
      : what?.group !== undefined ? this.model.groups[what.group].name : "";
    this.$("live").textContent = text;
  }

  isClosed(group) {
    return this.view.isOverview || this.view.closedGroups.has(this.view.frameOf(group));
  }

  toggle(frame) {
    if (frame === undefined) return;
    if (this.view.isOverview) this.enter(frame);
    else this.view.toggle(frame);
    this.refresh();
  }

  /** From the overview to a part of a scope, whose kernels are closed. */
  enter(frame) {
    this.view.enter(frame);
    this.showLevel();
    this.view.zoomTo(this.view.shape.groups[frame]);
  }

  showLevel() {
    this.$("level").value = this.view.levels.get(this.view.stage);
  }

  // --- colours ----------------------------------------------------------------------------

  colour(what) {
    this.coloured = what;
    this.$("colour").value = what;
    this.refresh();
  }

  legend(scale) {
    const legend = this.$("legend");
    const swatch = (name, text) =>
      make("span", { class: "key" }, make("span", { class: `swatch ${name}` }), text);
    if (this.coloured in HEATS) {
      const heat = HEATS[this.coloured];
      const ramp = make("span", { class: "ramp" });
      ramp.style.background = `linear-gradient(90deg, ${HEAT.join(", ")})`;
      const measured = this.coloured === "time" && this.model.kernels.some((kernel) => kernel.measured);
      legend.replaceChildren(...(scale.high
        ? [`${heat.name} `, heat.text(scale.low), ramp, heat.text(scale.high), " ", badge(measured)]
        : [`${heat.name}: not known of this graph`]));
      return;
    }
    const phases = new Set(this.view.picture.boxes.map((box) => box.phase ?? this.model.nodes[box.node]?.phase));
    const parts = ["argument", "parameter", "forward", "backward", "update"].filter((name) => phases.has(name));
    legend.replaceChildren(
      ...parts.map((name) => swatch(name, name)),
      this.view.picture.edges.some((edge) => edge.saved) ? swatch("saved", "saved for backward") : "",
      ...(this.model.doc.notes ? [swatch("value", "↓ value")] : []),
      ...(this.view.picture.boxes.some((box) => box.kind === "label" && box.detail)
        ? [swatch("slope", "↑ ∂ of the result below × ∂ of that op = what comes back")] : []),
      ...this.differences(swatch),
    );
  }

  differences(swatch) {
    if (this.difference) return [swatch("added", "only left"), swatch("going", "only right")];
    const { added, going } = this.seesPasses ? this.changes : { added: {}, going: {} };
    return [added.size ? swatch("added", "new in this pass") : "",
      going.size ? swatch("going", "goes in the next") : ""];
  }

  // --- hover ------------------------------------------------------------------------------

  hover(what, event) {
    const tip = this.$("tip");
    tip.hidden = !what || (what.node === undefined && what.frame === undefined && what.group === undefined && !what.text);
    if (tip.hidden || !event) return;
    const model = event.view && event.target.closest?.("#other-pane") ? this.other.model : this.model;
    const stage = model === this.model ? this.stage : this.other.stage;
    tip.replaceChildren(...(what.text ? [what.text]
      : what.node !== undefined ? this.nodeTip(model, stage, what.node)
      : this.groupTip(what.group === undefined ? this.view.groupAt(what.frame) : model.groups[what.group])));
    const { innerWidth, innerHeight } = window;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
    const below = event.clientY + 18;
    tip.style.top = `${below + height > innerHeight ? Math.max(4, event.clientY - height - 12) : below}px`;
  }

  nodeTip(model, stage, id) {
    const node = model.nodes[id];
    const kernels = model.kernelsOf[id];
    const time = kernels.reduce((sum, kernel) => sum + (kernel.time || 0), 0);
    const source = node.source === undefined ? undefined : model.doc.sources[node.source];
    const label = cut(stage.labels.get(id) ?? "", 80);
    return [
      make("b", {}, cut(node.op === "input" ? label : node.title || node.op, 120)),
      make("div", { class: "quiet" }, `${node.op === "input" ? node.phase : label} · ${asType(node)}`),
      make("div", {}, [asBytes(node.bytes), node.flops ? asFlops(node.flops) : "",
        kernels.length && time ? `kernel ${asSeconds(time)} (${kernels[0].measured ? "measured" : "estimated"})` : ""]
        .filter(Boolean).join(" · ")),
      source && make("div", { class: "quiet" }, asLine(source)),
      source?.code && make("code", {}, cut(source.code, 120)),
    ].filter(Boolean);
  }

  groupTip(group) {
    const facts = group.time
      ? `${asSeconds(group.time)} (${group.measured ? "measured" : "estimated"}) · ${asBytes(group.bytes)} · ${asFlops(group.flops)}` : "";
    return [make("b", {}, cut(group.name, 120)),
      make("div", { class: "quiet" }, plural(group.nodes.length, "op")), facts && make("div", {}, facts)].filter(Boolean);
  }

  // --- search -----------------------------------------------------------------------------

  search(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const found = words.length ? this.stage.nodes.filter((id) => {
      const about = this.searchable(id);
      return words.every((word) => about.includes(word));
    }) : [];
    // what is called so stands before what is only beside it, what is drawn before what is not
    const rank = (id) => {
      const { op, title = "" } = this.model.nodes[id];
      const label = this.stage.labels.get(id).toLowerCase();
      const name = (op === "input" ? label : `${op} ${title}`).toLowerCase();
      const named = words.filter((word) => word === label || name.includes(word)).length;
      return (this.stage.boxesOf.has(id) ? 0 : words.length + 1) - named;
    };
    this.hits = found.map((id) => [rank(id), id]).sort((a, b) => a[0] - b[0]).map(([, id]) => id);
    this.hit = -1;
    this.view.mark("hit", this.hits);
    this.view.svg.classList.toggle("searching", this.hits.length > 0);
    this.$("hits").textContent = words.length ? plural(this.hits.length, "hit") : "";
  }

  searchable(id) {
    const node = this.model.nodes[id];
    const source = node.source === undefined ? undefined : this.model.doc.sources[node.source];
    const group = this.model.groupOfNode.get(id);
    return [node.op, node.title, asType(node), node.shape.join("x"), node.phase, this.stage.labels.get(id),
      source && `${asLine(source)} ${source.code || ""} ${source.function}`, group?.name, ...(node.scopes || [])]
      .filter(Boolean).join("\n").toLowerCase();
  }

  nextHit(step = 1) {
    if (!this.hits.length) return;
    this.hit = (this.hit + step + this.hits.length) % this.hits.length;
    this.select({ node: this.hits[this.hit] }, true);
    this.$("hits").textContent = `${this.hit + 1} of ${this.hits.length}`;
  }

  // --- comparing --------------------------------------------------------------------------

  compare(open = !this.other) {
    document.body.classList.toggle("comparing", open);
    this.view.resized();
    if (!open) {
      this.other = undefined;
      this.difference = undefined;
      this.pairs = undefined;
      this.$("other-pane").replaceChildren();
      this.refresh();
      this.view.fit();
      return;
    }
    this.other = this.viewIn(this.$("other-pane"));
    const choices = this.documents.flatMap((model, number) => model.stages.map((stage) =>
      make("option", { value: `${number} ${stage.index}` }, `${cut(model.doc.name, 40)}: ${stage.name}`)));
    const choose = make("select", { "aria-label": "the graph to compare with",
      onchange: () => this.compareWith(choose.value) }, choices);
    const file = make("input", { type: "file", accept: ".json,.html", "aria-label": "a file to compare with",
      onchange: () => this.load(file.files[0]) });
    const summary = make("span", { id: "difference" });
    this.$("other-pane").append(make("div", { class: "choice" }, choose,
      make("label", { class: "file" }, "open a file …", file), summary));
    const first = this.documents.length > 1 ? `${this.documents.length - 1} ${this.documents.at(-1).stages.length - 1}` : "0 0";
    choose.value = first;
    this.compareWith(first);
    this.view.fit();
  }

  compareWith(choice) {
    this.compared = choice;
    const [number, index] = choice.split(" ").map(Number);
    const model = this.documents[number];
    const stage = model.stages[index];
    const pairs = matched(this.model, this.stage, model, stage);
    const partners = new Set(pairs.values());
    this.pairs = pairs;
    const left = this.stage.nodes.filter((id) => !pairs.has(id));
    const right = stage.nodes.filter((id) => !partners.has(id));
    this.difference = new Map([
      [this.view, { added: left, going: [] }],
      [this.other, { added: [], going: right }],
    ]);
    this.other.show(model, stage);
    this.other.fit();
    this.$("difference").textContent =
      `${pairs.size} in both · ${left.length} only left · ${right.length} only right`;
    this.refresh();
  }

  /** Another page or document, read from a file that the user chooses. */
  async load(file) {
    if (!file) return;
    try {
      const text = await file.text();
      const page = new DOMParser().parseFromString(text, "text/html").getElementById("packed");
      const [doc] = page ? (await unpacked(page.textContent)).documents : [JSON.parse(text)];
      if (doc.format !== "graphdl") throw new Error("it is no document of graphdl");
      this.documents.push(modelOf(doc));
      this.compare(false);
      this.compare(true);
    } catch (error) {
      this.$("difference").textContent = `cannot read ${cut(file.name, 60)}: ${error.message}`;
    }
  }

  counterpart(what) {
    if (!this.pairs || what?.node === undefined) return undefined;
    const partner = this.pairs.get(what.node);
    return partner === undefined ? undefined : { node: partner };
  }

  // --- saving -----------------------------------------------------------------------------

  /** The picture as it is now, complete, as an SVG file that needs no other. */
  svgText() {
    if (!this.view.hasText) {
      this.view.render(false, true);
      this.refresh();
    }
    const { shape, svg } = this.view;
    const copy = svg.cloneNode(true);
    const margin = 20;
    const [width, height] = [shape.width + 2 * margin, shape.height + 2 * margin];
    copy.classList.remove("small", "tiny", "focused", "searching");
    for (const [name, value] of Object.entries({ xmlns: SVG, width, height,
      viewBox: `${-margin} ${-margin} ${width} ${height}` })) copy.setAttribute(name, value);
    copy.lastElementChild.removeAttribute("transform");
    const computed = getComputedStyle(document.documentElement);
    const css = this.$("drawing-style").textContent.replace(/var\((--[\w-]+)\)/g,
      (_, name) => computed.getPropertyValue(name).trim());
    copy.prepend(draw("style", {}, css),
      draw("rect", { class: "page", x: -margin, y: -margin, width, height }));
    // no XML file holds control characters
    return new XMLSerializer().serializeToString(copy).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd");
  }

  save() {
    const link = make("a", {
      href: URL.createObjectURL(new Blob([this.svgText()], { type: "image/svg+xml" })),
      download: `${this.model.doc.name.replace(/[^\w.-]+/g, "_").slice(0, 80) || "graph"}.svg`,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // --- controls ---------------------------------------------------------------------------

  theme(name) {
    document.documentElement.dataset.theme = name;
  }

  get isDark() {
    return document.documentElement.dataset.theme === "dark";
  }

  controls() {
    const { doc, stages } = this.model;
    document.title = `${cut(doc.name, 80)} · graphdl`;
    this.$("name").textContent = doc.name;
    this.$("name").title = doc.name;
    const on = (id, what) => this.$(id).addEventListener("click", what);
    on("fit", () => this.view.fit());
    on("save", () => this.save());
    on("theme", () => this.theme(this.isDark ? "light" : "dark"));
    on("compare", () => this.compare());
    on("help", () => this.help());
    const pass = this.$("pass");
    pass.max = stages.length - 1;
    pass.addEventListener("input", () => this.go(Number(pass.value)));
    this.$("passes").hidden = stages.length < 2;
    const colour = this.$("colour");
    colour.append(...COLOURS.map((name) => make("option", { value: name }, name)));
    colour.value = this.coloured;
    colour.addEventListener("change", () => this.colour(colour.value));
    const search = this.$("search");
    search.addEventListener("input", () => this.search(search.value));
    search.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.nextHit(event.shiftKey ? -1 : 1);
      if (event.key === "Escape") {
        search.value = "";
        this.search("");
        search.blur();
      }
      event.stopPropagation();
    });
    const has = { op: true, kernel: doc.groups.length > 0, scope: stages.at(-1).overview !== undefined };
    const level = this.$("level");
    level.append(...LEVELS.filter((name) => has[name]).map((name) => make("option", { value: name }, `${name}s`)));
    level.addEventListener("change", () => this.setLevel(level.value));
    this.$("levels").hidden = !has.kernel && !has.scope;
    const system = matchMedia("(prefers-color-scheme: dark)");
    this.theme(doc.begin?.theme ?? (system.matches ? "dark" : "light"));
    system.addEventListener("change", () => this.theme(system.matches ? "dark" : "light"));
    this.$("keys").append(...KEYS.map(([key, what]) => make("tr", {}, make("th", {}, make("kbd", {}, key)), make("td", {}, what))));
  }

  setLevel(level) {
    this.view.setLevel(level, true, true);
    this.showLevel();
    this.refresh();
  }

  help() {
    const dialog = this.$("help-dialog");
    if (dialog.open) dialog.close();
    else dialog.showModal();
  }

  keys() {
    const pan = 80;
    const actions = {
      f: () => this.view.fit(), "+": () => this.view.zoom(ZOOM_STEP), "=": () => this.view.zoom(ZOOM_STEP),
      "-": () => this.view.zoom(1 / ZOOM_STEP), "/": () => this.$("search").focus(),
      e: () => this.setLevel("op"), c: () => this.setLevel("kernel"), v: () => this.setLevel("scope"), d: () => this.$("theme").click(),
      s: () => this.save(), b: () => this.compare(), "?": () => this.help(),
      "[": () => this.go(this.stage.index - 1), "]": () => this.go(this.stage.index + 1),
      Escape: () => this.select(undefined), " ": () => this.toggleSelected(), Enter: () => this.toggleSelected(),
      ArrowUp: () => this.step(0, -1, pan), ArrowDown: () => this.step(0, 1, pan),
      ArrowLeft: () => this.step(-1, 0, pan), ArrowRight: () => this.step(1, 0, pan),
    };
    COLOURS.forEach((name, at) => {
      actions[at + 1] = () => this.colour(name);
    });
    document.addEventListener("keydown", (event) => {
      const own = event.target.closest?.("input, select, textarea, dialog, pre");
      const pressed = event.target.closest?.("button") && [" ", "Enter"].includes(event.key);
      if (own || pressed || event.ctrlKey || event.metaKey || event.altKey) return;
      const action = actions[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    });
  }

  toggleSelected() {
    const { group, frame, node } = this.selected || {};
    let at = frame ?? (group === undefined ? undefined : this.view.frameOf(group));
    if (node !== undefined) at = this.view.frameOf(this.model.groupOfNode.get(node)?.index);
    this.toggle(at);
  }

  /** Select the nearest box in a direction, or move the picture if nothing is selected. */
  step(dx, dy, pan) {
    const [current] = this.view.select(this.selected);
    if (!current) {
      this.view.x -= dx * pan;
      this.view.y -= dy * pan;
      this.view.place();
      return;
    }
    const from = centreOf(current);
    let best;
    const all = [...this.view.boxElements, ...this.view.groupElements.filter((element, at) => element && this.view.closedGroups.has(at))];
    for (const element of all) {
      if (!element || element === current) continue;
      const to = centreOf(element);
      const along = (to[0] - from[0]) * dx + (to[1] - from[1]) * dy;
      const across = Math.abs((to[0] - from[0]) * dy) + Math.abs((to[1] - from[1]) * dx);
      if (along <= 1) continue;
      const away = along + 2.5 * across;
      if (!best || away < best.away) best = { element, away };
    }
    if (!best) return;
    const what = this.view.at(best.element);
    this.select(what);
    this.view.centre(best.element);
  }
}

function centreOf(element) {
  const rect = element.getBoundingClientRect();
  return [rect.left + rect.width / 2, rect.top + rect.height / 2];
}

window.graphdl = new Page(window.documents);
