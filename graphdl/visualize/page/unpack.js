// Unpacks the page: its document, styles and script lie in it as one compressed text.

/** A property that is worked out when it is first asked for. */
function lazily(object, name, work) {
  const now = (value) => Object.defineProperty(object, name, { value, enumerable: true, writable: true });
  const get = () => now(work())[name];
  Object.defineProperty(object, name, { get, configurable: true, enumerable: true });
}

/** What `graphdl.visualize.page` packed: JSON, deflated, in base64. */
async function unpacked(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = letters.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const content = JSON.parse(await new Response(stream).text());
  for (const doc of content.documents) {
    for (const part of [doc, ...doc.graphs]) {
      for (const [name, json] of Object.entries(part.late)) lazily(part, name, () => JSON.parse(json));
      delete part.late;
    }
  }
  return content;
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
