// The inspector page: sends an image to the server and draws the response. Text from the server is set as text, never as markup.

import { COLOURS, halves, heatImage, percent } from "/heat.js";

const at = (id) => document.getElementById(id);
const HINTS = {
  attention: "The patches that the selected patch attends to, in one layer and head; brighter means more attention. Early layers "
    + "often attend to neighbouring patches, later layers to entire objects, and the heads of a layer differ.",
  rollout: "How much each patch contributes to the model's output, traced back through the attention of all layers. Check "
    + "whether the bright areas lie on the main object of the image.",
  similarity: "Cosine similarity between the token of the selected patch and those of all patches, after the given number of "
    + "layers. Patches of the same object often become more similar with depth.",
  positions: "Cosine similarity between the position embedding of the selected patch and those of all patches; it is the same for "
    + "every image. Check whether the row and the column of the patch stand out.",
};
const state = {
  model: null, blob: null, picture: null, look: null, view: "attention", layer: 1, head: -1, patch: 0, pinned: false,
  maps: new Map(), image: 0,
};

start();

async function start() {
  listen();
  paintScale();
  try {
    state.model = await (await ask("/api/model")).json();
  } catch (error) {
    complain(error);
    return;
  }
  const model = state.model;
  const parts = [model.name, `${model.width} × ${model.height} pixels`];
  if (model.rows) parts.push(`${model.columns} × ${model.rows} patches`, `${model.layers} layers of ${model.heads} heads`);
  if (model.classes) parts.push(`${model.classes.toLocaleString("en")} classes`);
  at("facts").textContent = parts.join(" · ");
  document.title = `${model.name} – vitlab inspector`;
  state.patch = Math.floor(model.rows / 2) * model.columns + Math.floor(model.columns / 2);
  at("answers").hidden = !model.classes;
  allowViews();
  makeHeads();
}

function allowViews() {
  const model = state.model;
  const reasons = {
    attention: model.attention, rollout: model.attention, similarity: model.rows ? "" : "a ResNet has no patch tokens",
    positions: model.positions,
  };
  for (const radio of document.querySelectorAll("input[name=view]")) {
    radio.disabled = Boolean(reasons[radio.value]);
    radio.parentElement.title = reasons[radio.value];
  }
  const first = document.querySelector("input[name=view]:not(:disabled)");
  at("views").hidden = !first;
  state.view = first ? first.value : "";
  if (first) first.checked = true;
}

function makeHeads() {
  const list = at("head-list");
  for (let head = -1; head < state.model.heads; head += 1) {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "head", value: head, checked: head < 0 });
    radio.setAttribute("aria-label", head < 0 ? "Mean over all heads" : `Head ${head + 1}`);
    const canvas = Object.assign(document.createElement("canvas"), { width: state.model.columns, height: state.model.rows });
    canvas.setAttribute("aria-hidden", "true");
    const text = document.createElement("span");
    text.textContent = head < 0 ? "mean" : head + 1;
    label.append(radio, canvas, text);
    list.append(label);
    radio.addEventListener("change", () => { state.head = head; show(); });
  }
}

function listen() {
  const drop = at("drop");
  at("file").addEventListener("change", (event) => { take(event.target.files[0]); event.target.value = ""; });
  for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
  document.addEventListener("dragover", () => drop.classList.add("over"));
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => { drop.classList.remove("over"); take(event.dataTransfer.files[0]); });
  document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
  for (const radio of document.querySelectorAll("input[name=view]")) {
    radio.addEventListener("change", () => { state.view = radio.value; show(); });
  }
  at("layer").addEventListener("input", (event) => { state.layer = Number(event.target.value); show(); });
  for (const id of ["class-token", "residual"]) at(id).addEventListener("change", show);
  const picture = at("picture");
  picture.addEventListener("pointermove", (event) => { if (!state.pinned) choose(patchAt(event)); });
  picture.addEventListener("click", (event) => { choose(patchAt(event)); state.pinned = !state.pinned; draw(); });
  picture.addEventListener("keydown", onKey);
  new ResizeObserver(() => { if (state.look) draw(); }).observe(picture);
}

function onKey(event) {
  const { columns, rows } = state.model;
  const [row, column] = [Math.floor(state.patch / columns), state.patch % columns];
  const moves = {
    ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
    Home: [row, 0], End: [row, columns - 1],
  };
  if (event.key === "Enter" || event.key === " ") state.pinned = !state.pinned;
  else if (moves[event.key]) {
    const [toRow, toColumn] = moves[event.key];
    state.patch = Math.min(rows - 1, Math.max(0, toRow)) * columns + Math.min(columns - 1, Math.max(0, toColumn));
  } else return;
  event.preventDefault();
  if (at("class-token").checked && moves[event.key]) at("class-token").checked = false;
  draw();
}

