"use strict";
// Everything that comes from data is put into the page as text, never as HTML.

const $ = (id) => document.getElementById(id);
const FILTERS = ["dataset", "licence", "min", "max"];
const PAGE = 20;
const EXAMPLE = $("words").placeholder;
const PATIENCE_MS = 700; // before the page says that it searches
const names = new Map(); // what chosen sounds are called, by "sound=NAME" or "like=ROW"
let hits = [];
let here = -1; // the chosen hit
let turn = 0; // the newest search; answers to older ones are dropped

// ---- what is asked for: the address of the page holds all of it ----

function asked() {
  return new URLSearchParams(location.search);
}

function go(change, replace = false) {
  const ask = asked();
  change(ask);
  for (const [key, value] of [...ask]) if (!value.trim()) ask.delete(key, value);
  if (ask.toString() === asked().toString() && hits.length) return;
  const address = ask.size ? "?" + ask.toString() : location.pathname;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  show();
}

function submit() {
  go((ask) => {
    ask.delete("top");
    for (const [key, value] of [["q", $("words").value.trim()], ...FILTERS.map((name) => [name, $(name).value])]) {
      if (value) ask.set(key, value); else ask.delete(key);
    }
  });
}

async function show() {
  const ask = asked(), mine = ++turn;
  $("words").value = ask.get("q") || "";
  for (const name of FILTERS) {
    choose($(name), ask.get(name) || "");
    $(name).classList.toggle("set", ask.has(name));
  }
  chips(ask);
  const something = ask.has("q") || ask.has("sound") || ask.has("like");
  document.body.classList.toggle("searched", something);
  $("examples").hidden = something || !$("examples").children.length;
  $("filters").hidden = !something;
  document.title = (ask.get("q") ? ask.get("q") + " · " : "") + "Earshot";
  if (!something) {
    hits = [];
    say("");
    $("hits").replaceChildren();
    $("more").hidden = true;
    return;
  }
  document.body.classList.add("busy");
  const waiting = setTimeout(() => mine === turn && say("Searching…"), PATIENCE_MS);
  try {
    const found = await answer(fetch("/api/search?" + ask));
    if (mine !== turn) return;
    present(found, Number(ask.get("top") || PAGE));
  } catch (error) {
    if (mine !== turn) return;
    hits = [];
    $("hits").replaceChildren();
    $("more").hidden = true;
    say(error.message, true);
  } finally {
    clearTimeout(waiting);
    if (mine === turn) document.body.classList.remove("busy");
  }
}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Error("The page's program does not answer. Has it ended?");
  }
  const found = await response.json().catch(() => ({ error: "The page's program failed; its terminal says why." }));
  if (!response.ok) throw new Error(sentence(found.error || response.statusText));
  return found;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

function choose(field, value) {
  if (field.tagName === "SELECT" && value && ![...field.options].some((one) => one.value === value)) {
    field.add(new Option(value, value));
  }
  field.value = value;
}

// ---- hits ----

function present(found, top) {
  const before = hits.length && here >= 0 ? hits[here].entry : null;
  hits = found.hits;
  const list = document.createDocumentFragment();
  const best = Math.max(...hits.map((hit) => hit.score), 1e-9);
  hits.forEach((hit, number) => list.append(card(hit, number, best)));
  stop();
  $("hits").replaceChildren(list);
  here = -1;
  for (const hit of hits) {
    if (!names.has(`like=${hit.entry}`)) names.set(`like=${hit.entry}`, hit.captions[0] || hit.clip_id);
  }
  chips(asked());
  const kept = hits.findIndex((hit) => hit.entry === before);
  if (kept >= 0) select(kept, false);
  $("more").hidden = hits.length < top || top >= 200;
  const without = found.without.length ? ", without " + found.without.join(" and ") : "";
  const places = hits.length === 1 ? "1 place" : hits.length + " places";
  say(hits.length ? `${places}${without}, in ${Math.max(1, Math.round(1000 * found.seconds))} ms`
    : "No recording passes the filters.");
}

