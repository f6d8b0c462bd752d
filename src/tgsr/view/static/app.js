// The page: a list of questions, and one of them with its sound, spans and responses. All text from files and models is
// set as text, never as markup.

import Regions from "./vendor/regions.esm.js";
import Spectrogram from "./vendor/spectrogram.esm.js";
import Timeline from "./vendor/timeline.esm.js";
import WaveSurfer from "./vendor/wavesurfer.esm.js";
import { setUpAsk } from "./ask.js";

const SHORT = 120; // seconds: longer clips are streamed, with the server's peaks and without a spectrogram
const PAGE = 50;
const LETTERS = "abcdefghijklmnopqrstuvwxyz";
const meta = (name) => document.querySelector(`meta[name="tgsr-${name}"]`).content;
const nonce = meta("nonce");
const isStatic = meta("static") === "1";
const $ = (id) => document.getElementById(id);

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

export function say(text) { $("status").textContent = text; }

export async function get(path, options) {
  let answer;
  try { answer = await fetch(path, options); } catch { throw new Error("the server does not answer: is it still running?"); }
  if (!answer.ok) {
    let told = `the server says ${answer.status}`;
    try { told = (await answer.json()).problem || told; } catch { /* no JSON: the status has to do */ }
    throw new Error(told);
  }
  return answer.json();
}

// --- where data comes from --------------------------------------------------------------------------------

let everything = null; // of a static site: all summaries

async function items(filters) {
  if (!isStatic) {
    const asked = new URLSearchParams();
    for (const [name, value] of Object.entries(filters)) if (value !== "" && value !== false) asked.set(name, value === true ? "1" : value);
    return get(`api/items?${asked}`);
  }
  everything ??= (await get("api/items.json")).items;
  return filtered(everything, filters);
}

function filtered(all, f) {
  const words = f.q.toLowerCase(), name = f.model || run.models.at(-1)?.name;
  const at = f.label.indexOf(":"), label = f.label.slice(0, at), value = f.label.slice(at + 1);
  let found = all.filter((item) =>
    (!f.kind || item.kind === f.kind) && (!f.task || item.task === f.task) && (!f.split || item.split === f.split)
    && (!f.label || (item.labels?.[label] || []).includes(value)) && (!f.model || item.verdicts[f.model])
    && (!f.wrong || item.wrong?.[name]) && (!f.ungrounded || item.ungrounded?.[name])
    && (!f.disagree || item.disagree) && (!words || (item.search || item.question.toLowerCase()).includes(words)));
  if (f.sort !== "order") {
    const quality = (item) => item.quality?.[name] ?? null, sign = f.sort === "worst" ? 1 : -1;
    found = found.filter((item) => quality(item) !== null).sort((a, b) => sign * (quality(a) - quality(b)))
      .concat(found.filter((item) => quality(item) === null)); // what nobody can score comes last
  }
  return { n: found.length, page: f.page, size: f.size, items: found.slice(f.page * f.size, (f.page + 1) * f.size) };
}

const itemOf = (key) => get(isStatic ? `api/item/${key}.json` : `api/item/${key}`);
const peaksOf = (key) => get(isStatic ? `api/peaks/${key}.json` : `api/peaks/${key}?n=2400`);
const soundOf = (item) => item.sound.file || `sound/${item.key}.wav`;

// --- state ------------------------------------------------------------------------------------------------

let run = null, page = 0, shown = [], current = null, player = null, asked = 0;

const tint = (model) => `m${Math.max(0, run.models.findIndex((one) => one.name === model)) % 6}`;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const time = (t) => `${t.toFixed(2)} s`;

function filters() {
  return {
    q: $("q").value.trim(), model: $("f-model").value, kind: $("f-kind").value, task: $("f-task").value,
    split: $("f-split").value, label: $("f-label").value, sort: $("f-sort").value, wrong: $("f-wrong").checked,
    ungrounded: $("f-ungrounded").checked, disagree: $("f-disagree").checked, page, size: PAGE,
  };
}

// --- the list ---------------------------------------------------------------------------------------------

