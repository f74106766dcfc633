// The panel at the right: the whole graph, a node, or a kernel.

/** Text in the panel that is not shown to its end at once. */
const LONG_LIST = 12;

function badge(measured) {
  return measured
    ? make("span", { class: "badge measured", title: "measured by executable.profile" }, "measured")
    : make("span", { class: "badge", title: "an estimate from shapes, not a measurement" }, "estimated");
}

function rows(...pairs) {
  const body = pairs.filter((pair) => pair && pair[1] !== undefined && pair[1] !== null).map(
    ([name, value, ...rest]) => make("tr", {}, make("th", {}, name), make("td", {}, value, ...rest)),
  );
  return make("table", { class: "facts" }, body);
}

/** A list of which the rest opens on demand. */
function list(items, item) {
  const box = make("ul", { class: "list" });
  const add = (from, to) => box.append(...items.slice(from, to).map((one) => make("li", {}, item(one))));
  add(0, LONG_LIST);
  if (items.length > LONG_LIST) {
    const more = make("button", {
      class: "more",
      onclick: () => {
        more.parentElement.remove();
        add(LONG_LIST, items.length);
      },
    }, `${items.length - LONG_LIST} more`);
    box.append(make("li", {}, more));
  }
  return box;
}

const heading = (text, ...rest) => make("h3", {}, text, ...rest);

class Panel {
  constructor(element, page) {
    this.element = element;
    this.page = page;
  }

  show(what) {
    const { page } = this;
    const content =
      what?.node !== undefined ? this.node(what.node)
      : what?.group !== undefined ? this.group(page.model.groups[what.group])
      : what?.frame !== undefined ? this.scope(what.frame)
      : this.overview();
    this.element.replaceChildren(...content.filter(Boolean));
    // later, because now it would have the browser lay out everything that is still to change
    requestAnimationFrame(() => this.element.scrollTo(0, 0));
  }

  // --- links ------------------------------------------------------------------------------

  nodeLink(id) {
    const { model, stage } = this.page;
    const node = model.nodes[id];
    const label = stage.labels.get(id);
    const text = [
      make("b", {}, cut(node.op === "input" ? label ?? "input" : node.title || node.op, 60)),
      make("span", { class: "quiet" }, ` ${asType(node)}`),
      label && node.op !== "input" ? make("span", { class: "label" }, ` ${label}`) : null,
    ];
    if (!stage.members.has(id)) return make("span", { class: "gone" }, text);
    return make("button", {
      class: `link ${node.phase}`,
      onclick: () => this.page.select({ node: id }, true),
      onpointerenter: () => this.page.view.mark("pointed", [id]),
      onpointerleave: () => this.page.view.mark("pointed", []),
    }, text);
  }

  groupLink(group, ...rest) {
    return make("button", {
      class: "link",
      onclick: () => this.page.select({ group: group.index }, true),
      onpointerenter: () => this.page.view.mark("pointed", group.nodes),
      onpointerleave: () => this.page.view.mark("pointed", []),
    }, make("b", {}, cut(group.name, 60)),
    group.own.length ? make("span", { class: "label" }, ` ${group.own[0].index}`) : null, ...rest);
  }

  groupOfKernel(number) {
    return this.page.model.groups.find((group) => group.kernels?.includes(number));
  }

  /** The user's line, and what stands there. */
  line(id) {
    const { doc } = this.page.model;
    const node = this.page.model.nodes[id];
    if (node.source === undefined) return null;
    const source = doc.sources[node.source];
    return make("div", { class: "line", title: `${source.file}:${source.line}` },
      make("span", { class: "where" }, asLine(source)),
      source.function && source.function !== "<module>" &&
        make("span", { class: "quiet" }, ` in ${cut(source.function, 60)}`),
      source.code && make("code", {}, source.code));
  }

  // --- the whole graph --------------------------------------------------------------------

