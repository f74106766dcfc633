// The document, with what follows from it: users, labels, the kernels and the group of each node.
// What only an opened picture or a selected node needs is worked out when it is first asked for.

/** A document ready for the page. A stage is one of its graphs, in the order of the passes. */
function modelOf(doc) {
  const kernels = (doc.kernels || []).map((kernel, index) => ({ ...kernel, index }));
  for (const kernel of kernels) Object.assign(kernel, timing(kernel));
  const groups = doc.groups.map((group, index) => groupOf(doc, group, index, kernels));
  const stages = doc.graphs.map((graph, index) => new Stage(doc, graph, index));
  const model = { doc, nodes: doc.nodes, kernels, groups, stages };
  lazily(model, "kernelsOf", () => byNode(doc, kernels, (kernel) => kernel.nodes));
  lazily(model, "groupOfNode", () => new Map(groups.flatMap((group) => group.nodes.map((node) => [node, group]))));
  lazily(model, "gradients", () => byNode(doc, doc.nodes.keys(), (id) => doc.nodes[id].gradient_of || []));
  return model;
}

/** Of each node, the things that have to do with it. */
function byNode(doc, things, nodesOf) {
  const found = doc.nodes.map(() => []);
  for (const thing of things) for (const node of nodesOf(thing)) found[node].push(thing);
  return found;
}

/** Measured if it is, otherwise estimated. */
function timing(kernel) {
  const profile = kernel.measured;
  return { profile, measured: profile !== undefined, time: profile ? profile.seconds : kernel.seconds };
}

/** Several groups, and nodes in none, as if they were one. */
function summed(name, groups, nodes) {
  const sum = (what) => groups.reduce((total, group) => total + (group[what] || 0), 0);
  return {
    name, groups, nodes: [...groups.flatMap((group) => group.nodes), ...nodes],
    time: sum("time"), bytes: sum("bytes"), flops: sum("flops"),
    measured: groups.length > 0 && groups.every((group) => group.measured),
  };
}

function groupOf(doc, group, index, kernels) {
  const own = (group.kernels || []).map((number) => kernels[number]);
  const sum = (name) => own.reduce((total, kernel) => total + (kernel[name] || 0), 0);
  if (!own.length) return { ...group, index, own };
  return {
    ...group,
    index,
    own,
    time: sum("time"),
    measured: own.every((kernel) => kernel.measured),
    bytes: sum("bytes"),
    flops: sum("flops"),
  };
}

/** One of the graphs. `users`, `labels` and `members` go by node, `boxesOf` and `cellOf` by box. */
class Stage {
  constructor(doc, graph, index) {
    const { name, nodes, names, outputs, overview } = graph;
    Object.assign(this, { name, nodes, names, outputs, overview, index });
    lazily(this, "picture", () => written(doc, graph.picture));
    lazily(this, "members", () => new Set(nodes));
    lazily(this, "labels", () => new Map(nodes.map((node, at) =>
      [node, at < names.length ? names[at] : `%${at - names.length}`])));
    lazily(this, "users", () => usersOf(doc, nodes));
    lazily(this, "boxesOf", () => boxesOf(this.picture));
    lazily(this, "cellOf", () => this.picture.boxes.map((box) => cellAround(this.picture, box)));
  }
}

function usersOf(doc, nodes) {
  const users = new Map(nodes.map((node) => [node, []]));
  for (const node of nodes) {
    for (const operand of new Set(doc.nodes[node].inputs)) users.get(operand)?.push(node);
  }
  return users;
}

/** The picture with the texts of all its boxes: those of most follow from their node. */
function written(doc, picture) {
  for (const box of picture.boxes) {
    if (box.node === undefined) continue; // the numbers of an edge
    const node = doc.nodes[box.node];
    box.kind ??= "op";
    box.title ??= node.title ?? node.op;
    box.detail ??= shortType(node);
  }
  return picture;
}

function boxesOf(picture) {
  const found = new Map();
  picture.boxes.forEach((box, at) => {
    if (box.node === undefined) return;
    if (!found.has(box.node)) found.set(box.node, []);
    found.get(box.node).push(at);
  });
  return found;
}

/** The part of a band around a box, through its kernel. */
function cellAround({ groups }, box) {
  let at = box.in;
  while (at !== undefined && groups[at].in !== undefined) at = groups[at].in;
  return at;
}

/** What tells one node from another across passes and files, if they are not the same one. */
function signature(doc, id) {
  const node = doc.nodes[id];
  const source = node.source === undefined ? "" : doc.sources[node.source];
  const line = source && `${baseName(source.file)}:${source.line}`;
  return [node.op, node.title || "", node.dtype, node.shape.join(), line].join("\n");
}

/** Pairs of nodes of two stages that are the same, or do the same for the same line. */
function matched(left, leftStage, right, rightStage) {
  const pairs = new Map();
  const open = new Map();
  const taken = new Set();
  if (left.doc === right.doc) {
    for (const id of leftStage.nodes) {
      if (rightStage.members.has(id)) {
        pairs.set(id, id);
        taken.add(id);
      }
    }
  }
  for (const id of rightStage.nodes) {
    if (taken.has(id)) continue;
    const key = signature(right.doc, id);
    if (!open.has(key)) open.set(key, []);
    open.get(key).push(id);
  }
  for (const id of leftStage.nodes) {
    if (pairs.has(id)) continue;
    const waiting = open.get(signature(left.doc, id));
    if (waiting?.length) pairs.set(id, waiting.shift());
  }
  return pairs;
}

/** The nodes that the stage before lacks, and those that the stage after lacks. */
function changes(model, stage) {
  const before = model.stages[stage.index - 1];
  const after = model.stages[stage.index + 1];
  const added = new Set();
  const going = new Set();
  if (before) {
    const known = new Set(matched(model, before, model, stage).values());
    for (const id of stage.nodes) if (!known.has(id)) added.add(id);
  }
  if (after) {
    const kept = matched(model, stage, model, after);
    for (const id of stage.nodes) if (!kept.has(id)) going.add(id);
  }
  return { added, going };
}

/** A value for a heat map: of a node, in its group if it has one; undefined if it is not known. */
function nodeHeat(model, what, node, group) {
  if (what === "bytes" || what === "flops") return model.nodes[node][what];
  return group && groupHeat(what, group);
}

function groupHeat(what, group) {
  if (what !== "intensity") return group[what];
  return group.bytes ? group.flops / group.bytes : undefined;
}
