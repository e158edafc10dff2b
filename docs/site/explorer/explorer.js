// The page: what a hand does becomes a latent, and the picture follows the newest latent. Networks run in worker.js.

const STEPS = 100; // of a slider
const MOST_PIXELS = 268e6; // of a photo, as in the package
const LARGE = 448; // pixels across a saved picture
const UNIT = 2048; // steps of a latent's number, 1 wide, in a link
const at = (id) => document.getElementById(id);

let model; // directions.json
let centres; // of each label, the mean latent: of all dogs for 0 (any breed), then of each breed
// Dogs: {latent: Float32Array, label: number of the breed that it is drawn as, own: of the breed that it came as}
let z, start, other; // in the picture, and at the morph's two ends; all of the chosen breed, or each of its own
let photo = null; // the start's pixels, where it is a photo
const sliders = []; // {input, directions, k, low, high}

// ---------------------------------------------------------------- the worker

const worker = new Worker(new URL("worker.js", location), { type: "module" }); // a copy for each page, so that its sw.js serves it
const waiting = new Map();
let questions = 0;

function ask(what, given = {}) {
  return new Promise((resolve, reject) => {
    waiting.set(++questions, { resolve, reject });
    worker.postMessage({ id: questions, what, given });
  });
}

worker.onmessage = ({ data: { id, answer, error, megabytes } }) => {
  if (megabytes) return (at("megabytes").textContent = `${megabytes.toFixed(1)} MB`);
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  error ? reject(new Error(error)) : resolve(answer);
};
worker.onerror = (event) => fail(event.message || "this browser does not run it");

// ---------------------------------------------------------------- pictures

function draw(canvas, pixels) {
  canvas.width = canvas.height = model.image_size;
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(new ImageData(pixels, model.image_size), 0, 0);
}

// One picture is made at a time, always of the newest latent: what lies between is dropped, never queued
let showing = null;
function show() {
  return (showing ??= (async () => {
    at("picture").ariaBusy = "true";
    try {
      for (let shown; shown !== z; ) {
        shown = z;
        draw(at("picture"), await ask("decode", shown));
        at("picture").dataset.frame = 1 + Number(at("picture").dataset.frame ?? 0);
      }
    } finally {
      at("picture").ariaBusy = "false";
      showing = null;
    }
  })());
}

let resting;
function go(latent, { label, own } = z) {
  z = { latent, label, own };
  for (const slider of sliders) place(slider);
  clearTimeout(resting);
  resting = setTimeout(rest, 300);
  return show().catch(complain);
}

function rest() {
  history.replaceState(null, "", location.pathname + link()); // in full: an address alone would be taken from <base>
  at("picture").setAttribute("aria-label", describe());
}

async function startFrom(from, what, pixels = null) {
  [start, photo] = [from, pixels];
  at("morph").value = 0;
  z = from;
  for (const slider of sliders) fit(slider);
  await go(from.latent);
  if (start !== from) return; // another start came in between
  draw(at("start"), photo ?? (await ask("decode", from)));
  say(what);
}

async function morphTowards(to) {
  other = to;
  draw(at("other"), await ask("decode", to));
}

async function turnAll() {
  const breed = chosen();
  [z, start, other] = [z, start, other].map((dog) => asBreed(dog, breed));
  for (const slider of sliders) fit(slider);
  await go(z.latent);
  if (chosen() !== breed) return; // another one was chosen in between
  say(`${photo ? "Your dog" : "The same dog"} as ${breedOf(z.label)}`);
  draw(at("start"), photo ?? (await ask("decode", start)));
  await morphTowards(other);
}

// ---------------------------------------------------------------- latents

const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const mix = (a, b, t) => a.map((x, i) => x + t * (b[i] - x));

function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

const chosen = () => Number(at("breed").value);

const priorKnowsBreeds = () => model.prior.means.length === model.breeds.length;

function sample() {
  const { weights, means, root } = model.prior;
  let left = Math.random(), i = 0;
  while (i < weights.length - 1 && (left -= weights[i]) > 0) i++;
  const label = chosen() || (priorKnowsBreeds() ? i + 1 : 0);
  const centre = priorKnowsBreeds() ? means[label - 1] : means[i], noise = centre.map(normal);
  return { latent: Float32Array.from(centre, (mean, row) => mean + dot(root[row], noise)), label, own: label };
}

function findCentres() {
  const { weights, means } = model.prior;
  const all = means[0].map((_, i) => weights.reduce((sum, weight, k) => sum + weight * means[k][i], 0));
  return [all, ...model.breeds.map((_, i) => (priorKnowsBreeds() ? means[i] : all))];
}