  overview() {
    const { model, stage } = this.page;
    const { doc } = model;
    const isLast = stage === model.stages[model.stages.length - 1];
    const kernels = isLast ? model.kernels : [];
    const time = kernels.reduce((sum, kernel) => sum + (kernel.time || 0), 0);
    const measured = kernels.length > 0 && kernels.every((kernel) => kernel.measured);
    const memory = (isLast && doc.memory) || {};
    const operations = stage.nodes.length - stage.names.length;
    const saved = unwritten(model);
    return [
      make("h2", {}, cut(doc.name, 200)),
      rows(
        ["operations", withCommas(operations)],
        ["inputs, outputs", `${stage.names.length}, ${stage.outputs.length}`],
        isLast && doc.groups.length && [doc.kernels ? "kernels" : "groups", withCommas(kernels.length || doc.groups.length)],
        kernels.length && ["time of its kernels", asSeconds(time), " ", badge(measured)],
        isLast && doc.measured && ["time of a call", asSeconds(doc.measured.seconds), " ", badge(true)],
        memory.arena !== undefined && ["memory for values", asBytes(memory.arena)],
        memory.unshared !== undefined && ["… without sharing", asBytes(memory.unshared)],
        memory.results !== undefined && ["results", asBytes(memory.results)],
        kernels.length && saved > 0 && ["never written, by fusion", asBytes(saved), " ", badge(false)],
      ),
      doc.notes?.length && heading("Along all ways to the result"),
      ...(doc.notes || []).map((note) => make("p", { class: "note" }, note)),
      ...this.passes(),
      ...(kernels.length ? [heading("Roofline"), roofline(this.page)] : []),
      ...(isLast ? this.byTime(model.groups, time, measured) : []),
      this.hints(),
    ];
  }

  passes() {
    const { model, stage, changes } = this.page;
    if (!this.page.seesPasses) return [];
    const parts = [heading("Pass: ", stage.name)];
    const { added, going } = changes;
    const before = model.stages[stage.index - 1];
    const after = model.stages[stage.index + 1];
    if (before && added.size) parts.push(make("p", { class: "new" }, `${plural(added.size, "node")} new since “${before.name}”`));
    if (added.size) parts.push(list([...added], (id) => this.nodeLink(id)));
    if (after && going.size) parts.push(make("p", { class: "going" }, `${plural(going.size, "node")} will go in “${after.name}”`));
    if (going.size) parts.push(list([...going], (id) => this.nodeLink(id)));
    parts.push(...this.rules(before, stage));
    return parts.length > 1 ? parts : [];
  }

  /** The rules that fired between two stages, with the first use of each. */
  rules(before, stage) {
    const passes = this.page.model.doc.passes || [];
    const place = (name) => passes.findIndex((one) => one.name === name);
    const end = stage === this.page.model.stages.at(-1) ? passes.length : place(stage.name) + 1;
    const rules = passes.slice(before ? place(before.name) + 1 : 0, end).flatMap((one) => one.rules || []);
    if (!rules.length) return [];
    return [heading("Rules that fired"), list(rules, (use) => make("div", {},
      make("b", {}, use.rule), use.count > 1 ? make("span", { class: "quiet" }, ` ${use.count} times`) : null,
      make("div", { class: "why" }, `${use.before} becomes ${use.after}`),
      make("div", { class: "where quiet" }, use.lines.map(baseName).slice(0, 4).join(", "))))];
  }

  byTime(groups, time, measured) {
    if (!time) return [];
    const sorted = [...groups].sort((a, b) => b.time - a.time || a.index - b.index);
    const most = sorted[0]?.time || 1;
    return [
      heading("Kernels by time ", badge(measured)),
      list(sorted, (group) => {
        const bar = make("span", { class: "bar" });
        bar.style.width = `${(100 * group.time) / most}%`;
        return make("div", { class: "ranked" }, this.groupLink(group),
          make("span", { class: "amount" }, asSeconds(group.time),
            make("span", { class: "quiet" }, ` ${time ? digits((100 * group.time) / time) : 0} %`)),
          make("span", { class: "track" }, bar));
      }),
    ];
  }

  hints() {
    return make("p", { class: "quiet hint" },
      "Click a box for its facts, double-click a group to open or close it. Press ",
      make("kbd", {}, "?"), " for the keys.");
  }

  // --- a node -----------------------------------------------------------------------------