async function list({ open = false } = {}) {
  const mine = ++asked;
  let found;
  try { found = await items(filters()); } catch (error) { return say(error.message); }
  if (mine !== asked) return; // a later question has been asked meanwhile
  shown = found.items;
  const pages = Math.max(1, Math.ceil(found.n / PAGE));
  $("count").textContent = found.n === 1 ? "1 question" : `${found.n} questions`;
  $("page-now").textContent = `page ${page + 1} of ${pages}`;
  $("page-back").disabled = page === 0;
  $("page-on").disabled = page + 1 >= pages;
  $("list").replaceChildren(...shown.map((item) => el("li", {}, el("button", {
    type: "button", "data-key": item.key, "aria-current": item.key === current?.key ? "true" : null, onclick: () => openItem(item.key),
  }, dots(item), item.kind === "phrase" ? `Where is “${item.question}” said?` : item.question,
  el("span", { class: "soft" }, [item.task, item.split, item.id].filter(Boolean).join(" · "))))));
  if (open && shown.length) await openItem(shown[0].key);
}

function dots(item) {
  return el("span", { class: "dots" }, ...Object.entries(item.verdicts).map(([model, verdict]) => el("span", {
    class: `dot ${tint(model)} ${verdict.right ? "right" : ""}`, role: "img", title: model,
    "aria-label": `${model}: ${verdict.right === null ? "not scored" : verdict.right ? "right" : "wrong"}`,
  })));
}

async function step(by) {
  const next = shown.findIndex((item) => item.key === current?.key) + by;
  if (next >= 0 && next < shown.length) return openItem(shown[next].key);
  if (next >= shown.length && !$("page-on").disabled) { page += 1; await list({ open: true }); }
  else if (next < 0 && page > 0) { page -= 1; await list(); if (shown.length) await openItem(shown.at(-1).key); }
}

// --- one item ---------------------------------------------------------------------------------------------

async function openItem(key, at = {}) {
  stopAll();
  let item;
  try { item = await itemOf(key); } catch (error) {
    $("item").replaceChildren(el("p", { class: "problem", role: "alert" }, `This question cannot be shown: ${error.message}`));
    return;
  }
  current = item;
  for (const button of document.querySelectorAll("#list button")) {
    if (button.dataset.key === key) { button.setAttribute("aria-current", "true"); button.scrollIntoView({ block: "nearest" }); }
    else button.removeAttribute("aria-current");
  }
  const picture = el("div", { class: "picture" });
  const parts = [el("h2", {}, item.kind === "phrase" ? `Where is “${item.phrase}” said?` : item.question)];
  if (item.choices.length) parts.push(choices(item));
  if (item.sound.ok) parts.push(picture, controls(item));
  else parts.push(el("p", { class: "problem", role: "alert" }, `No sound for this question: ${item.sound.problem}. Texts, times and scores are shown all the same.`));
  parts.push(lanes(item));
  if (item.words?.length) parts.push(words(item));
  parts.push(el("div", { class: "responses" }, ...item.responses.map((response) => responseOf(item, response))));
  parts.push(el("p", { class: "soft" }, [item.id, item.split, item.task, ...Object.entries(item.labels).map(([name, values]) => `${name}: ${values.join(", ")}`), time(item.duration)].filter(Boolean).join(" · ")));
  $("item").replaceChildren(...parts);
  player?.destroy();
  player = item.sound.ok ? await makePlayer(item, picture) : null;
  history.replaceState(null, "", `#${new URLSearchParams({ item: key, ...at })}`);
  say("");
  // A deep link shows its place; browsers start no sound unasked.
  const span = at.model && item.responses.find((one) => one.model === at.model)?.mentions[Number(at.span || 0)];
  if (span?.audible) player?.show(span.start);
  else if (at.t) player?.show(Number(at.t));
}

function choices(item) {
  return el("ul", { class: "choices" }, ...item.choices.map((choice, n) => el("li", { class: choice === item.answer ? "right" : "" },
    `(${LETTERS[n]}) ${choice}`, choice === item.answer ? el("span", { role: "img", "aria-label": "right" }, " ✓ ") : " ",
    ...item.responses.filter((response) => response.chosen === choice).map((response) => el("span", {
      class: `key ${tint(response.model)}`, role: "img", title: response.model, "aria-label": `${response.model} chose this`,
    })))));
}

