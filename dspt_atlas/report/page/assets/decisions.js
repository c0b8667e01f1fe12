"use strict";
const { doubts, classnames, columns, file, store } = JSON.parse(document.getElementById("data").textContent);
const PAGE = 24;
const WORDS = { right: "Right", suggested: "Take suggestion", remove: "Remove", other: "Other label" };
const KEYS = { r: "right", s: "suggested", x: "remove", o: "other" };
const cards = document.getElementById("cards");
const decisions = stored();
let show = "all", chosen = doubts, page = 0;

// Decisions by path, also those of a page with other images of the same data.
function stored() {
  try { return JSON.parse(localStorage.getItem(store)) || {}; } catch { return {}; }
}

function keep() {
  try { localStorage.setItem(store, JSON.stringify(decisions)); } catch { document.getElementById("unkept").hidden = false; }
}

function element(name, text = "", properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== "") made.textContent = text;
  return made;
}

function decide(doubt, decision, label = "") {
  const { split, given, suggested } = doubt;
  if (decision) decisions[doubt.path] = { split, given, decision, label: decision === "suggested" ? suggested : label };
  else delete decisions[doubt.path];
  keep();
  mark(doubt);
}

function cardOf(doubt) { return document.getElementById("doubt-" + doubt.rank); }

function mark(doubt) {
  const card = cardOf(doubt), own = decisions[doubt.path];
  if (card) {
    card.dataset.decision = own ? own.decision : "";
    for (const button of card.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(Boolean(own) && button.dataset.decision === own.decision));
    card.querySelector("select").value = own && own.decision === "other" ? own.label : "";
  }
  const all = Object.keys(decisions).length, count = doubts.filter(({ path }) => decisions[path]).length;
  const others = all > count ? `, and ${all - count} that are not on this page` : "";
  document.getElementById("progress").textContent = `${count} of ${doubts.length} decided${others}`;
  document.getElementById("save").disabled = all === 0;
}

function percent(value) { return (100 * value).toFixed(1) + " %"; }

function chooser(doubt) {
  const select = element("select", "", { title: "Other label" });
  select.setAttribute("aria-label", "Other label");
  const offer = (names) => {
    const { value } = select;
    select.replaceChildren(element("option", "Other label …", { value: "" }), ...names.map((name) => element("option", name, { value: name })));
    select.value = value;
  };
  const own = decisions[doubt.path];
  offer(own && own.decision === "other" ? [own.label] : []);
  // A list of a thousand names is made only when it is used.
  for (const event of ["focus", "pointerdown"]) select.addEventListener(event, () => offer(classnames), { once: true });
  select.addEventListener("change", () => {
    const name = select.value;
    decide(doubt, name === "" ? "" : name === doubt.given ? "right" : name === doubt.suggested ? "suggested" : "other", name);
  });
  return select;
}

function render(doubt) {
  const card = element("article", "", { className: "card", id: "doubt-" + doubt.rank, tabIndex: -1 });
  card.setAttribute("aria-label", `Rank ${doubt.rank}: ${doubt.file}`);
  const picture = element("div", "", { className: "thumb" });
  picture.append(element("img", "", { src: doubt.image, alt: doubt.file, loading: "lazy" }));
  const facts = element("dl");
  facts.append(element("dt", "given"), element("dd", `${doubt.given} (${percent(doubt.given_probability)})`));
  if (!doubt.alike) facts.append(element("dt", "suggested"), element("dd", `${doubt.suggested} (${percent(doubt.suggested_probability)})`));
  const buttons = element("div", "", { className: "chips" });
  for (const decision of ["right", "suggested", "remove"]) {
    if (decision === "suggested" && doubt.alike) continue;
    const button = element("button", WORDS[decision], { type: "button", className: "chip" });
    button.dataset.decision = decision;
    button.addEventListener("click", () => decide(doubt, decisions[doubt.path]?.decision === decision ? "" : decision));
    buttons.append(button);
  }
  buttons.append(chooser(doubt));
  card.append(picture, facts, element("p", `${doubt.rank} · ${doubt.split} · ${doubt.file}`, { className: "file", title: doubt.path }), buttons);
  return card;
}

function renderPage() {
  const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  const shown = chosen.slice(page * PAGE, (page + 1) * PAGE);
  cards.replaceChildren(...shown.map(render));
  shown.forEach(mark);
  document.getElementById("place").textContent = `Page ${page + 1} of ${pages}, ${chosen.length} images`;
  document.getElementById("back").disabled = page === 0;
  document.getElementById("on").disabled = page === pages - 1;
  for (const chip of document.querySelectorAll("[data-show]")) chip.setAttribute("aria-pressed", String(chip.dataset.show === show));
}

function filter(wanted) {
  show = wanted;
  chosen = doubts.filter(({ path }) => show === "all" || (show === "decided") === Boolean(decisions[path]));
  page = 0;
  renderPage();
}

function turn(by) {
  page += by;
  renderPage();
  document.getElementById("images").scrollIntoView();
}

function current() {
  const card = document.activeElement.closest(".card");
  return card ? chosen.findIndex((doubt) => "doubt-" + doubt.rank === card.id) : -1;
}

function go(number) {
  if (number < 0 || number >= chosen.length) return;
  if (Math.floor(number / PAGE) !== page) { page = Math.floor(number / PAGE); renderPage(); }
  const card = cardOf(chosen[number]);
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, at = current();
  if (key === "j" || key === "ArrowRight") go(at < 0 ? page * PAGE : at + 1);
  else if (key === "k" || key === "ArrowLeft") go(at < 0 ? page * PAGE : at - 1);
  else if (at >= 0 && key === "o") cardOf(chosen[at]).querySelector("select").focus();
  else if (at >= 0 && key === "u") decide(chosen[at], "");
  else if (at >= 0 && KEYS[key] && !(key === "s" && chosen[at].alike)) { decide(chosen[at], KEYS[key]); go(at + 1); }
  else return;
  event.preventDefault();
}

// A spreadsheet would compute a text that starts with one of these; `labels apply` takes the apostrophe away again.
function cell(text) {
  const safe = /^'*[=+\-@\t\r\n＝＋－＠]/.test(text) && Number.isNaN(Number(text)) ? "'" + text : text;
  return /[",\r\n]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
}

function table() {
  const rows = Object.entries(decisions).map(([path, { split, given, decision, label }]) => [split, path, given, decision, label]);
  return [columns, ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
}

function save() {
  const link = element("a", "", { href: URL.createObjectURL(new Blob([table()], { type: "text/csv" })), download: file });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

for (const chip of document.querySelectorAll("[data-show]")) chip.addEventListener("click", () => filter(chip.dataset.show));
document.getElementById("save").addEventListener("click", save);
document.getElementById("back").addEventListener("click", () => turn(-1));
document.getElementById("on").addEventListener("click", () => turn(1));
addEventListener("keydown", press);
renderPage();
keep();
