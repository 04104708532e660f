// Keeps a page true without a reload. The server renders everything; this swaps in what changed.
//
// The stream only says that something changed. What it looks like is fetched as HTML that the
// server escaped, and merged into the page so that focus, scroll and open menus stay. Fetches are
// debounced, and slow down when the server needs long for one.

const root = document.documentElement;
const page = document.body.dataset.page;
const skew = Date.now() / 1000 - Number(root.dataset.now);
const $ = (id) => document.getElementById(id);

const FIRST_MS = 80; // an isolated change is shown at once
const PACE_MS = 500; // a steady flow, twice a second at most
const SENTENCES_MS = 30_000; // sentences hold relative times
const ROWS_AT_ONCE = 24;

// -- merging ------------------------------------------------------------------------------------

const keyOf = (node) => node.dataset?.key || node.id || null;

function merge(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.dataset.keep !== undefined || old.isEqualNode(fresh)) return;
  const keepsOpen = old.nodeName === "DETAILS";
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(keepsOpen && name === "open")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.nodeName !== "INPUT") mergeChildren(old, fresh);
}

function mergeChildren(old, fresh) {
  const wanted = new Set([...fresh.children].map(keyOf).filter(Boolean));
  const known = new Map();
  for (const child of [...old.children]) {
    const key = keyOf(child);
    if (!key) continue;
    if (wanted.has(key)) known.set(key, child);
    else child.remove();
  }
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = keyOf(child);
    const match = key ? known.get(key) : at && !keyOf(at) && at.nodeName === child.nodeName ? at : null;
    if (!match) {
      old.insertBefore(child, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else if (old.moveBefore) old.moveBefore(match, at); // keeps focus and animations
    else old.insertBefore(match, at);
    merge(match, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function keepingFocus(change) {
  const held = document.activeElement;
  change();
  if (held && held !== document.activeElement && held.isConnected) held.focus({ preventScroll: true });
}

// -- fetching -----------------------------------------------------------------------------------

async function load(url) {
  const answer = await fetch(url, { headers: { Accept: "text/html" } });
  if (new URL(answer.url).pathname === "/login" || answer.status === 401) {
    location.assign("/login");
    throw new Error("signed out");
  }
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

const stale = { all: false, summary: false, incidents: false, agents: new Set() };
let timer = 0;
let lastEnd = 0;
let pace = PACE_MS;

function schedule() {
  if (timer) return;
  const wait = Math.max(FIRST_MS, lastEnd + pace - performance.now());
  timer = setTimeout(refresh, wait);
}

async function refresh() {
  const began = performance.now();
  try {
    await (page === "fleet" ? refreshFleet() : refreshPage());
  } catch {
    stale.all = true; // the stream tells when the hub is back; then everything is fetched
  }
  lastEnd = performance.now();
  pace = Math.max(PACE_MS, 8 * (lastEnd - began));
  timer = 0;
  const again = document.hidden ? stale.summary : stale.all || stale.summary || stale.agents.size;
  if (again && connected) schedule();
}

async function refreshFleet() {
  // a hidden page keeps only its title and icon true
  const all = stale.all && !document.hidden;
  const names = document.hidden ? [] : [...stale.agents];
  let whole = all || names.length > ROWS_AT_ONCE;
  const wantIncidents = (all || stale.incidents) && !document.hidden;
  if (all) stale.all = false;
  if (!document.hidden) stale.agents.clear();
  if (wantIncidents) stale.incidents = false;
  stale.summary = false;
  const rows = new URLSearchParams(names.map((name) => ["name", name]));
  let [summary, incidents, agents] = await Promise.all([
    load("/fragments/summary"),
    wantIncidents ? load("/fragments/incidents") : null,
    whole ? load("/fragments/agents") : names.length ? load(`/fragments/agents?${rows}`) : null,
  ]);
  if (agents && !whole && moved(agents)) {
    whole = true; // order is the server's matter
    agents = await load("/fragments/agents");
  }
  keepingFocus(() => {
    swap(summary, "summary");
    if (incidents) swap(incidents, "incidents");
    if (whole) swap(agents, "agents");
    else if (agents) swapRows(agents);
    filter();
  });
  tellCount($("summary").dataset);
}

function swap(from, id) {
  const fresh = from.getElementById(id);
  if (fresh) merge($(id), fresh);
}

const rowsOf = (where) => [...where.querySelectorAll("li.agent")];
const rowsHere = () => new Map(rowsOf(document).map((row) => [row.dataset.agent, row]));

/** Tells whether an agent is new, or has changed its place. */
function moved(from) {
  const here = rowsHere();
  return rowsOf(from).some((fresh) => here.get(fresh.dataset.agent)?.dataset.rank !== fresh.dataset.rank);
}

function swapRows(from) {
  const here = rowsHere();
  for (const fresh of rowsOf(from)) merge(here.get(fresh.dataset.agent), fresh);
}

async function refreshPage() {
  if (document.hidden) return;
  stale.all = stale.summary = stale.incidents = false;
  stale.agents.clear();
  const from = await load(location.href);
  keepingFocus(() => {
    swap(from, "main");
    swap(from, "open-count");
  });
  document.title = from.title;
  const icon = from.getElementById("icon");
  if (icon) $("icon").href = icon.getAttribute("href");
  showOutput();
}

function tellCount({ open, worst }) {
  const name = document.title.replace(/^\(\d+\) /, "");
  document.title = open === "0" ? name : `(${open}) ${name}`;
  const icon = $("icon");
  if (!icon.href.endsWith(icon.dataset[worst])) icon.href = icon.dataset[worst];
  const tally = $("open-count");
  tally.hidden = open === "0";
  tally.dataset.worst = worst;
  tally.firstChild.data = open;
}

// -- the stream ---------------------------------------------------------------------------------

let connected = false;
let source = null;
let retry = 0;

const on = {
  fleet: ({ agent }) => touch(agent, true),
  beat: ({ agent }) => touch(agent, false),
  incident: (incident) => {
    stale.incidents = stale.summary = true;
    if (incident.state === "open") speak(incident);
    touch(incident.agent, true);
  },
  resync: () => {
    stale.all = true;
    schedule();
  },
};

function touch(agent, summary) {
  const about = document.querySelector("[data-of]")?.dataset.of;
  if (about !== undefined && agent !== about) return;
  if (page === "incidents" || page === "incident") {
    if (!stale.incidents) return;
  } else if (page !== "fleet" && page !== "agent") return;
  if (agent) stale.agents.add(agent);
  if (summary || page === "agent") stale.summary = true;
  schedule();
}

function follow() {
  source = new EventSource("/api/stream");
  for (const [topic, handle] of Object.entries(on)) {
    source.addEventListener(topic, (event) => {
      let data = {};
      try {
        data = JSON.parse(event.data) ?? {};
      } catch {
        data = {}; // an update that cannot be read is still an update
        stale.all = true;
      }
      handle(data);
    });
  }
  source.onopen = () => {
    const wasLost = !$("lost").hidden;
    connected = true;
    retry = 0;
    $("lost").hidden = true;
    pulse();
    if (wasLost) on.resync();
  };
  source.onerror = () => {
    if (connected || $("lost").hidden) {
      $("lost").textContent = `Connection lost at ${hour(new Date())}. What you see is from then; trying again.`;
      $("lost").hidden = false;
    }
    connected = false;
    pulse();
    if (source.readyState === EventSource.CLOSED) {
      source.close();
      load("/fragments/summary").catch(() => {}); // leads to the login page when signed out
      retry = Math.min(retry + 1, 6);
      setTimeout(follow, 500 * 2 ** retry);
    }
  };
}

const hour = (date) => {
  const how = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  try {
    return date.toLocaleTimeString("en-GB", { ...how, timeZone: root.dataset.zone });
  } catch {
    return date.toLocaleTimeString("en-GB", how);
  }
};

function pulse() {
  const mark = $("pulse");
  mark.dataset.live = connected ? "yes" : "no";
  mark.textContent = connected ? `Live · ${hour(new Date(Date.now() - skew * 1000))}` : "Not live";
}

const spoken = new Set([...document.querySelectorAll(".incident")].map((item) => item.dataset.key));

function speak({ id, severity, sentence }) {
  if (spoken.has(`incident-${id}`)) return;
  spoken.add(`incident-${id}`);
  $("spoken").textContent = `${severity}: ${sentence}`;
}

// -- times, in the words of words.py ------------------------------------------------------------

function ago(seconds) {
  const far = Math.abs(seconds);
  if (far < 5) return "just now";
  const [size, unit] = [[86_400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]].find(([s]) => far >= s);
  const count = unit === "second" ? Math.round(far) : Math.floor(far / size);
  const words = `${count} ${unit}${count === 1 ? "" : "s"}`;
  return seconds > 0 ? `${words} ago` : `in ${words}`;
}

function tick() {
  const now = Date.now() / 1000 - skew;
  for (const time of document.querySelectorAll("time[data-age]")) {
    const words = ago(now - Date.parse(time.dateTime) / 1000);
    const text = time.dataset.age === "span" ? words.replace(/ ago$/, "") : words;
    if (time.textContent !== text) time.textContent = text;
  }
  if (connected) pulse();
}

// -- deeds --------------------------------------------------------------------------------------

async function sure(form) {
  if (form.dataset.ask === undefined) return true;
  const dialog = $("ask");
  const button = form.querySelector("button");
  $("ask-title").textContent = `${button.textContent}?`; // "Stop inbox?"
  $("ask-outcome").textContent = button.title;
  $("ask-yes").textContent = button.firstChild.data;
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  return dialog.returnValue === "yes";
}

async function act(form) {
  if (!(await sure(form))) return;
  const button = form.querySelector("button");
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(form.dataset.post, { method: "POST", headers: { Accept: "application/json" } });
    if (answer.status === 401) return location.assign("/login");
    const told = await answer.json().catch(() => ({}));
    const first = Array.isArray(told) ? told[0] : told;
    if (answer.ok) say(form.dataset.done ?? `${first?.agent ?? ""}: ${first?.result ?? "done"}.`);
    else say(first?.detail ?? first?.title ?? `That did not work (${answer.status}).`, true);
  } catch {
    say("The hub did not answer. Try again when the connection is back.", true);
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
    form.closest("details")?.removeAttribute("open");
    on.resync();
  }
}

let quiet = 0;

function say(text, bad = false) {
  $("said").textContent = text;
  $("said").classList.toggle("bad", bad);
  clearTimeout(quiet);
  quiet = setTimeout(() => ($("said").textContent = ""), bad ? 15_000 : 6000);
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.post) {
    event.preventDefault();
    act(form);
  } else if (form.matches(".filter")) event.preventDefault();
});

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  const menu = document.querySelector("details.menu[open]");
  if (event.key === "Escape" && menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  } else if (event.key === "/" && $("q") && !event.target.closest("input, textarea, dialog")) {
    event.preventDefault();
    $("q").focus();
  }
});