// The same dog as a breed, its own for 0: what makes it differ from the mean of its breed stays
function asBreed({ latent, label, own }, breed) {
  const to = breed || own;
  return { latent: latent.map((x, i) => x + centres[to][i] - centres[label][i]), label: to, own };
}

function breedOf(label) {
  const breed = model.breeds[label - 1];
  return breed ? `${/^[aeiou]/i.test(breed) ? "an" : "a"} ${breed}` : "any breed";
}

// As `slerp` in the package: the arc between two latents; the norm goes evenly from one to the other
function slerp(a, b, t) {
  const [p, q] = [a, b].map((x) => Math.sqrt(dot(x, x)));
  const angle = Math.acos(Math.min(1, Math.max(-1, dot(a, b) / (p * q))));
  if (!(angle > 1e-4 && angle < Math.PI - 1e-4) || t === 0 || t === 1) return mix(a, b, t);
  const [from, to] = [Math.sin((1 - t) * angle) / p, Math.sin(t * angle) / q];
  const scale = (p + t * (q - p)) / Math.sin(angle);
  return a.map((x, i) => scale * (from * x + to * b[i]));
}

// A link's end holds the latent: the model, a checksum of its prior, the label, and numbers of two bytes
const mark = () => Math.round(1e5 * Math.abs(model.prior.root.reduce((sum, row, i) => sum + row[i], 0))).toString(36);

