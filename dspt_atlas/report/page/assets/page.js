"use strict";
const { columns, numeric, rows, refresh } = JSON.parse(document.getElementById("data").textContent);
const PAGE = 100, CHUNK = 100, FOLDER = columns.length - 1;
const STORE = "dspt-atlas-report " + location.pathname;
const list = document.getElementById("list"), filter = document.getElementById("filter");
const collator = new Intl.Collator("en", { numeric: true });
const texts = rows.map((row) => row.join(" ").toLowerCase());
const chunks = new Map();
const state = { sorts: {}, words: "", wanted: "", shown: PAGE, open: [], scroll: [0, 0], sideways: [], focus: null, ...stored() };

function stored() {
  try { return JSON.parse(sessionStorage.getItem(STORE)) || {}; } catch { return {}; }
}

function element(name, text = "", properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== "") made.textContent = text;
  return made;
}

// Empty values stay last in both directions.
function compare(a, b, ascending) {
  const [none, other] = [a, b].map((value) => value === null || value === "");
  if (none || other) return none - other;
  const order = typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b);
  return ascending ? order : -order;
}

function sortResults(table, column, ascending) {
  const value = (row) => {
    const { value } = row.cells[column].dataset;
    return value === undefined ? row.cells[column].textContent : value === "" ? null : Number(value);
  };
  const sorted = [...table.tBodies[0].rows].sort((a, b) => compare(value(a), value(b), ascending));
  table.tBodies[0].append(...sorted);
}

function showSort(table, column, ascending) {
  for (const [number, head] of [...table.tHead.rows[0].cells].entries())
    head.setAttribute("aria-sort", number !== column ? "none" : ascending ? "ascending" : "descending");
}

function sortTable(table, name, column, ascending) {
  if (!table.tHead.rows[0].cells[column]) return;
  state.sorts[name] = [column, ascending];
  showSort(table, column, ascending);
  if (table !== list) sortResults(table, column, ascending);
}

function nameOf(table) {
  return table === list ? "runs" : document.getElementById(table.getAttribute("aria-labelledby")).textContent;
}

function found() {
  const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = [...rows.keys()].filter(
    (run) => (!state.wanted || rows[run][0] === state.wanted) && words.every((word) => texts[run].includes(word)));
  const [column, ascending] = state.sorts.runs || [];
  if (column !== undefined && column < columns.length) chosen.sort((a, b) => compare(rows[a][column], rows[b][column], ascending));
  return chosen;
}

function textOf(value, column) {
  if (value === null || value === undefined) return "–";
  return ["accuracy", "macro F1", "seconds"].includes(columns[column]) && typeof value === "number" ? value.toFixed(1) : String(value);
}

function renderRow(run) {
  const line = element("tr", "", { className: "run" });
  for (const [column, value] of rows[run].entries()) {
    const cell = element("td", column ? textOf(value, column) : "", { className: numeric.includes(columns[column]) ? "number" : "" });
    if (!column) {
      const toggle = element("button", value, { type: "button", className: value, id: "run-" + run });
      toggle.setAttribute("aria-expanded", "false");
      toggle.setAttribute("aria-label", `${value}: details of ${rows[run][FOLDER]}`);
      cell.append(toggle);
    }
    line.append(cell);
  }
  line.addEventListener("click", () => { if (!getSelection().toString()) toggleRun(run, line); });
  return line;
}

function renderList() {
  const chosen = found(), shown = chosen.slice(0, state.shown), more = document.getElementById("more");
  const lines = shown.map(renderRow);
  list.tBodies[0].replaceChildren(...lines);
  document.getElementById("shown").textContent = `${shown.length} of ${chosen.length} shown, ${rows.length} in all`;
  more.hidden = shown.length === chosen.length;
  const open = new Set(state.open);
  return Promise.all(shown.map((run, number) => open.has(rows[run][FOLDER]) && openRun(run, lines[number])));
}

// Runs are compressed by the hundred; only those that are opened are ever unpacked.
async function detailsOf(run) {
  const number = Math.floor(run / CHUNK);
  if (!chunks.has(number)) {
    const packed = atob(document.getElementById("details-" + number).textContent);
    const stream = new Blob([Uint8Array.from(packed, (letter) => letter.charCodeAt(0))]).stream();
    chunks.set(number, new Response(stream.pipeThrough(new DecompressionStream("deflate"))).json());
  }
  return (await chunks.get(number))[run % CHUNK];
}

function renderTable({ columns, rows }) {
  const table = element("table"), head = element("tr"), body = element("tbody");
  head.append(...columns.map((name) => element("th", name, { scope: "col" })));
  for (const row of rows) {
    const line = element("tr");
    line.append(...row.map((value) => element("td", value)));
    body.append(line);
  }
  const top = element("thead"), scroll = element("div", "", { className: "scroll", tabIndex: 0 });
  top.append(head);
  table.append(top, body);
  scroll.append(table);
  return scroll;
}