  node(id) {
    const { model, stage } = this.page;
    const node = model.nodes[id];
    const label = stage.labels.get(id) ?? "";
    const kernels = stage.picture.groups.length || !model.doc.kernels ? model.kernelsOf[id] : [];
    const time = kernels.reduce((sum, kernel) => sum + (kernel.time || 0), 0);
    const group = model.groupOfNode.get(id);
    const users = stage.users.get(id) || [];
    const isInput = node.op === "input";
    const inputs = [...new Set(node.inputs)];
    return [
      make("h2", {}, make("span", { class: `dot ${node.phase}` }), isInput ? label : node.title || node.op),
      make("p", { class: "quiet under" },
        [isInput ? node.phase : label, asType(node), isInput ? "" : node.phase]
          .filter(Boolean).join(" · ")),
      rows(
        ["shape", asShape(node)],
        ["dtype", node.dtype],
        ["bytes of the result", asBytes(node.bytes)],
        node.flops !== undefined && !isInput && ["operations", asFlops(node.flops), " ", badge(false)],
        group && ["computed by", this.groupLink(group)],
        kernels.length && ["time of its kernel", asSeconds(time), " ", badge(kernels.every((k) => k.measured))],
        stage.outputs.includes(id) && ["is", `result ${stage.outputs.indexOf(id)}`],
      ),
      this.line(id),
      ...this.gradient(id),
      inputs.length && heading("Inputs"),
      inputs.length && list(inputs, (operand) => this.nodeLink(operand)),
      users.length && heading("Used by"),
      users.length && list(users, (user) => this.nodeLink(user)),
      ...this.placeInMemory(id),
    ];
  }

  gradient(id) {
    const { model, stage } = this.page;
    const of = (model.nodes[id].gradient_of || []).filter((node) => stage.members.has(node));
    const its = model.gradients[id].filter((node) => stage.members.has(node));
    return [
      of.length && heading("Gradient of"),
      of.length && list(of, (node) => this.nodeLink(node)),
      its.length && heading("Its gradient"),
      its.length && list(its, (node) => this.nodeLink(node)),
    ];
  }

  placeInMemory(id) {
    const { model } = this.page;
    const memory = model.doc.memory;
    const value = memory?.values.find((one) => one.node === id);
    if (!value) return [];
    const isKernels = memory.steps === "kernels";
    const where = { arena: "shared memory", result: "a result", value: "its own memory" }[value.kind];
    const alive = `${isKernels ? "kernel" : "operation"} ${value.first} to ${value.last}`;
    const others = value.offset === undefined ? [] : memory.values.filter(
      (one) => one !== value && one.node !== undefined && one.offset !== undefined &&
        one.offset < value.offset + value.bytes && value.offset < one.offset + one.bytes);
    return [
      heading("Memory"),
      rows(
        ["lies in", where + (value.offset === undefined ? "" : `, from byte ${withCommas(value.offset)}`)],
        ["lives", alive],
      ),
      others.length && make("p", { class: "quiet" }, "The same bytes hold at other times"),
      others.length && list(others, (one) => this.nodeLink(one.node)),
    ];
  }

  // --- a kernel ---------------------------------------------------------------------------

  group(group) {
    const { model, page } = { model: this.page.model, page: this.page };
    const total = model.kernels.reduce((sum, kernel) => sum + (kernel.time || 0), 0);
    const { own } = group;
    const known = own.length > 0;
    const rate = known && group.time > 0;
    const closed = page.isClosed(group.index);
    return [
      make("h2", {}, group.name),
      make("p", { class: "quiet under" },
        known
          ? `${own.length > 1 ? "kernels" : "kernel"} ${own.map((kernel) => kernel.index).join(", ")} of ${model.kernels.length} · ` +
            `${plural(group.nodes.length, "op")} in one`
          : `${plural(group.nodes.length, "op")}`),
      known && rows(
        ["time", asSeconds(group.time), make("span", { class: "quiet" }, ` ${digits((100 * group.time) / (total || 1))} % `), badge(group.measured)],
        ["memory traffic", asBytes(group.bytes), " ", badge(false)],
        ["operations", asFlops(group.flops), " ", badge(false)],
        rate && group.bytes > 0 && ["bandwidth", asRate(group.bytes / group.time, "B"), " ", badge(group.measured)],
        rate && group.flops > 0 && ["speed", asRate(group.flops / group.time, "FLOP"), " ", badge(group.measured)],
        group.bytes > 0 && group.flops > 0 && ["intensity", asIntensity(group.flops / group.bytes)],
        ["runs on", own.some((kernel) => kernel.shared) ? "all threads" : "one thread"],
        ...own.flatMap((kernel) => (kernel.profile?.median !== undefined ? [
          ["median", asSeconds(kernel.profile.median), " ", badge(true)],
          kernel.profile.runs > 1 && ["runs in a call", withCommas(kernel.profile.runs)],
          kernel.profile["share of bandwidth"] <= 1
            ? ["of the machine's bandwidth", asPercent(kernel.profile["share of bandwidth"]), " ", badge(true)]
            : ["reads and writes", "caches: faster than memory"],
          ["of the machine's speed", asPercent(kernel.profile["share of flops"]), " ", badge(true)],
        ] : [])),
      ),
      page.view.frameOf(group.index) !== undefined && make("button", {
        class: "action", onclick: () => page.toggle(page.view.frameOf(group.index)),
      }, closed ? "Open" : "Close", make("kbd", {}, "space")),
      ...this.borders(group),
      heading("Computes"),
      ...this.byLine(group.nodes),
      ...this.traffic("Reads", own, "reads", group),
      ...this.traffic("Writes", own, "writes"),
      ...own.map((kernel) => this.source(kernel, own.length > 1)),
      known && heading("Roofline"),
      known && roofline(page, group),
    ];
  }

