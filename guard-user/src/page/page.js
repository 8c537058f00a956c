// Draws what the agent says at /data, once a second. Names come from packets: they are only ever set as text.
"use strict";

const REFRESH_MS = 1000;
const TIMEOUT_MS = 4000;
const SECONDS = 300;
const WIDTH = SECONDS - 1;
const HEIGHT = 100;

const byId = (id) => document.getElementById(id);
const whole = (number) => Math.round(number).toLocaleString("en");
const rate = (number) => (number < 10 && number % 1 ? number.toFixed(1) : whole(number));
const clock = (unixMs) => new Date(unixMs).toLocaleTimeString();

let answer = null; // The last view, and when it came by the clock of this page.

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Writes only what has changed, so that a selection and a screen reader stay where they are.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function duration(seconds) {
  const two = (large, small, units) => `${Math.floor(large)} ${units[0]} ${Math.floor(small)} ${units[1]}`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return two(seconds / 60, seconds % 60, ["min", "s"]);
  if (seconds < 86400) return two(seconds / 3600, (seconds / 60) % 60, ["h", "min"]);
  return two(seconds / 86400, (seconds / 3600) % 24, ["d", "h"]);
}

// Makes a body have as many rows as there are items; the first time a row is needed, `make` builds it.
function fill(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, index) => {
    if (!parent.children[index]) parent.append(make(item));
    update(parent.children[index], item);
  });
}

function cells(classes) {
  return () => {
    const row = element("tr");
    row.append(...classes.map((name) => element("td", name)));
    return row;
  };
}

function drawHead(view) {
  const mode = byId("mode");
  setText(mode, view.mode);
  mode.className = view.mode === "enforce" ? "badge enforce" : "badge observe";
  mode.title = view.mode === "enforce" ? "Looped and shed queries are answered or dropped." : "No packet is touched.";
  setText(byId("where"), `on ${view.interfaces.join(", ")}, up ${duration(view.uptime_seconds)}`);
  setText(byId("clock"), clock(view.at_unix_ms));
}

function drawNow(view) {
  const now = view.last_second;
  const enforced = view.mode === "enforce";
  const tiles = [
    ["Queries/s", now.queries, ""],
    ["Held/s", now.held, "held"],
    ["Shed/s", now.shed, "shed"],
    ["Pass/s", now.pass, ""],
    [enforced ? "Answer/s" : "Would answer/s", enforced ? now.answer : now.would_answer, ""],
    [enforced ? "Drop/s" : "Would drop/s", enforced ? now.drop : now.would_drop, ""],
  ];
  const make = () => {
    const tile = element("div");
    tile.append(element("dt"), element("dd"));
    return tile;
  };
  fill(byId("now"), tiles, make, (tile, [label, number, alarm]) => {
    setText(tile.firstChild, label);
    setText(tile.lastChild, rate(number));
    tile.lastChild.className = alarm && number > 0 ? `alarm ${alarm}` : "";
  });
}

function holdLeft(loop) {
  const left = loop.hold_left_ms - (performance.now() - answer.cameAt);
  return left > 0 ? `${(left / 1000).toFixed(1)} s` : "testing";
}

function drawLoops() {
  const loops = answer.view.loops;
  setText(byId("loops-count"), loops.length ? String(loops.length) : "");
  byId("loops-nothing").hidden = loops.length > 0;
  byId("loops").hidden = loops.length === 0;
  const make = cells(["name", "", "more", "more", "number", "number"]);
  fill(byId("loops").tBodies[0], loops, make, (row, loop) => {
    const evidence = loop.evidence === "none" ? "" : ` (${loop.evidence})`;
    const texts = [loop.name, loop.type, loop.device, loop.proof + evidence, holdLeft(loop), whole(loop.held)];
    texts.forEach((text, index) => setText(row.cells[index], text));
  });
}

function svg(name, className) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  made.setAttribute("class", className);
  return made;
}