function card(hit, number, best) {
  const item = $("hit").content.firstElementChild.cloneNode(true);
  const part = (name) => item.querySelector(name);
  part(".caption").textContent = hit.captions[0] || "No caption";
  part(".caption").title = hit.captions.slice(1).join("\n");
  part(".score b").textContent = hit.score.toFixed(3);
  part(".score i").style.setProperty("--share", Math.round(100 * Math.max(0, hit.score / best)) + "%");
  const whole = hit.start_s < 0.05 && hit.end_s > hit.recording_s - 0.05;
  const total = clock(hit.recording_s);
  part(".place").textContent = whole ? total : `${clock(hit.start_s)} – ${clock(hit.end_s)} of ${total}`;
  part(".source").textContent = `${hit.dataset} / ${hit.split}`;
  part(".licence").textContent = hit.licence || "";
  const path = hit.path || hit.clip_id;
  part("code").textContent = "\u2066" + path + "\u2069"; // shown from left to right, though the end is what stays visible
  part("code").title = path;
  const audio = part("audio");
  audio.src = `/sound/${hit.entry}`;
  part(".play").addEventListener("click", () => { select(number, false); toggle(number); });
  part(".copy").addEventListener("click", () => copy(number));
  part(".like").addEventListener("click", () => like(number));
  part(".picture").addEventListener("click", (event) => {
    const box = part(".picture").getBoundingClientRect();
    select(number, false);
    play(number, ((event.clientX - box.left) / box.width) * length(number));
  });
  item.addEventListener("pointerdown", () => select(number, false));
  audio.addEventListener("timeupdate", () => follow(number));
  audio.addEventListener("pause", () => item.classList.remove("playing"));
  audio.addEventListener("ended", () => item.classList.remove("playing"));
  audio.addEventListener("error", () => say("This sound cannot be played.", true));
  whenSeen(item, () => paint(hit, item));
  return item;
}

