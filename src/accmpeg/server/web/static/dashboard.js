// Live pictures with detections and quality maps, and each camera's numbers. No library, nothing from elsewhere.
"use strict";

const STATUS_MS = 1000;
const CONTACT_MS = 5000;
const COLOURS = ["#ff5b5b", "#3fb6ff", "#ffc933", "#4cd787", "#d68cff", "#ff9a3d", "#4de0d2", "#ff7fc0"];
// Finer than the picture's median QP is green, coarser violet, as in the project's other pictures.
const FINE_TO_COARSE = [[0, 130, 60], [150, 210, 150], [245, 245, 245], [190, 150, 210], [90, 10, 120]];
const MAP_SPAN_QP = 8;
const STAGES = ["wait", "decode", "queue", "infer", "total"];

const byId = (id) => document.getElementById(id);
const cards = new Map();
let socket = null;
let retryMs = 1000;
let asking = false;
let lastContact = null;
let workers = [];

function workerOf(camera) {
  const found = workers.find((each) => each.dnn === camera.dnn && each.cameras.includes(camera.name));
  return found ? found.worker : "–";
}

function showWorkers() {
  byId("workers").hidden = workers.length < 2;
  byId("workers").querySelector("tbody").replaceChildren(...workers.map((each) => {
    const row = document.createElement("tr");
    for (const text of [`${each.dnn}, ${each.worker}`, each.cameras.length, each.waiting, each.failed, each.problem || "answers"]) {
      row.append(Object.assign(document.createElement("td"), { textContent: text }));
    }
    row.className = each.problem ? "failing" : "";
    return row;
  }));
}

function showCard(camera) {
  let card = cards.get(camera.name);
  if (!card) {
    const root = byId("camera").content.firstElementChild.cloneNode(true);
    const find = (selector) => root.querySelector(selector);
    card = {
      root, canvas: find("canvas"), waiting: find(".waiting"), health: find(".health"), facts: find(".facts"),
      stages: find("tbody"), boxes: find(".boxes"), map: find(".map"), legend: find(".legend"),
      note: find(".map-note"), problem: find(".problem"), forget: find(".forget"), picture: null, header: null, quality: null,
    };
    find("h2").textContent = camera.name;
    card.boxes.addEventListener("change", () => draw(card));
    card.map.addEventListener("change", () => { sayWhatIsWatched(); draw(card); });
    card.forget.addEventListener("click", () => forget(card, camera.name));
    cards.set(camera.name, card);
    byId("cameras").append(root);
    sayWhatIsWatched();
  }
  card.health.textContent = (camera.pulled ? "fetched, " : "") + camera.health;
  card.health.className = `health ${camera.health}`;
  card.problem.hidden = !camera.health_reason;
  card.problem.textContent = camera.health_reason;
  card.forget.hidden = camera.connected || camera.pulled;
  fill(card.facts, [
    ["bitrate", camera.pulled ? "–" : bits(camera.bitrate_bps)],
    ["frames/s", camera.frames_per_s.toFixed(1)],
    ["size", camera.size_px.join("×")],
    ["last frame", camera.last_frame_age_s === null ? "–" : `${camera.last_frame_age_s.toFixed(1)} s ago`],
    ["mean confidence", camera.mean_confidence === null ? "–" : camera.mean_confidence.toFixed(2)],
    ["objects per frame", camera.objects_per_frame === null ? "–" : camera.objects_per_frame.toFixed(1)],
    ["answered", camera.results.toLocaleString("en")],
    ["dropped", Object.entries(camera.dropped).map(([why, n]) => `${n} ${why}`).join(", ") || "0"],
    ["decode errors", camera.decode_errors.toLocaleString("en")],
    ["waiting", String(camera.waiting)],
    ["server DNN", workers.length > 1 ? `${camera.dnn}, ${workerOf(camera)}` : camera.dnn],
  ]);
  card.stages.replaceChildren(...Object.entries(camera.stages_ms).sort(byStage).map(([stage, times]) => {
    const row = document.createElement("tr");
    for (const text of [stage, ...["p50", "p95", "p99"].map((rank) => times[rank].toFixed(1))]) {
      row.append(Object.assign(document.createElement("td"), { textContent: text }));
    }
    return row;
  }));
}

async function forget(card, name) {
  const answer = await fetch(`v1/cameras/${encodeURIComponent(name)}`, { method: "DELETE" }).catch(() => null);
  if (answer && answer.status === 401) {
    card.forget.textContent = "An administrator's token is needed";
    card.forget.disabled = true;
    return;
  }
  refresh();
}

// The camera's stages in the order they came, then the server's.
function byStage([a], [b]) {
  return STAGES.indexOf(a) - STAGES.indexOf(b);
}

function fill(list, facts) {
  list.replaceChildren(...facts.map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: value }));
    return pair;
  }));
}

function bits(perSecond) {
  if (perSecond >= 1e6) return `${(perSecond / 1e6).toFixed(2)} Mbit/s`;
  return `${(perSecond / 1e3).toFixed(0)} kbit/s`;
}