function controls(item) {
  const isLong = item.sound.seconds > SHORT;
  return el("div", { class: "controls" },
    el("button", { type: "button", id: "play", onclick: () => player?.toggle() }, "Play"),
    el("button", { type: "button", id: "stop", onclick: stopAll }, "Stop"),
    item.evidence.length ? el("button", { type: "button", id: "play-evidence", onclick: playEvidence }, "True evidence") : null,
    el("button", { type: "button", id: "picture-kind", "aria-pressed": "false", hidden: isLong }, "Spectrogram"),
    el("span", { class: "clock", id: "clock" }, `0.00 / ${time(item.sound.seconds)}`),
    isLong ? el("span", { class: "soft" }, "A long clip: it is streamed, and shown without a spectrogram.") : null);
}

function lanes(item) {
  const rows = [];
  if (item.evidence.length) rows.push(...lane(item, "true evidence", "truth", item.evidence.map(([start, end]) => ({ start, end, audible: true }))));
  for (const response of item.responses) rows.push(...lane(item, response.model, tint(response.model), response.mentions));
  return el("div", { class: "lanes" }, ...rows);
}

function lane(item, name, tone, spans) {
  const rail = el("div", { class: `rail ${tone}`, role: "group", "aria-label": `${name}: ${spans.length} spans` });
  for (const span of spans) {
    const first = Math.min(Math.max(span.start, 0), item.duration), last = Math.min(Math.max(span.end, first), item.duration);
    const label = `${name}: ${span.start.toFixed(2)} to ${time(span.end)}${span.problem ? `, ${span.problem}` : ""}`;
    const band = el("button", { type: "button", class: `band${span.problem ? " wrong" : ""}`, title: label, "aria-label": `play ${label}`, disabled: !span.audible || !item.sound.ok, onclick: () => playSpan(span) });
    band.style.left = `${Math.min(99, (100 * first) / item.duration)}%`;
    band.style.width = `${(100 * (last - first)) / item.duration}%`;
    rail.append(band);
  }
  return [el("span", { class: "name", title: name }, el("span", { class: `key ${tone}`, "aria-hidden": "true" }), name), rail];
}

function words(item) {
  const isIn = (word) => item.evidence.some(([start, end]) => word.start < end && word.end > start);
  return el("p", { class: "words", "aria-label": "What is said" }, ...item.words.flatMap((word) => [
    el("button", { type: "button", class: `word${isIn(word) ? " in" : ""}`, "data-start": word.start, "data-end": word.end, title: time(word.start), disabled: !item.sound.ok, onclick: () => playSpan(word) }, word.word), " "]));
}

function responseOf(item, response) {
  const text = el("p", { class: "text", dir: "auto" });
  let at = 0;
  response.mentions.forEach((mention, n) => {
    const isPlayable = mention.audible && item.sound.ok;
    text.append(response.text.slice(at, mention.text_start));
    const link = el("a", {
      class: `cite${mention.problem ? " wrong" : ""}`, role: "button", tabindex: "0", "data-start": mention.start, "data-end": mention.end,
      title: mention.problem || `play ${mention.start} to ${mention.end} seconds`, "aria-disabled": isPlayable ? null : "true",
      "aria-label": `${isPlayable ? "play " : ""}${mention.start} to ${mention.end} seconds${mention.problem ? `: ${mention.problem}` : ""}`,
    }, response.text.slice(mention.text_start, mention.text_end));
    const press = () => {
      if (!isPlayable) return say(mention.problem || "There is no sound to play.");
      playSpan(mention, link);
      history.replaceState(null, "", `#${new URLSearchParams({ item: item.key, model: response.model, span: n })}`);
    };
    link.addEventListener("click", press);
    link.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); press(); } });
    text.append(link);
    at = mention.text_end;
  });
  text.append(response.text.slice(at));
  if (!response.text.trim()) text.replaceChildren(el("span", { class: "soft" }, "(an empty response)"));
  const verdict = [];
  if (response.right !== null && item.kind === "choice") verdict.push(el("span", { class: response.right ? "yes" : "no" }, response.right ? "right" : "wrong"), " ");
  if (response.iou !== null) verdict.push(`IoU ${response.iou.toFixed(2)} `);
  verdict.push(`k = ${response.k}`);
  return el("section", { class: `response ${tint(response.model)}`, "aria-label": `response of ${response.model}` },
    el("h3", {}, el("span", { class: `key ${tint(response.model)}`, "aria-hidden": "true" }), response.model, " ", el("span", { class: "verdict" }, ...verdict)), text);
}