function renderSection(section) {
  const part = element("div", "", { className: "part" });
  const definitions = element("dl");
  for (const [name, value] of section.values) definitions.append(element("dt", name), element("dd", value));
  if (section.values.length > 25) {
    const fold = element("details");
    fold.append(element("summary", `${section.title} (${section.values.length} keys)`), definitions);
    part.classList.add("long");
    part.append(fold);
  } else part.append(element("h4", section.title), definitions);
  return part;
}

function renderDetails({ sections, note, log }) {
  const inner = element("div", "", { className: "inner" }), parts = element("div", "", { className: "parts" });
  if (note) inner.append(element("p", note, { className: "note" }));
  for (const section of sections) if (!section.columns && section.values.length) parts.append(renderSection(section));
  inner.append(parts);
  for (const section of sections) if (section.columns) inner.append(element("h4", section.title), renderTable(section));
  if (log) inner.append(element("h4", "Last lines of the log"), element("pre", log, { tabIndex: 0 }));
  return inner;
}

async function openRun(run, line) {
  const row = element("tr", "", { className: "details", id: "details-of-" + run }), cell = element("td", "", { colSpan: columns.length });
  const toggle = line.querySelector("button");
  toggle.setAttribute("aria-expanded", "true");
  toggle.setAttribute("aria-controls", row.id);
  row.append(cell);
  line.after(row);
  try { cell.append(renderDetails(await detailsOf(run))); } catch (error) {
    cell.append(element("p", `These details cannot be shown by this browser (${error.message}); a current one can.`));
  }
}

function toggleRun(run, line) {
  const folder = rows[run][FOLDER], row = document.getElementById("details-of-" + run);
  if (row) {
    row.remove();
    line.querySelector("button").setAttribute("aria-expanded", "false");
    state.open = state.open.filter((name) => name !== folder);
  } else {
    state.open.push(folder);
    openRun(run, line);
  }
}

function showChips() {
  for (const chip of document.querySelectorAll(".chip")) chip.setAttribute("aria-pressed", String(chip.dataset.state === state.wanted));
}

function watchControls() {
  for (const table of document.querySelectorAll("main table")) {
    const name = nameOf(table);
    if (state.sorts[name]) sortTable(table, name, ...state.sorts[name]);
    table.tHead.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const column = Number(button.dataset.column), head = button.parentElement;
      const before = head.getAttribute("aria-sort");
      // Numbers start with the largest, texts with the first.
      sortTable(table, name, column, before === "none" ? !head.classList.contains("number") : before === "descending");
      if (table === list) renderList();
    });
  }
  if (!list) return;
  filter.value = state.words;
  showChips();
  filter.addEventListener("input", () => { state.words = filter.value; state.shown = PAGE; renderList(); });
  for (const chip of document.querySelectorAll(".chip"))
    chip.addEventListener("click", () => {
      state.wanted = state.wanted === chip.dataset.state ? "" : chip.dataset.state;
      state.shown = PAGE;
      showChips();
      renderList();
    });
  document.getElementById("more").addEventListener("click", () => { state.shown += PAGE; renderList(); });
}

// A button of the list is found again by its run's folder, since runs may have been added before it.
function focusKey(focused) {
  const run = /^run-(\d+)$/.exec(focused.id);
  return run ? { folder: rows[Number(run[1])][FOLDER] } : focused.id ? { id: focused.id } : null;
}

function remember() {
  state.scroll = [scrollX, scrollY];
  state.sideways = [...document.querySelectorAll("section > .scroll")].map((part) => part.scrollLeft);
  state.focus = focusKey(document.activeElement);
  state.missing = [...document.querySelectorAll(".missing")].map((part) => part.open);
  try { sessionStorage.setItem(STORE, JSON.stringify(state)); } catch { /* without storage the page starts anew */ }
}

function restore() {
  for (const [number, left] of state.sideways.entries()) {
    const part = document.querySelectorAll("section > .scroll")[number];
    if (part) part.scrollLeft = left;
  }
  for (const [number, part] of document.querySelectorAll(".missing").entries()) part.open = Boolean(state.missing?.[number]);
  const { folder, id } = state.focus || {};
  const run = folder === undefined ? -1 : rows.findIndex((row) => row[FOLDER] === folder);
  document.getElementById(id || "run-" + run)?.focus({ preventScroll: true });
  if (state.scroll[1] || !location.hash) scrollTo(...state.scroll);
}

// Never under a reader's selection.
function reload() {
  if (getSelection().toString()) setTimeout(reload, 1000);
  else location.reload();
}

history.scrollRestoration = "manual";
watchControls();
(list ? renderList() : Promise.resolve()).then(restore);
addEventListener("pagehide", remember);
if (refresh) setTimeout(reload, refresh * 1000);