function draw(card) {
  const { canvas, picture, header, quality } = card;
  card.legend.hidden = card.note.hidden = !card.map.checked;
  if (!picture) return;
  if (canvas.width !== picture.width || canvas.height !== picture.height) {
    canvas.width = picture.width;
    canvas.height = picture.height;
  }
  const brush = canvas.getContext("2d");
  brush.drawImage(picture, 0, 0);
  if (card.map.checked) drawMap(card, brush, quality);
  if (card.boxes.checked && header.result) drawResult(brush, canvas, header);
}

function drawMap(card, brush, quality) {
  if (!quality) {
    card.note.textContent = "No map yet: it is read from H.264 keyframes.";
    return;
  }
  const when = quality.age ? `the keyframe ${quality.age} before this picture` : "this picture";
  card.note.textContent = `QP of ${when}: median ${quality.median}, from ${quality.least} to ${quality.most}.`;
  const [width, height] = quality.size;
  const scaleX = card.canvas.width / width, scaleY = card.canvas.height / height;
  brush.imageSmoothingEnabled = false;
  brush.drawImage(quality.tile, 0, 0, quality.cols * 16 * scaleX, quality.rows * 16 * scaleY);
}

function mapOf(header, qps) {
  const { map_rows: rows, map_cols: cols } = header;
  const sorted = Uint8Array.from(qps).sort();
  const median = sorted[sorted.length >> 1];
  const tile = new OffscreenCanvas(cols, rows);
  const pixels = new ImageData(cols, rows);
  qps.forEach((qp, i) => {
    const at = Math.min(Math.max((qp - median) / (2 * MAP_SPAN_QP) + 0.5, 0), 1) * (FINE_TO_COARSE.length - 1);
    const low = Math.min(Math.floor(at), FINE_TO_COARSE.length - 2);
    for (let c = 0; c < 3; c += 1) {
      const [a, b] = [FINE_TO_COARSE[low][c], FINE_TO_COARSE[low + 1][c]];
      pixels.data[4 * i + c] = a + (b - a) * (at - low);
    }
    // What is near the median lets the picture through.
    pixels.data[4 * i + 3] = 40 + 170 * Math.min(Math.abs(qp - median) / MAP_SPAN_QP, 1);
  });
  tile.getContext("2d").putImageData(pixels, 0, 0);
  return {
    tile, rows, cols, median, least: sorted[0], most: sorted[sorted.length - 1],
    size: header.map_size_px, age: header.sequence - header.map_sequence,
  };
}

function drawResult(brush, canvas, header) {
  const [width, height] = header.size_px;
  const scaleX = canvas.width / width, scaleY = canvas.height / height;
  if (header.result.task === "segmentation") {
    drawClasses(brush, canvas, header.result);
    return;
  }
  // As large on a phone as on a desk, whatever the canvas is scaled to.
  const unit = canvas.width / (canvas.clientWidth || canvas.width);
  const high = Math.round(15 * unit);
  brush.font = `${Math.round(11 * unit)}px system-ui, sans-serif`;
  brush.textBaseline = "top";
  const labels = [];
  for (const found of [...header.result.objects].sort((a, b) => b.score - a.score)) {
    const colour = COLOURS[found.class_id % COLOURS.length];
    const [x0, y0, x1, y1] = found.box_xyxy;
    const [x, y] = [x0 * scaleX, y0 * scaleY];
    if (found.mask) drawMask(brush, found.mask, colour, scaleX, scaleY);
    brush.strokeStyle = brush.fillStyle = colour;
    brush.lineWidth = 1.5 * unit;
    brush.strokeRect(x, y, (x1 - x0) * scaleX, (y1 - y0) * scaleY);
    const label = `${found.class} ${found.score.toFixed(2)}`;
    const top = Math.max(0, y - high);
    const wide = brush.measureText(label).width + 6 * unit;
    // In a crowd the surer ones keep their labels: two on one another can't be read.
    if (!labels.some(([l, t, w]) => x < l + w && l < x + wide && top < t + high && t < top + high)) {
      labels.push([x, top, wide]);
      brush.fillRect(x - 1, top, wide, high);
      brush.fillStyle = "#000";
      brush.fillText(label, x + 2 * unit, top + 2 * unit);
    }
    brush.fillStyle = colour;
    for (const [px, py, seen] of found.keypoints || []) {
      if (seen < 0.5) continue;
      brush.beginPath();
      brush.arc(px * scaleX, py * scaleY, 3, 0, 2 * Math.PI);
      brush.fill();
    }
  }
}

function drawMask(brush, mask, colour, scaleX, scaleY) {
  const [left, top] = mask.offset_px;
  const width = mask.size_px[0];
  brush.fillStyle = `${colour}80`;
  let at = 0;
  mask.runs.forEach((length, index) => {
    for (let rest = index % 2 ? length : 0, from = at; rest > 0;) {
      const row = Math.floor(from / width), col = from % width, part = Math.min(rest, width - col);
      brush.fillRect((left + col) * scaleX, (top + row) * scaleY, part * scaleX, scaleY + 0.5);
      from += part;
      rest -= part;
    }
    at += length;
  });
}