// -- filter and output --------------------------------------------------------------------------

function filter() {
  const field = $("q");
  if (!field) return;
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const group of document.querySelectorAll(".group")) {
    let here = 0;
    const name = group.querySelector("h2")?.firstChild?.data ?? "";
    for (const row of group.querySelectorAll("li.agent")) {
      const text = `${name} ${row.querySelector(".state").textContent} ${row.querySelector(".says").textContent}`;
      const found = words.every((word) => text.toLowerCase().includes(word));
      row.hidden = !found;
      if (found) here += 1;
    }
    group.hidden = !here;
    shown += here;
  }
  const none = $("none-found");
  if (none) none.hidden = shown > 0;
}

$("q")?.addEventListener("input", () => {
  filter();
  const url = new URL(location.href);
  if ($("q").value) url.searchParams.set("q", $("q").value);
  else url.searchParams.delete("q");
  history.replaceState(null, "", url);
});

const COLOURS = /\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007]*\u0007/g;

async function showOutput() {
  const box = $("output");
  if (!box || document.hidden) return;
  const text = box.firstElementChild;
  try {
    const answer = await fetch(box.dataset.logs);
    if (!answer.ok) return;
    let lines = await answer.text();
    if (answer.headers.get("content-type")?.includes("json")) {
      const read = JSON.parse(lines);
      const list = Array.isArray(read) ? read : read.lines ?? [];
      lines = list.map((line) => (typeof line === "string" ? line : line.text ?? line.line ?? "")).join("\n");
    }
    lines = lines.replace(COLOURS, "").trimEnd() || "No output yet.";
    if (text.textContent === lines) return;
    const atEnd = text.hidden || text.scrollTop + text.clientHeight >= text.scrollHeight - 8;
    text.hidden = false;
    text.textContent = lines;
    if (atEnd) text.scrollTop = text.scrollHeight;
  } catch {
    // shown again with the next update
  }
}

// -- start --------------------------------------------------------------------------------------

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    tick();
    on.resync();
  }
});
setInterval(tick, 1000);
setInterval(() => page === "fleet" && !document.hidden && connected && on.resync(), SENTENCES_MS);
setInterval(showOutput, 5000);
showOutput();
tick();
if (page !== "ask") follow();