function link() {
  const numbers = Int16Array.from(z.latent, (x) => Math.max(-32768, Math.min(32767, Math.round(x * UNIT))));
  const text = btoa(String.fromCharCode(...new Uint8Array(numbers.buffer)));
  return `#${model.model}.${mark()}.${z.label}.${text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

function readLink() {
  if (location.hash.length < 2) return null;
  try {
    const [name, checksum, label, text] = location.hash.slice(1).split(".");
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    const latent = Float32Array.from(new Int16Array(bytes.buffer), (x) => x / UNIT);
    const known = name === model.model && checksum === mark() && Number(label) in [0, ...model.breeds];
    if (known && latent.length === model.prior.root.length) return { latent, label: Number(label), own: Number(label) };
  } catch {} // a text that is none of ours
  return "unknown";
}

// ---------------------------------------------------------------- sliders

const coordinate = ({ directions, k }) => dot(directions.coef[k], z.latent) + directions.intercept[k];

function addSlider(directions, k, parent) {
  const [, name, low, high] = directions.names[k].match(/^(.*?)(?:: (.*) to (.*))?$/);
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
  const input = make("input", { type: "range", min: 0, max: STEPS, id: `slider-${sliders.length}`, ariaLabel: directions.names[k] });
  const label = make("label", { htmlFor: input.id, textContent: name });
  const [left, right] = [low ?? "−", high ?? "+"].map((textContent) => make("span", { textContent, ariaHidden: "true" }));
  const box = make("div", { className: "slider" });
  box.append(left, label, right, input);
  parent.append(box);
  const slider = { input, directions, k, name, words: [low ?? "low", high ?? "high"] };
  input.addEventListener("input", () => {
    const step = slider.low + ((slider.high - slider.low) * input.value) / STEPS - coordinate(slider);
    go(z.latent.map((x, i) => x + step * directions.vectors[k][i]));
  });
  sliders.push(slider);
}

// A slider's ends are the quantiles of its direction, or the latent where it lies outside
function fit(slider) {
  const here = coordinate(slider);
  slider.low = Math.min(slider.directions.low[slider.k], here);
  slider.high = Math.max(slider.directions.high[slider.k], here);
}

function place(slider) {
  const share = (coordinate(slider) - slider.low) / (slider.high - slider.low || 1);
  if (slider.input !== document.activeElement || Math.abs(share * STEPS - slider.input.value) > 1) {
    slider.input.value = Math.round(share * STEPS);
  }
  slider.input.setAttribute("aria-valuetext", `${slider.input.value}% of the way from ${slider.words.join(" to ")}`);
}

function describe() {
  const clear = sliders.filter((slider) => slider.words[0] !== "low" && Math.abs(slider.input.value / STEPS - 0.5) > 0.2);
  const seen = clear.map(({ name, words, input }) => `${name} ${words[Number(input.value > STEPS / 2)]}`);
  const dog = z.label ? breedOf(z.label).replace("a", "A") : "A dog";
  return [`${dog}, drawn by the network`, ...seen].join(", ");
}

// ---------------------------------------------------------------- what buttons do

const say = (text) => (at("status").textContent = text);
const complain = (error) => say(error.message);

function fail(why) {
  say(`The explorer cannot run here: ${why}`);
  at("waiting").hidden = true;
}

// Width and height of a photo, from its first bytes: before it is decoded, so that one that is too large is never tried
function measure(file) {
  const image = new Image();
  return new Promise((resolve, reject) => {
    image.onload = () => resolve([image.naturalWidth, image.naturalHeight]);
    image.onerror = () => reject(new Error("it is not a picture that this browser can read; try a JPEG or a PNG"));
    image.src = URL.createObjectURL(file);
  }).finally(() => URL.revokeObjectURL(image.src));
}

async function usePhoto(file) {
  say(`Reading ${file.name}`);
  try {
    const [width, height] = await measure(file);
    if (width * height > MOST_PIXELS) throw new Error(`${width} x ${height} pixels are too many`);
    const { latent, pixels, found } = await ask("encode", { file });
    const squashed = model.crop === "head" && !found ? ". No dog's head was found in it, so it is used whole" : "";
    const drawn = chosen() ? `drawn as ${breedOf(chosen())}` : "as the network draws it";
    await startFrom(asBreed({ latent, label: 0, own: 0 }, chosen()), `Your photo, ${drawn}${squashed}`, pixels);
  } catch (error) {
    say(`${file.name} was not used: ${error.message}. Nothing was changed.`);
  }
}

function save() {
  const large = Object.assign(document.createElement("canvas"), { width: LARGE, height: LARGE });
  const context = large.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(at("picture"), 0, 0, LARGE, LARGE);
  large.toBlob((blob) => {
    const anchor = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: "dog.png" });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 1000);
    say("Saved as dog.png");
  });
}

async function copyLink() {
  rest();
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link to this dog is copied");
  } catch {
    say("The link to this dog is in the address bar");
  }
}

function choose(breed) {
  at("breed").value = breed;
  if (breed && other) morphTowards(asBreed(other, breed)).catch(complain);
}

function openLink() {
  const linked = readLink();
  if (linked === "unknown") startFrom(sample(), "This link is of another model, so here is a random dog").catch(complain);
  else if (linked && link() !== location.hash) {
    choose(linked.label);
    startFrom(linked, "The dog of the link").catch(complain);
  }
}

const cuts = {
  head: "finds the dog's head",
  box: "takes the square in its middle, which the dog should fill,",
  center: "takes the square in its middle",
  none: "squeezes it into a square",
};

const actions = {
  random: () => {
    const dog = sample();
    return startFrom(dog, `A random ${model.breeds[dog.label - 1] ?? "dog"}, drawn from the prior`);
  },
  reset: () => startFrom(start, "Back at the start", photo),
  save,
  link: copyLink,
  another: () => morphTowards(sample()),
  keep: () => morphTowards(z),
};

async function main() {
  document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "auto"; // the site's own choice
  model = await ask("begin", { runtime: new URL("ort/", import.meta.url).href });
  centres = findCentres();
  const { named, "principal axes": axes } = model.directions;
  for (const [directions, parent] of [[named, "named"], [axes, "axes"]]) {
    for (const part of ["vectors", "coef"]) directions[part] = directions[part].map((row) => row.flat(Infinity));
    directions.names.forEach((_, k) => addSlider(directions, k, at(parent)));
  }
  at("breeds").hidden = !model.breeds.length;
  model.breeds.forEach((breed, i) => at("breed").add(new Option(breed, i + 1)));
  at("cut").textContent = cuts[model.crop];
  at("terms").textContent = model.terms;
  const linked = readLink(), hint = model.breeds.length ? "Choose a breed, or move a slider" : "Move a slider";
  const text = linked === "unknown" ? "This link is of another model, so here is a random dog" : hint;
  if (linked?.latent) choose(linked.label);
  await startFrom(linked?.latent ? linked : sample(), text);
  await morphTowards(sample());
  at("waiting").hidden = true;
  for (const control of document.querySelectorAll("[disabled]")) control.disabled = false;
  document.body.dataset.ready = "";
  for (const [id, act] of Object.entries(actions)) at(id).addEventListener("click", () => act()?.catch(complain));
  at("morph").addEventListener("input", ({ target }) => {
    const end = target.value > STEPS / 2 ? other : start;
    go(slerp(start.latent, other.latent, target.value / STEPS), end);
  });
  at("breed").addEventListener("change", () => turnAll().catch(complain));
  at("photo").addEventListener("change", ({ target }) => {
    if (target.files.length) usePhoto(target.files[0]).then(() => (target.value = "")); // so that the same one can be chosen again
  });
  addEventListener("hashchange", openLink);
  await navigator.serviceWorker?.register(new URL("sw.js", location)); // which fetches the rest, and keeps all for use offline
}

main().catch((error) => fail(error.message));
