// Unpacks the page: its document, styles and script lie in it as one compressed text.

/** A property that is worked out when it is first asked for. */
function lazily(object, name, work) {
  const now = (value) => Object.defineProperty(object, name, { value, enumerable: true, writable: true });
  const get = () => now(work())[name];
  Object.defineProperty(object, name, { get, configurable: true, enumerable: true });
}

/**
 * Records that `graphdl.visualize.page.columns` made columns of. Each looks its facts up when it is
 * asked for them: of thousands only a few ever are. What is set stays with the record.
 */
function records({ count, columns }) {
  class Row {
    constructor(at) {
      this.at = at;
    }
  }
  for (const [name, column] of Object.entries(columns)) {
    const read = column.of ? (at) => column.of[column.at[at]] : (at) => column[at];
    Object.defineProperty(Row.prototype, name, {
      get() {
        return read(this.at) ?? undefined;
      },
      set(value) {
        Object.defineProperty(this, name, { value, writable: true });
      },
    });
  }
  return Array.from({ length: count }, (_, at) => new Row(at));
}

function bytesOf(letters) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(letters);
  const text = atob(letters);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = text.charCodeAt(at);
  return bytes;
}

/** What `graphdl.visualize.page` packed: JSON, deflated, in base64. */
async function unpacked(letters) {
  const inflater = new DecompressionStream("deflate");
  const writer = inflater.writable.getWriter();
  writer.write(bytesOf(letters));
  writer.close();
  const content = JSON.parse(await new Response(inflater.readable).text());
  for (const doc of content.documents) {
    doc.nodes = records(doc.nodes);
    doc.memory.values = records(doc.memory.values);
    for (const name of Object.keys(doc.late)) lazily(doc, name, () => JSON.parse(doc.late[name]));
    for (const graph of doc.graphs) {
      lazily(graph, "picture", () => drawn(JSON.parse(graph.late.picture)));
    }
  }
  return content;
}

function drawn(picture) {
  picture.boxes = records(picture.boxes);
  picture.edges = records(picture.edges);
  return picture;
}

(async () => {
  const { styles, script, documents } = await unpacked(document.getElementById("packed").textContent);
  for (const [id, text] of Object.entries(styles)) {
    const style = document.createElement("style");
    style.id = id;
    style.textContent = text;
    document.head.append(style);
  }
  window.documents = documents;
  // an element with the script's own text, which the content policy knows by its hash
  const element = document.createElement("script");
  element.textContent = script;
  document.body.append(element);
})().catch((error) => {
  document.body.prepend(`This page needs a browser of 2023 or later (${error.message}).`);
});
