// The one thing that only the reader's browser can do for the explorer: hand over a photo.
const LIMIT = 8e6; // bytes; Jupyter's connection breaks at a message of 10 MiB, so a larger file is not sent at all
function render({ model, el }) {
  const input = Object.assign(document.createElement("input"), { type: "file", accept: "image/*" });
  input.onclick = () => (input.value = ""); // so that the same file can be chosen again
  input.onchange = async () => {
    const file = input.files[0];
    const about = { name: file.name, size: file.size, limit: LIMIT };
    model.send(about, undefined, file.size > LIMIT ? [] : [await file.arrayBuffer()]);
  };
  el.append("Your photo: ", input);
}
export default { render };
