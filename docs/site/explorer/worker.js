// The networks, off the page's own thread, by onnxruntime-web: on WebGPU where there is one, else in WebAssembly on one thread.

const BUILDS = { wasm: "ort-wasm-simd-threaded.wasm", webgpu: "ort-wasm-simd-threaded.asyncify.wasm" };
const MOST = 2048; // pixels along a photo's longer side that are looked at
const NO_FILE = "a part of this page could not be loaded; is the network there?";

let ort, model;
let runtime; // the address of ort/, which all pages share; the model's files lie beside this one
const sessions = {};
let loaded = 0;

async function read(name, from = import.meta.url) {
  const response = await fetch(new URL(name, from)).catch(() => null);
  if (!response?.ok) throw new Error(NO_FILE);
  const parts = [];
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(value);
    loaded += value.length;
    if (!sessions.decoder) postMessage({ megabytes: loaded / 1e6 });
  }
}

async function loadRuntime(build) {
  const [module, wasmBinary] = await Promise.all([import(new URL(`ort.${build}.js`, runtime)), read(BUILDS[build], runtime)]);
  Object.assign(module.env.wasm, { numThreads: 1, wasmBinary });
  return module;
}

async function open(name) {
  return (sessions[name] ??= await ort.InferenceSession.create(await read(`${name}.onnx`), { executionProviders: ["wasm"] }));
}

async function begin(given) {
  runtime = given.runtime;
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const numbers = read("directions.json").then((bytes) => JSON.parse(new TextDecoder().decode(bytes)));
  const weights = read("decoder.onnx");
  for (const kind of adapter ? ["webgpu", "wasm"] : ["wasm"]) {
    try {
      ort = await loadRuntime(kind);
      model = await numbers;
      sessions.decoder = await ort.InferenceSession.create(await weights, { executionProviders: [kind] });
      await decode({ latent: new Float32Array(model.prior.root.length), label: 0 }); // a GPU may refuse only here
      return model;
    } catch (error) {
      if (kind === "wasm") throw error;
    }
  }
}

async function run(session, given) {
  const tensors = {};
  for (const [name, [data, dims]] of Object.entries(given)) {
    tensors[name] = new ort.Tensor(data instanceof BigInt64Array ? "int64" : "float32", data, dims);
  }
  return session.run(tensors);
}

async function decode({ latent, label }) {
  const z = [latent, [1, ...model.latent_shape]];
  const given = model.breeds.length ? { z, label: [BigInt64Array.of(BigInt(label)), [1]] } : { z };
  const { image } = await run(sessions.decoder, given);
  return fromFloats(await image.getData(), model.image_size);
}

async function encode({ file }) {
  const photo = await pixelsOf(file);
  const head = model.crop === "head" ? await findHead(photo) : null;
  const square = model.crop === "none" || (model.crop === "head" && !head) ? [0, 0, photo.width, photo.height] : squareAround(photo, head);
  const pixels = resize(photo, square, model.image_size);
  const { mu } = await run(await open("encoder"), { image: [toFloats(pixels), [1, 3, model.image_size, model.image_size]] });
  return { latent: Float32Array.from(await mu.getData()), pixels, found: head !== null };
}

// ---------------------------------------------------------------- pixels

// (3, S, S) in [-1, 1] -> RGBA, rounded and clipped
function fromFloats(x, size) {
  const pixels = new Uint8ClampedArray(4 * size * size).fill(255);
  for (let i = 0; i < size * size; i++) for (let c = 0; c < 3; c++) pixels[4 * i + c] = (x[c * size * size + i] + 1) * 127.5;
  return pixels;
}

function toFloats(pixels) {
  const n = pixels.length / 4;
  return Float32Array.from({ length: 3 * n }, (_, i) => pixels[4 * (i % n) + Math.floor(i / n)] / 127.5 - 1);
}