function patchAt(event) {
  const { columns, rows } = state.model;
  const box = at("picture").getBoundingClientRect();
  const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
  const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
  return Math.min(rows - 1, Math.max(0, row)) * columns + Math.min(columns - 1, Math.max(0, column));
}

function choose(patch) {
  if (patch === state.patch && !at("class-token").checked) return;
  state.patch = patch;
  at("class-token").checked = false;
  draw();
}

async function take(file) {
  if (!file || !state.model) return;
  state.image += 1;
  const image = state.image;
  complain(null);
  busy(true);
  try {
    const [look, answer] = await Promise.all([
      ask("/api/look", file).then((response) => response.json()),
      state.model.classes ? ask("/api/predict?top=5", file).then((response) => response.json()) : null,
    ]);
    const picture = new Image();
    picture.src = look.picture;
    await picture.decode();
    if (image !== state.image) return;
    Object.assign(state, { blob: file, look, picture, pinned: false });
    for (const key of [...state.maps.keys()]) if (key !== "positions") state.maps.delete(key);
    if (answer) list(answer.predictions);
    at("drop").classList.add("small");
    at("drop").querySelector("b").textContent = "Another image:";
    at("drop").querySelector("span").textContent = "drop it anywhere, choose a file, or paste an image.";
    at("work").hidden = false;
    await show();
  } catch (error) {
    complain(error);
  } finally {
    if (image === state.image) busy(false);
  }
}

function list(predictions) {
  at("classes").replaceChildren(...predictions.map(({ label, probability }) => {
    const item = document.createElement("li");
    const [name, share] = [document.createElement("span"), document.createElement("span")];
    name.textContent = label;
    share.textContent = percent(probability);
    share.className = "share";
    const bar = Object.assign(document.createElement("progress"), { max: 1, value: probability });
    bar.setAttribute("aria-hidden", "true");
    item.append(name, share, bar);
    return item;
  }));
}

/** Fetches what the controls select, and draws it. */
async function show() {
  const { view, model } = state;
  const deep = view === "similarity";
  at("hint").textContent = HINTS[view] || "";
  at("layer-row").hidden = view !== "attention" && !deep;
  at("class-token-row").hidden = view !== "attention" || !model.class_token;
  at("residual-row").hidden = view !== "rollout";
  at("heads").hidden = view !== "attention";
  at("layer-name").textContent = deep ? "After layer" : "Layer";
  const slider = at("layer");
  [slider.min, slider.max] = [deep ? 0 : 1, model.layers];
  state.layer = Math.min(model.layers, Math.max(deep ? 0 : 1, state.layer));
  slider.value = state.layer;
  at("layer-number").textContent = `${state.layer} of ${model.layers}`;
  const key = keyOf();
  if (key && !state.maps.has(key)) {
    busy(true);
    try {
      const image = state.image;
      const response = await ask(key === "positions" ? "/api/positions" : `/api/${key}`, key === "positions" ? null : state.blob);
      const map = { shape: response.headers.get("X-Shape").split(",").map(Number), values: halves(await response.arrayBuffer()) };
      if (image === state.image) keep(key, map);
    } catch (error) {
      complain(error);
    } finally {
      busy(false);
    }
  }
  draw();
}

function keyOf() {
  if (state.view === "attention") return `attention?layer=${state.layer - 1}`;
  if (state.view === "similarity") return `similarity?depth=${state.layer}`;
  return state.view === "positions" ? "positions" : "";
}

/** Keeps the most recent maps, up to about 200 MB. */
function keep(key, map) {
  state.maps.set(key, map);
  let size = [...state.maps.values()].reduce((sum, { values }) => sum + values.byteLength, 0);
  for (const [old, { values }] of [...state.maps]) {
    if (size < 2e8 || old === key) break;
    state.maps.delete(old);
    size -= values.byteLength;
  }
}

/** The attention to every patch in one head (-1: the mean over all heads), and to the class token. */
function attentionOf(map, head) {
  const [heads, tokens] = map.shape;
  const prefix = state.model.class_token ? 1 : 0;
  const query = at("class-token").checked && prefix ? 0 : state.patch + prefix;
  const values = new Float32Array(tokens);
  const chosen = head < 0 ? [...Array(heads).keys()] : [head];
  for (const one of chosen) {
    const begin = (one * tokens + query) * tokens;
    for (let token = 0; token < tokens; token += 1) values[token] += map.values[begin + token] / chosen.length;
  }
  return { patches: values.subarray(prefix), classToken: prefix ? values[0] : null };
}

