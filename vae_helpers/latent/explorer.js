// What only the reader's browser can do for the explorer: hand over a photo, fill the clipboard.
function render({ model, el }) {
  const input = Object.assign(document.createElement("input"), { type: "file", accept: "image/*", hidden: true });
  const button = document.createElement("button");
  button.className = "jupyter-widgets jupyter-button widget-button";
  button.style.width = "110px";
  button.textContent = "Your photo …";
  button.onclick = () => input.click();
  input.onchange = async () => {
    const file = input.files[0];
    input.value = ""; // so that the same file can be chosen again
    if (!file) return;
    // A message larger than the server takes would break the connection, so it is not sent at all
    const fits = file.size <= model.get("max_bytes");
    model.send({ photo: file.name, size: file.size }, undefined, fits ? [await file.arrayBuffer()] : []);
  };
  el.append(button, input);
  model.on("msg:custom", async ({ copy }) => {
    try {
      await navigator.clipboard.writeText(copy);
      model.send({ copied: true });
    } catch {
      model.send({ copied: false }); // not allowed here: the kernel shows the text instead
    }
  });
}
export default { render };
