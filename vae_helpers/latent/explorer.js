// The one thing that only the reader's browser can do for the explorer: hand over a photo.
const LIMIT = 8e6; // bytes; Jupyter's connection breaks at a message of 10 MiB, so a larger file is not sent at all
function render({ model, el }) {
  const input = Object.assign(document.createElement("input"), { type: "file", accept: "image/*" });
  input.onclick = () => (input.value = ""); // so that the same file can be chosen again
  input.onchange = async () => {
    const { name, size } = input.files[0];
    model.send({ name, size, limit: LIMIT }, undefined, size > LIMIT ? [] : [await input.files[0].arrayBuffer()]);
  };
  el.append("Your photo: ", input);
}
export default { render };
