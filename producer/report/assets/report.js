"use strict";
// Shows the data of the report. All texts come from documents and reach the page as text nodes only.
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const columns = Object.fromEntries(Object.entries(data.columns).map(([name, values]) => [name, expand(values)]));
const total = columns.page.length;
const BLANK = 1, TEXT_LAYER = 2, REVIEW = 4, ROWS = 50, SHOWN = 5;
const worst = new Map(data.worst.map((shown) => [shown[0], shown]));
const byId = (id) => document.getElementById(id);

function expand(values) {
  if (Array.isArray(values)) return Int32Array.from(values);
  const runs = values.runs;
  let length = 0;
  for (let at = 1; at < runs.length; at += 2) length += runs[at];
  const expanded = new Int32Array(length);
  for (let at = 0, row = 0; at < runs.length; at += 2) { expanded.fill(runs[at], row, row + runs[at + 1]); row += runs[at + 1]; }
  return expanded;
}

function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

const whole = (number) => Math.round(number).toLocaleString("en");
const percent = (part, of) => (of ? `${((100 * part) / of).toFixed(part && part < of / 100 ? 2 : 1)} %` : "–");
function lasting(seconds) {
  if (seconds < 90) return `${seconds.toFixed(1)} s`;
  return seconds < 5400 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
const words = (name) => name.replaceAll("_", " ");
const confidence = (row) => (columns.confidence[row] < 0 ? "" : `${(columns.confidence[row] / 10).toFixed(1)} %`);
const documentOf = (row) => data.documents[columns.document[row]];

// ---- links

function links(row) {
  const [, id, , uri, text, fragment, originals] = documentOf(row);
  const page = columns.page[row], found = [];
  const open = (label, target) => make("a", { href: target, target: "_blank", rel: "noopener noreferrer" }, label);
  if (text) found.push(open("text", text + (fragment ? fragment + page : "")));
  let index = page;
  for (const [source, pages, named] of originals) {
    if (index <= pages) {
      if (source.startsWith("file:")) found.push(open("original", source + (named ? `#page=${index}` : "")));
      break;
    }
    index -= pages;
  }
  found.push(make("a", { href: `#${id}/${page}` }, "this page"));
  return { found, uri, id };
}

// ---- a page

function look(row) {
  const shown = worst.get(row);
  const image = make("div", { className: "image" });
  if (shown && shown[1]) image.append(make("img", { src: `data:image/jpeg;base64,${shown[1]}`, alt: `Image of page ${columns.page[row]}` }));
  else image.append(shown ? `No image: ${shown[2]}` : "Only the worst pages have their image and text in this file.");
  return { image, text: shown ? shown[3] : null };
}

function facts(row, more) {
  const rows = [], add = (name, value) => value !== "" && rows.push(make("dt", {}, name), make("dd", { dir: "auto" }, value));
  const flags = columns.flags[row];
  add("status", words(data.states[columns.state[row]]) + (columns.reason[row] ? `: ${data.reasons[columns.reason[row]]}` : ""));
  add("confidence", confidence(row));
  add("look at it", flags & REVIEW ? "yes" : "");
  add("blank", flags & BLANK ? "yes" : "");
  add("text layer", flags & TEXT_LAYER ? "the text is the PDF's own" : "");
  add("warnings", words(data.warnings[columns.warnings[row]].replaceAll(" ", ", ")));
  add("details", data.details[columns.detail[row]]);
  add("script", data.scripts[columns.script[row]]);
  add("language", data.languages[columns.language[row]]);
  add("words", whole(columns.words[row]));
  if (columns.seconds[row] >= 0) add("seconds", (columns.seconds[row] / 10).toFixed(1));
  add("tokens", columns.tokens[row] ? whole(columns.tokens[row]) : "");
  for (const [name, value] of more) add(name, value);
  return make("dl", {}, ...rows);
}

function piece(row, heading) {
  const { image, text } = look(row), { found, uri, id } = links(row);
  const side = make("div", {});
  if (heading) side.append(make("h3", {}, make("bdi", {}, documentOf(row)[0]), `, page ${columns.page[row]}`));
  side.append(make("div", { className: "links" }, ...found), facts(row, heading ? [] : [["source", uri], ["document", id]]));
  if (!heading && data.fleet) side.append(make("p", { className: "note" }, `Fetch its outputs: ocrfleet results ${id} --output out --formats html`));
  if (text) side.append(make("pre", { className: "text", dir: "auto" }, text));
  else if (text !== null) side.append(make("p", { className: "note" }, "The page has no text."));
  return make("article", { className: "worst" }, image, side);
}

function showAddressed() {
  const match = /^#([0-9a-f]{32})\/(\d+)$/.exec(location.hash), dialog = byId("page");
  if (!match) { if (dialog.open) dialog.close(); return; }
  const index = data.documents.findIndex((one) => one[1] === match[1]);
  let row = index < 0 ? -1 : columns.document.indexOf(index);
  while (row >= 0 && row < total && columns.document[row] === index && columns.page[row] !== Number(match[2])) row += 1;
  const known = row >= 0 && row < total && columns.document[row] === index;
  byId("page-title").replaceChildren(...(known ? [make("bdi", {}, documentOf(row)[0]), `, page ${columns.page[row]}`] : ["The report has no such page"]));
  byId("page-body").replaceChildren(...(known ? [piece(row, false)] : []));
  if (!dialog.open) dialog.showModal();
}

// ---- pages of a list

function pager(nav, size, count, show) {
  let at = 0;
  const back = make("button", { type: "button" }, "Previous"), on = make("button", { type: "button" }, "Next"), place = make("span", {});
  const draw = () => {
    const last = Math.max(0, Math.ceil(count() / size) - 1);
    at = Math.min(at, last);
    back.disabled = at === 0;
    on.disabled = at === last;
    place.textContent = `${whole(at + 1)} of ${whole(last + 1)}`;
    show(at * size, Math.min(count(), (at + 1) * size));
  };
  back.onclick = () => { at -= 1; draw(); };
  on.onclick = () => { at += 1; draw(); };
  nav.replaceChildren(back, place, on);
  return (first) => { if (first) at = 0; draw(); };
}

// ---- the table

const numeric = (name) => (a, b) => columns[name][a] - columns[name][b];
const textual = (name, texts) => {
  const rank = rankOf(data[texts]);
  return (a, b) => rank[columns[name][a]] - rank[columns[name][b]];
};
function rankOf(texts) {
  const rank = new Int32Array(texts.length);
  texts.map((_, index) => index).sort((a, b) => (texts[a] < texts[b] ? -1 : 1)).forEach((index, place) => { rank[index] = place; });
  return rank;
}
const HEADINGS = [
  ["document", () => numeric("document"), (row) => make("bdi", {}, documentOf(row)[0])],
  ["page", () => numeric("page"), (row) => make("a", { href: `#${documentOf(row)[1]}/${columns.page[row]}` }, String(columns.page[row])), true],
  ["status", () => textual("state", "states"), (row) => make("span", { className: data.states[columns.state[row]] }, words(data.states[columns.state[row]]))],
  ["reason", () => textual("reason", "reasons"), (row) => data.reasons[columns.reason[row]] || (columns.flags[row] & REVIEW ? "look at it" : columns.flags[row] & BLANK ? "blank" : "")],
  ["confidence", () => numeric("confidence"), confidence, true],
  ["warnings", () => textual("warnings", "warnings"), (row) => words(data.warnings[columns.warnings[row]].replaceAll(" ", ", "))],
  ["script", () => textual("script", "scripts"), (row) => data.scripts[columns.script[row]]],
  ["language", () => textual("language", "languages"), (row) => data.languages[columns.language[row]]],
  ["words", () => numeric("words"), (row) => whole(columns.words[row]), true],
  ["seconds", () => numeric("seconds"), (row) => (columns.seconds[row] < 0 ? "" : (columns.seconds[row] / 10).toFixed(1)), true],
  ["tokens", () => numeric("tokens"), (row) => (columns.tokens[row] ? whole(columns.tokens[row]) : ""), true],
];
let rows = Int32Array.from({ length: total }, (_, row) => row), sorted = null, descending = false;

function heading([name, , , number], index) {
  const button = make("button", { type: "button", title: `Sort by ${name}` }, name);
  button.onclick = () => {
    descending = sorted === index && !descending;
    sorted = index;
    refresh();
  };
  return make("th", { className: number ? "number" : "", scope: "col" }, button);
}

function line(row) {
  const cells = HEADINGS.map(([, , cell, number]) => make("td", { className: number ? "number" : "" }, cell(row)));
  const { found } = links(row);
  return make("tr", {}, ...cells, make("td", {}, make("span", { className: "links" }, ...found.slice(0, -1))));
}

const head = byId("pages").tHead.rows[0];
head.append(...HEADINGS.map(heading), make("th", { scope: "col" }, "open"));
const drawRows = pager(byId("pager"), ROWS, () => rows.length, (from, to) => {
  byId("pages").tBodies[0].replaceChildren(...Array.from(rows.subarray(from, to), line));
});

// ---- filters

const filters = {};
function field(name, label, control) {
  filters[name] = control;
  control.name = name;
  control.oninput = refresh;
  byId("filters").append(make("label", {}, label, control));
}
function choice(name, label, texts, column, shown = (text) => text) {
  const used = new Set(columns[column]);
  const options = texts.map((text, index) => [text, index]).filter(([, index]) => used.has(index));
  const option = ([text, index]) => make("option", { value: String(index) }, text ? shown(text) : "(none)");
  field(name, label, make("select", {}, make("option", { value: "" }, "all"), ...options.map(option)));
}
field("name", "Document", make("input", { type: "search", placeholder: "part of its name" }));
choice("state", "Status", data.states, "state", words);
choice("reason", "Reason", data.reasons, "reason");
field("warning", "Warning", make("select", {}, make("option", { value: "" }, "all"), make("option", { value: "any" }, "any warning"),
  ...Object.keys(data.summary.warnings).map((code) => make("option", { value: code }, words(code)))));
field("kind", "Only", make("select", {}, make("option", { value: "" }, "all"), make("option", { value: String(REVIEW) }, "to look at"),
  make("option", { value: String(BLANK) }, "blank"), make("option", { value: String(TEXT_LAYER) }, "text layer"), make("option", { value: "none" }, "no confidence")));
choice("script", "Script", data.scripts, "script");
choice("language", "Language", data.languages, "language");
field("least", "Confidence from %", make("input", { type: "number", min: 0, max: 100, step: "any" }));
field("most", "to %", make("input", { type: "number", min: 0, max: 100, step: "any" }));
const clear = make("button", { type: "button" }, "Clear");
clear.onclick = () => only({});
byId("filters").append(clear);
byId("filters").onsubmit = (event) => event.preventDefault();

function only(values) {
  for (const [name, control] of Object.entries(filters)) control.value = values[name] ?? "";
  refresh();
  if (Object.keys(values).length) byId("pages-section").scrollIntoView();
}

function tests() {
  const wanted = [], value = (name) => filters[name].value;
  const part = value("name").trim().toLowerCase();
  if (part) {
    const named = data.documents.map((one) => one[0].toLowerCase().includes(part) || one[1] === part);
    wanted.push((row) => named[columns.document[row]]);
  }
  for (const name of ["state", "reason", "script", "language"]) {
    if (value(name) !== "") { const index = Number(value(name)); wanted.push((row) => columns[name][row] === index); }
  }
  if (value("warning")) {
    const having = data.warnings.map((codes) => (value("warning") === "any" ? codes !== "" : codes.split(" ").includes(value("warning"))));
    wanted.push((row) => having[columns.warnings[row]]);
  }
  if (value("kind") === "none") wanted.push((row) => columns.confidence[row] < 0);
  else if (value("kind")) { const flag = Number(value("kind")); wanted.push((row) => (columns.flags[row] & flag) !== 0); }
  if (value("least") !== "") { const least = Number(value("least")) * 10; wanted.push((row) => columns.confidence[row] >= least); }
  if (value("most") !== "") { const most = Number(value("most")) * 10; wanted.push((row) => columns.confidence[row] >= 0 && columns.confidence[row] <= most); }
  return wanted;
}

function refresh() {
  const wanted = tests();
  const found = [];
  for (let row = 0; row < total; row += 1) if (wanted.every((test) => test(row))) found.push(row);
  rows = Int32Array.from(found);
  if (sorted !== null) {
    const compare = HEADINGS[sorted][1]();
    rows.sort(descending ? (a, b) => compare(b, a) || a - b : (a, b) => compare(a, b) || a - b);
  }
  HEADINGS.forEach((_, index) => {
    head.cells[index].setAttribute("aria-sort", index !== sorted ? "none" : descending ? "descending" : "ascending");
    head.cells[index].firstChild.textContent = HEADINGS[index][0] + (index !== sorted ? "" : descending ? " ▼" : " ▲");
  });
  byId("found").textContent = `${whole(rows.length)} of ${whole(total)} pages`;
  drawRows(true);
}

// ---- counts

const sum = data.summary;
const done = sum.states.done ?? 0, failed = sum.states.failed ?? 0;
function card(number, label) { return make("div", { className: "card" }, make("b", {}, number), make("span", {}, label)); }
byId("title").append("Report on quality: ", make("bdi", {}, data.title));
document.title = `Report on quality: ${data.title}`;
byId("made").textContent = `Made ${data.made}. ${whole(data.documents.length)} documents, ${whole(total)} pages.`;
byId("totals").append(
  card(whole(total), "pages"), card(percent(done, total), `done (${whole(done)})`), card(whole(failed), "failed"), card(whole(sum.review), "to look at"),
  card(whole(sum.blank), "blank"), card(whole(sum.warned), "with warnings"), card(whole(sum.text_layer), "from text layers"), card(whole(sum.words), "words"));

function panel(title, ...content) { byId("counts").append(make("div", { className: "panel" }, make("h3", {}, title), ...content)); }
function bars(title, counts, of, filter, shown = words) {
  const entries = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  if (!entries.length) return;
  const most = entries[0][1], grid = make("div", { className: "bars" });
  for (const [name, count] of entries.slice(0, 30)) {
    const label = shown(name) || "(unknown)", values = filter(name);
    const button = values ? make("button", { type: "button", className: "link" }, label) : make("span", {}, label);
    if (values) button.onclick = () => only(values);
    const bar = make("div", { className: "bar" });
    bar.style.width = `${(100 * count) / most}%`;
    grid.append(button, bar, make("span", { className: "number" }, `${whole(count)} · ${percent(count, of)}`));
  }
  panel(title, grid);
}
const named = (column, texts) => (name) => ({ [column]: String(texts.indexOf(name)) });

function histogram() {
  const counts = sum.confidence, most = Math.max(1, ...counts), chart = make("div", { className: "histogram" });
  counts.forEach((count, bin) => {
    const from = (100 * bin) / counts.length, to = (100 * (bin + 1)) / counts.length, label = `${from} to ${to} %: ${whole(count)} pages`;
    const bar = make("button", { type: "button", title: label, ariaLabel: label });
    bar.style.height = count ? `max(2px, ${(100 * count) / most}%)` : "0";
    bar.disabled = !count;
    bar.onclick = () => only({ least: String(from), most: String(to), state: String(data.states.indexOf("done")) });
    chart.append(bar);
  });
  const rest = sum.no_confidence ? `${whole(sum.no_confidence)} pages have none.` : "";
  if (!counts.some((count) => count)) { panel("Confidence", make("p", { className: "note" }, "No page has one.")); return; }
  panel("Confidence of pages that are done", chart, make("div", { className: "axis" }, make("span", {}, "0 %"), make("span", {}, "50 %"), make("span", {}, "100 %")),
    make("p", { className: "note" }, `The chance that less than 5 % of a page's characters are wrong. ${rest}`));
}

function list(title, entries) {
  const shown = entries.filter(([, value]) => value !== null);
  panel(title, make("dl", {}, ...shown.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
}

bars("Status", sum.states, total, named("state", data.states));
histogram();
bars("Reasons of failures", sum.reasons, total, named("reason", data.reasons), (name) => name);
bars("Warnings about files", sum.warnings, total, (code) => ({ warning: code }));
bars("Scripts", sum.scripts, total, named("script", data.scripts));
bars("Languages", sum.languages, total, named("language", data.languages), (name) => name);
bars("Engines and models", sum.engines, total, () => null, (name) => name);
bars("Documents", sum.documents, data.documents.length, () => null);
const day = (time) => new Date(time * 1000).toISOString().slice(0, 16).replace("T", " ");
list("Throughput", sum.first === null ? [["", "There are no run records."]] : [
  ["pages ended", whole(sum.ended_by_workers)],
  ["first (UTC)", day(sum.first)],
  ["last (UTC)", day(sum.last)],
  ["time in which pages ended", lasting(sum.working_seconds)],
  ["pages an hour", whole((3600 * sum.ended_by_workers) / sum.working_seconds)],
  ["worker processes", whole(sum.workers)]]);
list("Cost", sum.first === null ? [["", "There are no run records."]] : [
  ["attempts", `${whole(sum.attempts)} (${(sum.attempts / Math.max(1, total)).toFixed(2)} a page)`],
  ["rendering", `${lasting(sum.render_seconds)} (${(sum.render_seconds / Math.max(1, total)).toFixed(2)} s a page)`],
  ["recognition", `${lasting(sum.recognise_seconds)} (${(sum.recognise_seconds / Math.max(1, total)).toFixed(2)} s a page)`],
  ["tokens", sum.tokens ? `${whole(sum.tokens)} (${whole(sum.tokens / Math.max(1, total))} a page)` : "none"]]);

// ---- worst pages, excluded sources

if (data.worst.length) {
  pager(byId("worst-pager"), SHOWN, () => data.worst.length, (from, to) => {
    byId("worst").replaceChildren(...data.worst.slice(from, to).map(([row]) => piece(row, true)));
  })(true);
} else byId("worst-section").remove();
if (data.excluded.length) {
  byId("excluded").tBodies[0].append(...data.excluded.map((texts) => make("tr", {}, ...texts.map((text) => make("td", { dir: "auto" }, text)))));
  byId("excluded-more").textContent = data.excluded.length < data.excluded_total ? `${whole(data.excluded_total - data.excluded.length)} more are in report.csv.` : "";
} else byId("excluded-section").remove();

byId("close").onclick = () => byId("page").close();
byId("page").onclose = () => { if (location.hash) history.replaceState(null, "", location.pathname + location.search); };
window.addEventListener("hashchange", showAddressed);
refresh();
showAddressed();
})();
