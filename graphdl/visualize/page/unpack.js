// Unpacks the page: its document, styles and script lie in it as one compressed text.

/** What `graphdl.visualize.page` packed: JSON, deflated, in base64. */
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
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