function makePlot(className) {
  const figure = element("figure", className);
  figure.setAttribute("role", "img");
  const caption = element("figcaption");
  caption.append(element("span"), element("b"));
  const picture = svg("svg", "plot");
  picture.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  for (const height of [0, HEIGHT / 2, HEIGHT]) picture.append(level(svg("line", "grid"), height));
  const [area, line, limit, cursor] = [svg("path", "area"), svg("path", "line"), svg("line", "limit"), svg("line", "cursor")];
  picture.append(area, line, limit, cursor);
  const frame = element("div", "frame");
  frame.append(picture, element("span", "top-label"));
  const axis = element("div", "axis");
  for (const text of ["5 min ago", "now"]) axis.append(element("span", "", text));
  figure.append(caption, frame, axis);
  figure.parts = { area, line, limit, cursor, label: caption.firstChild, value: caption.lastChild, top: frame.lastChild };
  picture.addEventListener("pointermove", (event) => point(figure, event, picture));
  picture.addEventListener("pointerleave", () => point(figure, null, picture));
  return figure;
}

function level(line, y) {
  for (const [name, value] of [["x1", 0], ["x2", WIDTH], ["y1", y], ["y2", y]]) line.setAttribute(name, value);
  return line;
}

// The next number above that reads well: one digit, or 15, with zeros behind it.
function roundUp(number) {
  if (number <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((factor) => factor * power).find((candidate) => candidate >= number);
}

function drawPlot(figure, { label, points, limit }) {
  const { parts } = figure;
  const peak = Math.max(0, ...points);
  const top = roundUp(Math.max(peak, limit || 0));
  // The newest point is at the right; what the agent has not lived through yet stays empty.
  const start = SECONDS - points.length;
  const at = points.map((value, index) => `${start + index},${(HEIGHT * (1 - value / top)).toFixed(2)}`);
  parts.line.setAttribute("d", at.length ? `M${at.join("L")}` : "");
  parts.area.setAttribute("d", at.length ? `M${start},${HEIGHT}L${at.join("L")}L${WIDTH},${HEIGHT}Z` : "");
  level(parts.limit, HEIGHT * (1 - (limit || 0) / top));
  parts.limit.setAttribute("visibility", limit ? "visible" : "hidden");
  setText(parts.top, whole(top));
  setText(parts.label, limit ? `${label}, limit ${whole(limit)}` : label);
  const now = points.length ? rate(points[points.length - 1]) : "–";
  const all = `${parts.label.textContent}, last five minutes: now ${now}, highest ${rate(peak)}`;
  if (figure.getAttribute("aria-label") !== all) figure.setAttribute("aria-label", all);
  figure.data = { points, start, now };
  showValue(figure);
}

function point(figure, event, picture) {
  const box = picture.getBoundingClientRect();
  figure.second = event ? Math.round(((event.clientX - box.left) / box.width) * WIDTH) : undefined;
  showValue(figure);
}

// The value under the pointer, else the newest.
function showValue(figure) {
  const { parts, data, second } = figure;
  const value = second === undefined ? undefined : data.points[second - data.start];
  parts.cursor.setAttribute("visibility", value === undefined ? "hidden" : "visible");
  if (value === undefined) {
    setText(parts.value, data.now);
    return;
  }
  for (const [name, at] of [["x1", second], ["x2", second], ["y1", 0], ["y2", HEIGHT]]) parts.cursor.setAttribute(name, at);
  setText(parts.value, `${rate(value)}, ${duration(WIDTH - second)} ago`);
}

function drawPlots(view) {
  const { history } = view;
  const plots = [
    { label: "Queries/s", points: history.queries_per_second, className: "queries" },
    { label: "Held/s", points: history.held_per_second, className: "held" },
    { label: "Shed/s", points: history.shed_per_second, className: "shed" },
  ];
  fill(byId("plots"), plots, (plot) => makePlot(plot.className), drawPlot);
  const links = view.links.map((link) => ({
    label: `${link.device}, packets/s`,
    points: history.link_packets_per_second[link.device] || [],
    limit: link.limit_packets_per_second,
  }));
  byId("links-section").hidden = links.length === 0;
  fill(byId("links"), links, () => makePlot("queries"), drawPlot);
}

function track(parts) {
  const made = element("div", "track");
  made.setAttribute("aria-hidden", "true");
  made.append(...parts.map((name) => element("i", name)));
  return made;
}

function stretch(part, from, to) {
  const [left, right] = [from, to].map((share) => Math.min(Math.max(share, 0), 1));
  part.style.left = `${left * 100}%`;
  part.style.width = `${Math.max(right - left, 0) * 100}%`;
}

function drawBudgets(view) {
  byId("budgets-section").hidden = view.budgets.length === 0;
  const make = () => {
    const row = cells(["name", "number more", "number", "number", "bar more"])();
    row.cells[4].append(track(["within", "over"]), element("span"));
    return row;
  };
  fill(byId("budgets").tBodies[0], view.budgets, make, (row, budget) => {
    const { within, over } = budget;
    const numbers = [budget.limit_packets_per_second, budget.within_per_second, budget.over_per_second];
    setText(row.cells[0], budget.budget);
    numbers.forEach((number, index) => setText(row.cells[index + 1], rate(number)));
    row.cells[3].className = budget.over_per_second > 0 ? "number alarm held" : "number";
    const [bar, text] = row.cells[4].children;
    const share = within / Math.max(within + over, 1);
    stretch(bar.children[0], 0, share);
    stretch(bar.children[1], share, within + over ? 1 : share);
    setText(text, `${whole(within)} within, ${whole(over)} over`);
  });
}

function drawBoard(id, rows, name) {
  const most = Math.max(1e-9, ...rows.map((row) => row.queries_per_second + row.error_per_second));
  const make = () => {
    const row = cells(["name", "number"])();
    row.cells[0].append(element("span"), track(["within", "off"]));
    return row;
  };
  fill(byId(id).tBodies[0], rows, make, (line, row) => {
    const [text, bar] = line.cells[0].children;
    const { queries_per_second: queries, error_per_second: error } = row;
    setText(text, name(row));
    stretch(bar.children[0], 0, queries / most);
    stretch(bar.children[1], (queries - error) / most, (queries + error) / most);
    setText(line.cells[1], error >= 0.05 ? `${rate(queries)} ± ${rate(error)}` : rate(queries));
  });
}

function draw() {
  const { view } = answer;
  drawHead(view);
  drawNow(view);
  drawLoops();
  drawPlots(view);
  drawBudgets(view);
  drawBoard("keys", view.keys, (row) => `${row.name} ${row.type}`);
  drawBoard("zones", view.zones, (row) => row.zone);
  drawBoard("clients", view.clients, (row) => (row.pod ? `${row.client} ${row.pod}` : row.client));
}

function say(isStale, text) {
  document.body.classList.toggle("stale", isStale);
  setText(byId("status"), text);
}

function sayHowItIs(view) {
  const loops = view.loops.length;
  const open = loops === 0 ? "No loop is open." : loops === 1 ? "One loop is open." : `${loops} loops are open.`;
  say(false, view.last_second.shed > 0 ? `${open} Queries are shed.` : open);
  document.title = loops ? `(${loops}) dnsguard` : "dnsguard";
}

async function ask() {
  const response = await fetch("/data", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const view = await response.json();
  if (view.schema !== 1) throw new Error(`schema ${view.schema}`);
  return view;
}

async function refresh() {
  setTimeout(refresh, REFRESH_MS + (await look()));
}

// Asks and draws; returns how many more milliseconds to wait.
async function look() {
  let view;
  try {
    view = await ask();
  } catch {
    document.title = "dnsguard: no answer";
    const last = answer ? `What is shown is of ${clock(answer.view.at_unix_ms)}.` : "Nothing is known yet.";
    say(true, `The agent does not answer. ${last} Trying again.`);
    return REFRESH_MS;
  }
  answer = { view, cameAt: performance.now() };
  draw();
  sayHowItIs(view);
  return 0;
}

setInterval(() => answer && !document.body.classList.contains("stale") && drawLoops(), 200);
refresh();