// --- sound ------------------------------------------------------------------------------------------------

function playSpan(span, link = null) {
  if (!player) return;
  document.querySelectorAll("a.cite.now").forEach((other) => other.classList.remove("now"));
  link?.classList.add("now");
  player.playSpan(Math.max(0, span.start), span.end);
  say(`${span.start.toFixed(2)} to ${time(span.end)}`);
}

function playEvidence() { if (current?.evidence.length) playSpan({ start: current.evidence[0][0], end: current.evidence[0][1] }); }
function stopAll() { player?.stop(); }

async function makePlayer(item, container) {
  const media = el("audio", { id: "media", preload: "auto" });
  container.append(media);
  const spans = [
    ...item.evidence.map(([start, end]) => ({ start, end, name: "--truth" })),
    ...item.responses.flatMap((response) => response.mentions.filter((m) => m.audible).map((m) => ({ start: m.start, end: m.end, name: `--${tint(response.model)}` }))),
  ];
  const made = await waveform(container, media, soundOf(item), item.sound.seconds, () => peaksOf(item.key), spans);
  const all = [...document.querySelectorAll("#item .word")];
  made.moved = (now) => {
    if (!$("clock")) return;
    $("clock").textContent = `${now.toFixed(2)} / ${time(item.sound.seconds)}`;
    for (const word of all) word.classList.toggle("now", made.playing && now >= +word.dataset.start && now < +word.dataset.end);
  };
  made.changed = (playing) => {
    if ($("play")) $("play").textContent = playing ? "Pause" : "Play";
    if (!playing) document.querySelectorAll("a.cite.now").forEach((other) => other.classList.remove("now"));
  };
  made.broken = () => say("This sound cannot be played. Texts and times are shown all the same.");
  $("picture-kind").addEventListener("click", () => $("picture-kind").setAttribute("aria-pressed", String(made.toggleSpectrogram())));
  return made;
}

// A waveform with coloured spans over one <audio> element, which plays spans to their end and no further.
export async function waveform(container, media, url, seconds, peaks, spans) {
  const regions = Regions.create();
  let stopAt = null, spectrogram = null, gone = false;
  const made = { playing: false, moved() {}, changed() {}, broken() {} };
  const surfer = WaveSurfer.create({
    container, media, height: 88, waveColor: colour("--wave"), progressColor: colour("--played"), cursorColor: colour("--ink"),
    normalize: true, cspNonce: nonce, dragToSeek: true, sampleRate: 16000, // the spectrogram goes up to half of it
   
    plugins: [regions, Timeline.create({ height: 16, style: { fontSize: "11px", color: colour("--soft") } })],
  });
  const broken = () => { if (!gone) made.broken(); };
  const draw = () => {
    for (const { start, end, name } of spans) {
      if (start >= seconds) continue;
      const region = regions.addRegion({ start, end: Math.min(end, seconds), drag: false, resize: false, color: `color-mix(in srgb, ${colour(name)} 22%, transparent)` });
      region.on("click", (event) => { event.stopPropagation(); made.playSpan(start, end); });
    }
  };
  surfer.on("error", broken);
  surfer.on("ready", draw);
  if (seconds > SHORT) {
    const { peaks: pairs } = await peaks();
    surfer.load(url, [pairs.map(([low, high]) => (Math.abs(low) > Math.abs(high) ? low : high))], seconds).catch(broken);
  } else surfer.load(url).catch(broken);

  function watch() {
    if (gone) return;
    if (stopAt !== null && media.currentTime >= stopAt) { media.pause(); media.currentTime = stopAt; stopAt = null; }
    made.moved(media.currentTime);
    if (made.playing) requestAnimationFrame(watch);
  }
  media.addEventListener("timeupdate", watch); // a tab in the background draws no frames
  media.addEventListener("play", () => { made.playing = true; made.changed(true); requestAnimationFrame(watch); });
  media.addEventListener("pause", () => { made.playing = false; if (!gone) { made.changed(false); made.moved(media.currentTime); } });
  media.addEventListener("error", broken);
  const start = () => media.play().catch((error) => { if (error.name !== "AbortError") broken(); });
  return Object.assign(made, {
    playSpan(from, to) { stopAt = Math.min(to, seconds); media.currentTime = from; start(); },
    toggle() { if (media.paused) { stopAt = null; start(); } else media.pause(); },
    stop() { stopAt = null; media.pause(); },
    show(at) { media.currentTime = Math.min(at, seconds); },
    toggleSpectrogram() {
      if (spectrogram) { spectrogram.destroy(); spectrogram = null; return false; }
      spectrogram = Spectrogram.create({ labels: true, height: 140, scale: "mel", frequencyMax: 8000, fftSamples: 512, useWebWorker: false, labelsColor: colour("--ink"), labelsBackground: "transparent" });
      surfer.registerPlugin(spectrogram);
      return true;
    },
    addSpan(from, to, name) { spans.push({ start: from, end: to, name }); regions.clearRegions(); draw(); },
    destroy() { gone = true; media.pause(); surfer.destroy(); },
  });
}