function clock(seconds) {
  const whole = Math.max(0, seconds);
  const rest = (whole % 60).toFixed(whole < 60 && whole % 1 ? 1 : 0).padStart(whole % 1 && whole < 60 ? 4 : 2, "0");
  const minutes = Math.floor(whole / 60);
  if (rest === "60") return clock(Math.round(whole));
  return minutes >= 60
    ? `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    watcher.unobserve(entry.target);
    entry.target.seen();
  }
}, { rootMargin: "300px" });

function whenSeen(item, action) {
  item.seen = action;
  watcher.observe(item);
}

// ---- spectrograms, in the colours of the page ----

const colours = () => {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).split(",").map(Number);
  return [read("--low"), read("--high")];
};

async function paint(hit, item) {
  if (!hit.spectrum) {
    const response = await fetch(`/spectrum/${hit.entry}`);
    if (!response.ok) return;
    hit.bands = Number(response.headers.get("X-Bands"));
    hit.spectrum = new Uint8Array(await response.arrayBuffer());
  }
  const width = hit.spectrum.length / hit.bands, canvas = item.querySelector("canvas");
  canvas.width = width;
  canvas.height = hit.bands;
  const context = canvas.getContext("2d"), image = context.createImageData(width, hit.bands), [low, high] = colours();
  for (let i = 0; i < hit.spectrum.length; i++) {
    const level = hit.spectrum[i] / 255, mix = level ** 1.6;
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = low[c] + (high[c] - low[c]) * mix;
    image.data[4 * i + 3] = 255 * Math.min(1, 0.06 + level ** 1.8);
  }
  context.putImageData(image, 0, 0);
  const total = hit.sample_s;
  item.querySelector(".before").style.width = share(hit.from_s / total);
  item.querySelector(".after").style.width = share(1 - Math.min(hit.to_s, total) / total);
  for (const side of [".before", ".after"]) {
    item.querySelector(side).hidden = parseFloat(item.querySelector(side).style.width) < 0.5;
  }
}

const share = (part) => (100 * Math.min(1, Math.max(0, part))).toFixed(2) + "%";

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  [...$("hits").children].forEach((item, number) => hits[number].spectrum && paint(hits[number], item));
});

// ---- playing ----

const item = (number) => $("hits").children[number];
const player = (number) => item(number).querySelector("audio");
const length = (number) => hits[number].sample_s;

function stop(but = -1) {
  [...$("hits").children].forEach((other, number) => { if (number !== but) other.querySelector("audio").pause(); });
}

function toggle(number) {
  const audio = player(number);
  if (!audio.paused) audio.pause();
  else play(number, audio.currentTime > hits[number].from_s && !audio.ended ? audio.currentTime : hits[number].from_s);
}

async function play(number, from) {
  const audio = player(number), hit = hits[number];
  stop(number);
  hit.until = from < hit.to_s - 0.1 ? hit.to_s : Infinity; // beyond the hit, it plays on
  if (audio.readyState < 1) {
    audio.preload = "auto";
    audio.load();
    await new Promise((resolve) => audio.addEventListener("loadedmetadata", resolve, { once: true }));
  }
  audio.currentTime = Math.min(from, Math.max(0, audio.duration - 0.05));
  item(number).classList.add("playing");
  try {
    await audio.play();
  } catch {
    item(number).classList.remove("playing");
  }
}

function follow(number) {
  if (number >= hits.length || !item(number)) return;
  const audio = player(number);
  item(number).querySelector(".head").style.left = share(audio.currentTime / length(number));
  if (audio.currentTime >= hits[number].until) {
    audio.pause();
    audio.currentTime = hits[number].from_s;
  }
}

// ---- choosing, copying, more like this ----

function select(number, scroll = true) {
  if (!hits.length) return;
  here = Math.max(0, Math.min(hits.length - 1, number));
  [...$("hits").children].forEach((one, other) => one.classList.toggle("here", other === here));
  if (scroll) {
    item(here).focus({ preventScroll: true });
    item(here).scrollIntoView({ block: "nearest", behavior: "smooth" });
  }
}

async function copy(number) {
  const path = hits[number].path || hits[number].clip_id, button = item(number).querySelector(".copy");
  try {
    await navigator.clipboard.writeText(path);
  } catch { // pages that are not served from this machine have no clipboard
    const area = document.createElement("textarea");
    area.value = path;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "copied";
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}

function like(number) {
  const hit = hits[number];
  names.set(`like=${hit.entry}`, hit.captions[0] || hit.clip_id);
  here = -1;
  scrollTo({ top: 0, behavior: "smooth" });
  go((ask) => {
    for (const key of ["q", "sound", "like", "top"]) ask.delete(key);
    ask.set("like", hit.entry);
  });
}

function chips(ask) {
  const shown = [...ask].filter(([key]) => key === "sound" || key === "like").map(([key, value]) => {
    const chip = document.createElement("li"), text = document.createElement("span"), close = document.createElement("button");
    const name = names.get(`${key}=${value}`) || (key === "like" ? `sound ${value} of the index` : "a dropped sound");
    text.textContent = `like: ${name}`;
    text.title = name;
    close.textContent = "×";
    close.type = "button";
    close.setAttribute("aria-label", `not like ${name}`);
    close.addEventListener("click", () => go((now) => now.delete(key, value)));
    chip.append(text, close);
    return chip;
  });
  $("chosen").replaceChildren(...shown);
  $("words").placeholder = shown.length ? "and words, if you like" : EXAMPLE;
}

async function bring(file) {
  if (!file) return;
  say(`Listening to ${file.name} …`);
  try {
    const { sound } = await answer(fetch("/api/sounds", { method: "POST", body: file }));
    names.set(`sound=${sound}`, file.name);
    go((ask) => {
      for (const key of ["q", "sound", "like", "top"]) ask.delete(key);
      ask.set("sound", sound);
    });
  } catch (error) {
    say(error.message, true);
  }
}

// ---- events ----

$("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
for (const name of FILTERS) $(name).addEventListener("change", submit);
$("file").addEventListener("change", () => { bring($("file").files[0]); $("file").value = ""; });
$("more").firstElementChild.addEventListener("click", () => {
  go((ask) => ask.set("top", Math.min(200, Number(ask.get("top") || PAGE) + PAGE)), true);
});
addEventListener("popstate", show);

let depth = 0;
addEventListener("dragenter", (event) => { event.preventDefault(); depth++; $("drop").hidden = false; });
addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) $("drop").hidden = true; });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  $("drop").hidden = true;
  bring(event.dataTransfer.files[0]);
});

addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.key === "Escape") { document.activeElement.blur(); stop(); return; }
  if (event.key === "Enter" && event.target === $("words")) {
    event.preventDefault();
    submit();
    return;
  }
  if (event.key === "ArrowDown" && hits.length && (!typing || event.target === $("words"))) {
    event.preventDefault();
    $("words").blur();
    select(here + 1);
    return;
  }
  if (typing) return;
  if (event.key === "/") { event.preventDefault(); $("words").focus(); $("words").select(); return; }
  if (!hits.length) return;
  const actions = {
    ArrowUp: () => (here <= 0 ? ($("words").focus(), scrollTo({ top: 0 })) : select(here - 1)),
    " ": () => { if (here < 0) select(0); toggle(here); },
    m: () => here >= 0 && like(here),
    c: () => here >= 0 && copy(here),
  };
  if (actions[event.key] && !(event.target.tagName === "BUTTON" && event.key === " ")) {
    event.preventDefault();
    actions[event.key]();
  }
});

// ---- beginning ----

async function begin() {
  try {
    const about = await answer(fetch("/api/about"));
    $("holdings").textContent = about.holdings;
    const places = about.splits.length > about.datasets.length ? [...about.datasets, ...about.splits].sort() : about.datasets;
    for (const name of places) $("dataset").add(new Option(name, name));
    for (const name of about.licences) $("licence").add(new Option(name, name));
    for (const text of about.examples) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.addEventListener("click", () => go((ask) => ask.set("q", text)));
      $("examples").append(button);
    }
    show();
  } catch (error) {
    say(error.message, true);
  }
  if (!asked().size) $("words").focus();
}

begin();
