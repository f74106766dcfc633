// Opening and closing of groups. The picture in the document is the open one. A group that closes
// becomes a small box in its own middle, and the heights that only closed groups fill are taken out
// of the picture. So everything moves down or up, never sideways, and keeps its order: two boxes
// that were apart stay apart.

const CLOSED_HEIGHT = 38;
/** What stays free above and below a box when the space beside it shrinks. */
const FOLD_GAP = 13;
/** The part of an open group's frame that its name takes. */
const HEADER = 22;

/**
 * Where everything is when the groups whose numbers are in `closed` are closed.
 *
 * boxes[i], groups[i]: {x, y, w, h}, or null where a closed group hides it; edges: what is left to
 * draw, with the ends that are visible. `closedWidth(i)` is how wide the closed group i wants to be.
 */
function folded(picture, closed, closedWidth) {
  const groups = picture.groups;
  const hider = groups.map(() => -1); // the outermost closed group around each group, or itself
  groups.forEach((group, at) => {
    const outer = group.in === undefined ? -1 : hider[group.in];
    hider[at] = outer >= 0 ? outer : closed.has(at) ? at : -1;
  });
  const hiderOf = (box) => (box.in === undefined ? -1 : hider[box.in]);
  const { move, height } = squeezed(picture, closed, hider, hiderOf);
  const shown = (item) => ({ x: item.x, y: move(item.y, item.x), w: item.w, h: item.h });
  const boxes = picture.boxes.map((box) => (hiderOf(box) >= 0 ? null : shown(box)));
  const frames = groups.map((group, at) => {
    if (hider[at] >= 0 && hider[at] !== at) return null;
    if (hider[at] === at) {
      const width = Math.min(group.w, closedWidth(at));
      const x = group.x + (group.w - width) / 2;
      return { x, y: move(middle(group) - CLOSED_HEIGHT / 2, x), w: width, h: CLOSED_HEIGHT };
    }
    const y = move(group.y, group.x);
    return { x: group.x, y, w: group.w, h: move(group.y + group.h, group.x) - y };
  });
  const edges = routed(picture, hiderOf, boxes, frames, move);
  const bands = (picture.bands || []).map((band) => {
    const y = move(band.y, band.x);
    return { ...band, y, h: move(band.y + band.h, band.x) - y };
  });
  return { boxes, groups: frames, edges, bands, width: picture.width, height };
}

const middle = (item) => item.y + item.h / 2;

/**
 * Where each height moves to: up, by the heights inside closed groups that nothing visible needs.
 * Bands that are wrapped into columns move apart from each other, each column by itself.
 */
function squeezed(picture, closed, hider, hiderOf) {
  if (!closed.size) return { move: (y) => y, height: picture.height };
  const starts = [...new Set((picture.bands || []).map((band) => band.x))].sort((a, b) => a - b);
  const columnAt = (x) => Math.max(starts.findLastIndex((start) => start <= x), 0);
  const needed = starts.length ? starts.map(() => []) : [[]];
  const spare = needed.map(() => []);
  const need = (item, top, bottom) =>
    needed[columnAt(item.x)].push([top - FOLD_GAP, bottom + FOLD_GAP]);
  for (const box of picture.boxes) if (hiderOf(box) < 0) need(box, box.y, box.y + box.h);
  picture.groups.forEach((group, at) => {
    if (hider[at] === at) {
      const centre = middle(group);
      need(group, centre - CLOSED_HEIGHT / 2, centre + CLOSED_HEIGHT / 2);
      spare[columnAt(group.x)].push([group.y, group.y + group.h]);
    } else if (hider[at] < 0 && group.group !== undefined) {
      need(group, group.y, group.y + HEADER);
      need(group, group.y + group.h - 1, group.y + group.h);
    }
  });
  const columns = spare.map((intervals, at) => shrunk(without(joined(intervals), joined(needed[at]))));
  const ends = starts.map((start) => Math.max(
    ...picture.bands.filter((band) => band.x === start).map((band) => band.y + band.h)));
  const below = picture.height - Math.max(...ends, 0);
  const height = starts.length
    ? Math.max(...columns.map((moved, at) => moved(ends[at]))) + below
    : columns[0](picture.height);
  return { move: (y, x) => columns[columnAt(x)](y), height };
}

/** The function that takes the gaps, which are sorted, out of the heights. */
function shrunk(gaps) {
  const before = [0];
  for (const [top, bottom] of gaps) before.push(before[before.length - 1] + bottom - top);
  return (y) => {
    let low = 0;
    let high = gaps.length; // the number of gaps that begin above y
    while (low < high) {
      const at = (low + high) >> 1;
      if (gaps[at][0] < y) low = at + 1;
      else high = at;
    }
    if (!low) return y;
    const [top, bottom] = gaps[low - 1];
    return y - before[low - 1] - (Math.min(y, bottom) - top);
  };
}

/** Intervals as a sorted list of ones that do not touch. */
function joined(intervals) {
  const result = [];
  for (const [top, bottom] of intervals.sort((a, b) => a[0] - b[0])) {
    const last = result[result.length - 1];
    if (last && top <= last[1]) last[1] = Math.max(last[1], bottom);
    else result.push([top, bottom]);
  }
  return result;
}

/** What of the first intervals the second ones do not cover; both as `joined` gives them. */
function without(intervals, covers) {
  const result = [];
  let at = 0;
  for (const [top, bottom] of intervals) {
    let start = top;
    while (at < covers.length && covers[at][1] <= start) at += 1;
    for (let i = at; i < covers.length && covers[i][0] < bottom; i += 1) {
      if (covers[i][0] > start) result.push([start, covers[i][0]]);
      start = Math.max(start, covers[i][1]);
    }
    if (start < bottom) result.push([start, bottom]);
  }
  return result;
}

/** The edges between what is visible, each pair of ends once. */
function routed(picture, hiderOf, boxes, frames, move) {
  const result = [];
  const seen = new Set();
  picture.edges.forEach((edge, at) => {
    const tail = hiderOf(picture.boxes[edge.from]);
    const head = hiderOf(picture.boxes[edge.to]);
    if (tail >= 0 && tail === head) return;
    if (tail >= 0 || head >= 0) {
      const key = `${tail < 0 ? edge.from : -1 - tail} ${head < 0 ? edge.to : -1 - head}`;
      if (seen.has(key)) return;
      seen.add(key);
    }
    let points = [];
    for (let i = 0; i < edge.path.length; i += 2) points.push([edge.path[i], edge.path[i + 1]]);
    if (tail >= 0) points = shortened(points, picture.groups[tail], frames[tail], move);
    if (head >= 0) {
      points = shortened(points.reverse(), picture.groups[head], frames[head], move).reverse();
    }
    points = points.map((point) => (point.fixed ? point : [point[0], move(point[1], point[0])]));
    result.push({ at, tail, head, from: edge.from, to: edge.to, points, saved: edge.saved });
  });
  return result;
}

/** A route that begins at the closed box of a group instead of inside the open one. */
function shortened(points, open, frame, move) {
  const inside = ([x, y]) =>
    x >= open.x && x <= open.x + open.w && y >= open.y && y <= open.y + open.h;
  let at = 0;
  while (at < points.length - 1 && inside(points[at])) at += 1;
  const next = points[at];
  const y = next.fixed ? next[1] : move(next[1], next[0]);
  const below = y >= frame.y + frame.h / 2;
  const x = Math.max(frame.x + 10, Math.min(next[0], frame.x + frame.w - 10));
  const start = [x, below ? frame.y + frame.h : frame.y];
  start.fixed = true;
  return [start, ...points.slice(at)];
}
