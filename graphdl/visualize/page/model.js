// The document, with what follows from it: users, labels, the kernels and the group of each node.

/** A document ready for the page. A stage is one of its graphs, in the order of the passes. */
function modelOf(doc) {
  const kernels = (doc.kernels || []).map((kernel, index) => ({ ...kernel, index }));
  for (const kernel of kernels) Object.assign(kernel, timing(kernel));
  const kernelsOf = doc.nodes.map(() => []);
  for (const kernel of kernels) for (const node of kernel.nodes) kernelsOf[node].push(kernel);
  const groups = doc.groups.map((group, index) => groupOf(doc, group, index, kernels));
  const groupOfNode = new Map();
  for (const group of groups) for (const node of group.nodes) groupOfNode.set(node, group);
  const stages = doc.graphs.map((graph, index) => stageOf(doc, graph, index));
  const gradients = doc.nodes.map(() => []);
  doc.nodes.forEach((node, id) => (node.gradient_of || []).forEach((of) => gradients[of].push(id)));
  return { doc, nodes: doc.nodes, kernels, kernelsOf, groups, groupOfNode, stages, gradients };
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

function stageOf(doc, graph, index) {
  const users = new Map(graph.nodes.map((node) => [node, []]));
  const labels = new Map();
  graph.nodes.forEach((node, place) => {
    const inputs = graph.names.length;
    labels.set(node, place < inputs ? graph.names[place] : `%${place - inputs}`);
    for (const operand of new Set(doc.nodes[node].inputs)) users.get(operand)?.push(node);
  });
  for (const box of graph.picture.boxes) {
    if (box.node === undefined) continue; // the numbers of an edge
    const node = doc.nodes[box.node];
    box.kind ??= "op";
    box.title ??= node.title ?? node.op;
    box.detail ??= shortType(node);
  }
  const boxesOf = new Map();
  graph.picture.boxes.forEach((box, at) => {
    if (box.node === undefined) return;
    if (!boxesOf.has(box.node)) boxesOf.set(box.node, []);
    boxesOf.get(box.node).push(at);
  });
  const cellOf = graph.picture.boxes.map((box) => {
    let at = box.in; // the part of a band around a box, through its kernel
    while (at !== undefined && graph.picture.groups[at].in !== undefined) at = graph.picture.groups[at].in;
    return at;
  });
  return { ...graph, index, users, labels, boxesOf, cellOf, members: new Set(graph.nodes) };
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