  /** A part of a scope: forward, backward or update. */
  scope(at) {
    const { page } = this;
    const scope = page.view.groupAt(at);
    const { phase } = page.stage.picture.groups[at];
    const closed = page.view.isOverview || page.view.closedGroups.has(at);
    return [
      make("h2", {}, make("span", { class: `dot ${phase}` }), scope.name),
      make("p", { class: "quiet under" }, `${phase} · ${plural(scope.nodes.length, "op")}`),
      scope.time > 0 && rows(
        ["time", asSeconds(scope.time), " ", badge(scope.measured)],
        ["memory traffic", asBytes(scope.bytes), " ", badge(false)],
        ["operations", asFlops(scope.flops), " ", badge(false)],
      ),
      make("button", { class: "action", onclick: () => page.toggle(at) },
        closed ? "Open" : "Close", make("kbd", {}, "space")),
      ...this.byTime(scope.groups, scope.time, scope.measured),
    ];
  }

  /** Nodes below the lines of the user's that they come from, in order. */
  byLine(nodes) {
    const runs = [];
    for (const id of nodes) {
      const { source } = this.page.model.nodes[id];
      const last = runs[runs.length - 1];
      if (last && last.source === source) last.nodes.push(id);
      else runs.push({ source, nodes: [id] });
    }
    return runs.map((run) => make("div", { class: "by-line" }, this.line(run.nodes[0]),
      list(run.nodes, (id) => this.nodeLink(id))));
  }

  /** Why this kernel ends where it does. */
  borders(group) {
    const found = (this.page.model.doc.borders || []).filter(
      ({ before, after }) => group.kernels?.includes(before) !== group.kernels?.includes(after));
    if (!found.length) return [];
    return [
      heading("Why it is a kernel of its own"),
      list(found, ({ before, after, why }) => {
        const isBefore = group.kernels.includes(before);
        const other = this.groupOfKernel(isBefore ? after : before);
        return make("div", {}, isBefore ? "not one with what follows: " : "not one with what comes before: ",
          other ? this.groupLink(other) : "", make("div", { class: "why" }, why));
      }),
    ];
  }

  traffic(title, own, what) {
    const nodes = [...new Set(own.flatMap((kernel) => kernel[what]))];
    const { stage } = this.page;
    const drawn = nodes.filter((id) => stage.members.has(id));
    return drawn.length ? [heading(title), list(drawn, (id) => this.nodeLink(id))] : [];
  }

  source(kernel, several) {
    const text = this.page.model.doc.texts?.[kernel.text];
    if (!text) return null;
    return make("section", {},
      heading(several ? `Generated source of kernel ${kernel.index}, ${kernel.name}` : "Generated source"),
      make("pre", { tabindex: 0 }, make("code", {}, ...highlighted(text))));
  }
}

/** Bytes of values that stay within their kernel. */
function unwritten(model) {
  const written = new Set(model.kernels.flatMap((kernel) => kernel.writes));
  const inside = new Set(model.kernels.flatMap((kernel) => kernel.nodes));
  let total = 0;
  for (const id of inside) if (!written.has(id)) total += model.nodes[id].bytes;
  return total;
}

const WORDS = /(#[^\n]*)|("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|\b(def|for|in|if|else|elif|while|return|range|and|or|not|import|from|True|False|None|pass|break|continue)\b|\b(\d[\w.]*)/g;

/** Python text as elements: comments, words and numbers in their colours. */
function highlighted(text) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(WORDS)) {
    if (match.index > at) parts.push(text.slice(at, match.index));
    const kind = match[1] ? "comment" : match[2] ? "string" : match[3] ? "word" : "number";
    parts.push(make("span", { class: kind }, match[0]));
    at = match.index + match[0].length;
  }
  parts.push(text.slice(at));
  return parts;
}