function valuesNow() {
  if (state.view === "rollout") {
    const rollout = at("residual").checked ? state.look.rollout : state.look.rollout_without_residual;
    return { patches: Float32Array.from(rollout.flat()), classToken: null };
  }
  const map = state.maps.get(keyOf());
  if (!map) return null;
  if (state.view === "attention") return attentionOf(map, state.head);
  const patches = map.shape[1];
  return { patches: map.values.subarray(state.patch * patches, (state.patch + 1) * patches), classToken: null };
}

function draw() {
  const canvas = at("picture");
  const { model, picture } = state;
  const width = Math.round(canvas.clientWidth * devicePixelRatio) || model.width;
  canvas.width = width;
  canvas.height = Math.round((width * model.height) / model.width);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = model.width >= 128;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const found = valuesNow();
  if (!found) return;
  const cosine = state.view === "similarity" || state.view === "positions";
  const [least, most] = [Math.min(...found.patches), Math.max(...found.patches)];
  overlay(context, found.patches, cosine || state.view === "rollout" ? least : 0, most);
  if (state.view !== "rollout" && !usesClassToken()) outline(context, state.patch);
  const text = cosine ? (value) => value.toFixed(2) : percent;
  at("least").textContent = cosine || state.view === "rollout" ? text(least) : text(0);
  at("most").textContent = text(most);
  at("said").textContent = sentence(found, most, text);
  at("keys").hidden = state.view === "rollout";
  canvas.setAttribute("aria-label", `The image with a heat map: ${at("hint").textContent}`);
  if (state.view === "attention") thumbnails();
}

function overlay(context, values, least, most) {
  const { columns, rows } = state.model;
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d").putImageData(heatImage(values, columns, least, most), 0, 0);
  context.save();
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "#808080";
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  context.restore();
  context.globalAlpha = 0.62;
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, context.canvas.width, context.canvas.height);
  context.globalAlpha = 1;
}

function outline(context, patch) {
  const { columns, rows } = state.model;
  const [width, height] = [context.canvas.width / columns, context.canvas.height / rows];
  const [left, top] = [(patch % columns) * width, Math.floor(patch / columns) * height];
  const thick = Math.max(2, 2 * devicePixelRatio);
  for (const [colour, line] of [["#000000", 2.5 * thick], [state.pinned ? "#7fd0ff" : "#ffffff", thick]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(left, top, width, height);
  }
}

function thumbnails() {
  const map = state.maps.get(keyOf());
  for (const radio of document.querySelectorAll("input[name=head]")) {
    const { patches } = attentionOf(map, Number(radio.value));
    const canvas = radio.parentElement.querySelector("canvas");
    canvas.getContext("2d").putImageData(heatImage(patches, state.model.columns, 0, Math.max(...patches)), 0, 0);
  }
}

function usesClassToken() {
  return state.view === "attention" && state.model.class_token && at("class-token").checked;
}

function sentence({ patches, classToken }, most, text) {
  const place = (patch) => `row ${Math.floor(patch / state.model.columns) + 1}, column ${(patch % state.model.columns) + 1}`;
  const best = place(patches.indexOf(most));
  if (state.view === "rollout") return `The patch in ${best} contributes most to the output (${text(most)}).`;
  if (state.view !== "attention") {
    const others = patches.map((value, index) => (index === state.patch ? -2 : value));
    const nearest = others.indexOf(Math.max(...others));
    return `The patch in ${place(state.patch)} is most similar to the one in ${place(nearest)} (${text(others[nearest])}).`;
  }
  const from = usesClassToken() ? "The class token" : `The patch in ${place(state.patch)}`;
  const head = state.head < 0 ? "in the mean over all heads" : `in head ${state.head + 1}`;
  const rest = classToken === null ? "" : ` The class token receives ${percent(classToken)}.`;
  return `${from} attends most to ${best} (${text(most)}) ${head} of layer ${state.layer}.${rest}`;
}

function paintScale() {
  const image = new ImageData(256, 1);
  for (let index = 0; index < 256; index += 1) image.data.set([...COLOURS.subarray(3 * index, 3 * index + 3), 255], 4 * index);
  at("scale").getContext("2d").putImageData(image, 0, 0);
}

async function ask(path, file = null) {
  const type = file && file.type.startsWith("image/") ? file.type : "application/octet-stream";
  const request = file ? { method: "POST", body: file, headers: { "Content-Type": type } } : {};
  const response = await fetch(path, request).catch(() => { throw new Error("The server does not respond. Is it still running?"); });
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  throw new Error(said.error || `The server responded with status ${response.status}.`);
}

function busy(is) {
  at("work").setAttribute("aria-busy", String(is));
  document.body.style.cursor = is ? "progress" : "";
}

function complain(error) {
  at("trouble").hidden = !error;
  at("trouble").textContent = error ? error.message : "";
}