function drawClasses(brush, canvas, result) {
  const [width, height] = result.size_px;
  const pixels = new ImageData(width, height);
  const parts = COLOURS.map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));
  for (let i = 0, at = 0; i < result.runs.length; i += 2) {
    const colour = parts[result.runs[i] % parts.length];
    for (const end = at + result.runs[i + 1]; at < end; at += 1) pixels.data.set([...colour, 110], 4 * at);
  }
  const tile = new OffscreenCanvas(width, height);
  tile.getContext("2d").putImageData(pixels, 0, 0);
  brush.drawImage(tile, 0, 0, canvas.width, canvas.height);
}

async function showPicture(data) {
  const length = new DataView(data).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const card = cards.get(header.camera);
  if (!card) return;
  const jpeg = new Blob([new Uint8Array(data, 4 + length, header.jpeg_bytes)], { type: "image/jpeg" });
  const picture = await createImageBitmap(jpeg);
  if (card.picture) card.picture.close();
  card.picture = picture;
  card.header = header;
  card.quality = header.map_rows ? mapOf(header, new Uint8Array(data, 4 + length + header.jpeg_bytes)) : null;
  card.waiting.hidden = true;
  draw(card);
}

function sayWhatIsWatched() {
  if (!socket || socket.readyState !== WebSocket.OPEN) return;
  // A page in the background costs the server nothing.
  const shown = document.hidden ? [] : [...cards.entries()];
  socket.send(JSON.stringify({
    watch: shown.map(([name]) => name),
    maps: shown.filter(([, card]) => card.map.checked).map(([name]) => name),
  }));
}

// Beside this page, which a proxy may show below a path of its own.
function socketAddress(path) {
  const address = new URL(path, location);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return address.href;
}

function openSocket() {
  if (socket) return;
  socket = new WebSocket(socketAddress("v1/view"));
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { retryMs = 1000; sayWhatIsWatched(); };
  socket.onmessage = (event) => showPicture(event.data);
  socket.onclose = () => {
    socket = null;
    setTimeout(() => { if (!document.hidden && byId("log-in").hidden) openSocket(); }, retryMs);
    retryMs = Math.min(2 * retryMs, 30000);
  };
}

// What stands there is old: nobody must take it for the present.
function noContact(why) {
  const since = lastContact ? ` since ${lastContact.toLocaleTimeString()}` : "";
  document.body.classList.add("stale");
  byId("summary").textContent = `no contact${since}: ${why}`;
  for (const card of cards.values()) {
    card.health.textContent = `no contact${since}`;
    card.health.className = "health";
    card.forget.hidden = true;
    for (const name of card.facts.querySelectorAll("dt")) {
      if (name.textContent === "last frame") name.nextElementSibling.textContent = "–";
    }
  }
}

async function refresh() {
  if (document.hidden || asking) return;
  asking = true;
  const answer = await fetch("v1/cameras", { signal: AbortSignal.timeout(CONTACT_MS) }).catch(() => null);
  const status = answer && answer.ok ? await answer.json().catch(() => null) : null;
  asking = false;
  if (status || (answer && answer.status === 401)) {
    show(status);
  } else {
    noContact(answer && !answer.ok ? `the server answers HTTP ${answer.status}` : "the server does not answer");
  }
}

function show(status) {
  lastContact = new Date();
  document.body.classList.remove("stale");
  const locked = status === null;
  byId("log-in").hidden = !locked;
  byId("cameras").hidden = locked;
  byId("workers").hidden = true;
  if (locked) {
    byId("summary").textContent = "a token is needed";
    byId("empty").hidden = byId("log-out").hidden = true;
    return;
  }
  openSocket();
  const here = status.cameras.filter((camera) => camera.health === "live").length;
  byId("summary").textContent = `${here} of ${status.cameras.length} cameras live · up ${duration(status.uptime_s)}`
    + (status.problem ? ` · ${status.problem}` : "");
  byId("empty").hidden = status.cameras.length > 0;
  workers = status.workers;
  showWorkers();
  status.cameras.forEach(showCard);
  const names = status.cameras.map((camera) => camera.name);
  for (const [name, card] of cards) {
    if (!names.includes(name)) { card.root.remove(); cards.delete(name); }
  }
  const inOrder = names.map((name) => cards.get(name).root);
  const place = byId("cameras");
  if (inOrder.some((root, i) => place.children[i] !== root)) place.replaceChildren(...inOrder);
}

function duration(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

byId("log-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = byId("token").value.trim();
  const answer = await fetch("v1/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } })
    .catch(() => null);
  byId("log-in-problem").textContent = answer && answer.ok ? "" : "That token is not a viewer's.";
  if (answer && answer.ok) {
    byId("token").value = "";
    byId("log-out").hidden = false;
    refresh();
  }
});
byId("log-out").addEventListener("click", async () => {
  await fetch("v1/session", { method: "DELETE" });
  location.reload();
});
byId("address").textContent = socketAddress(".");
document.addEventListener("visibilitychange", () => { sayWhatIsWatched(); if (!document.hidden) refresh(); });
setInterval(refresh, STATUS_MS);
refresh();