// --- keys -------------------------------------------------------------------------------------------------

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || $("look").hidden) return;
  if (event.target.matches("input:not([type=checkbox]):not([type=radio]), textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === " " && event.target.matches("button, a, summary, input")) return;
  const keys = {
    j: () => step(1), k: () => step(-1), e: playEvidence, " ": () => player?.toggle(), Escape: stopAll,
    "/": () => $("q").focus(), "?": () => $("help").showModal(),
  };
  if (/^[1-9]$/.test(event.key)) document.querySelectorAll("#item a.cite")[Number(event.key) - 1]?.click();
  else if (keys[event.key]) keys[event.key]();
  else return;
  event.preventDefault();
}

// --- beginning --------------------------------------------------------------------------------------------

function fill(select, values, all) {
  const kept = select.value;
  select.replaceChildren(el("option", { value: "" }, all), ...values.map((value) => el("option", { value }, value)));
  if (values.includes(kept)) select.value = kept;
  select.parentElement.hidden = values.length < 2;
}

async function begin() {
  run = await get(isStatic ? "api/run.json" : "api/run");
  $("title").textContent = run.title;
  document.title = run.title;
  fill($("f-model"), run.models.map((model) => model.name), "the last");
  fill($("f-kind"), run.kinds, "all");
  fill($("f-task"), run.tasks, "all");
  fill($("f-split"), run.splits, "all");
  fill($("f-label"), Object.entries(run.labels).flatMap(([name, values]) => values.map((value) => `${name}:${value}`)), "all");
  $("notes").replaceChildren(...run.notes.map((note) => el("li", {}, note)));
  $("notes").hidden = run.notes.length === 0;
  $("reload").hidden = isStatic;
  await list();
}

function show(tab) {
  for (const name of ["look", "ask"]) {
    $(name).hidden = name !== tab;
    if (name === tab) $(`tab-${name}`).setAttribute("aria-current", "page");
    else $(`tab-${name}`).removeAttribute("aria-current");
  }
  if (tab === "ask") stopAll();
}

let waiting = 0;
function again() { page = 0; clearTimeout(waiting); waiting = setTimeout(list, 150); }
$("filters").addEventListener("input", again);
$("filters").addEventListener("submit", (event) => { event.preventDefault(); again(); });
$("page-back").addEventListener("click", () => { page -= 1; list(); });
$("page-on").addEventListener("click", () => { page += 1; list(); });
$("reload").addEventListener("click", async () => {
  try { await get("api/reload", { method: "POST" }); await begin(); say("Read again."); } catch (error) { say(error.message); }
});
$("help-open").addEventListener("click", () => $("help").showModal());
$("tab-look").addEventListener("click", () => show("look"));
$("tab-ask").addEventListener("click", () => show("ask"));
document.addEventListener("keydown", onKey);
addEventListener("hashchange", fromAddress);

function fromAddress() {
  const { item, ...rest } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (item && item !== current?.key) return openItem(item, rest);
}

try {
  await begin();
  if (run.ask && !isStatic) { $("tab-ask").hidden = false; setUpAsk($("ask"), run.ask); }
  if (location.hash.includes("item=")) await fromAddress();
  else if (shown.length) await openItem(shown[0].key);
} catch (error) {
  $("item").replaceChildren(el("p", { class: "problem", role: "alert" }, `This page cannot be filled: ${error.message}`));
}