// Upright, on white, in sRGB, as the browser decodes it
async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error("this browser cannot decode it: it is damaged, or too large");
  });
  if (Math.min(bitmap.width, bitmap.height) < 8) throw new Error("it is too small to show a dog");
  const scale = Math.min(1, MOST / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

// Where in a row of `length` pixels from `first` on each of `size` pixels comes from: bicubic, antialiased, as Pillow's
function taps(first, length, size) {
  const scale = length / size, wide = Math.max(scale, 1);
  const cubic = (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0);
  return Array.from({ length: size }, (_, i) => {
    const middle = (i + 0.5) * scale;
    const from = Math.max(0, Math.round(middle - 2 * wide)), to = Math.min(length, Math.round(middle + 2 * wide));
    const weights = Array.from({ length: to - from }, (_, j) => cubic(Math.abs(from + j + 0.5 - middle) / wide));
    const sum = weights.reduce((a, b) => a + b);
    return { from: first + from, weights: weights.map((weight) => weight / sum) };
  });
}

// The square [left, top, right, bottom] of a picture as RGBA of size x size pixels: first across, then down
function resize({ data, width }, [left, top, right, bottom], size) {
  const across = new Uint8ClampedArray(4 * size * (bottom - top)), pixels = new Uint8ClampedArray(4 * size * size);
  const sum = (weights, value) => weights.reduce((total, weight, j) => total + weight * value(j), 0);
  taps(left, right - left, size).forEach(({ from, weights }, x) => {
    for (let y = 0; y < bottom - top; y++) {
      for (let c = 0; c < 4; c++) {
        across[4 * (y * size + x) + c] = sum(weights, (j) => data[4 * ((top + y) * width + from + j) + c]);
      }
    }
  });
  taps(0, bottom - top, size).forEach(({ from, weights }, y) => {
    for (let i = 0; i < 4 * size; i++) pixels[4 * size * y + i] = sum(weights, (j) => across[4 * size * (from + j) + i]);
  });
  return pixels;
}

// As `find_head` in the package: the box, in fractions of the picture, of the head that the finder is surest of
async function findHead(photo) {
  const { input, cells } = model.finder;
  const seen = toFloats(resize(photo, [0, 0, photo.width, photo.height], input));
  const { map } = await run(await open("head_finder"), { image: [seen, [1, 3, input, input]] });
  const answers = await map.getData(), n = cells * cells;
  const best = answers.slice(0, n).reduce((most, score, i, scores) => (score > scores[most] ? i : most), 0);
  const [score, dx, dy, logWidth, logHeight] = Array.from({ length: 5 }, (_, i) => answers[i * n + best]);
  if (score < 0) return null; // less sure than a half
  const x = ((best % cells) + dx) / cells, y = (Math.floor(best / cells) + dy) / cells;
  const w = Math.exp(logWidth) / 2, h = Math.exp(logHeight) / 2;
  const box = [x - w, y - h, x + w, y + h].map((side) => Math.min(Math.max(side, 0), 1));
  return box[0] < box[2] && box[1] < box[3] ? box : null;
}

// As `square_around` in the package
function squareAround({ width, height }, box) {
  const [left, top, right, bottom] = box ?? [0, 0, 1, 1];
  const across = Math.max((right - left) * width, (bottom - top) * height) * 1.2;
  const side = Math.round(Math.min(Math.max(across, 8), width, height));
  const inside = (start, full) => Math.min(Math.max(Math.round(start), 0), full - side);
  const x = inside(((left + right) / 2) * width - side / 2, width);
  const y = inside(((top + bottom) / 2) * height - side / 2 - (box ? model.finder.up : 0) * side, height);
  return [x, y, x + side, y + side];
}

// ---------------------------------------------------------------- questions, answered one after another

const answers = { begin, decode, encode };
let last = Promise.resolve();

onmessage = ({ data: { id, what, given } }) => {
  last = last.then(async () => {
    try {
      postMessage({ id, answer: await answers[what](given) });
    } catch (error) {
      postMessage({ id, error: error.message ?? `the network did not run (${error})` });
    }
  });
};
