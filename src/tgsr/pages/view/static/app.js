// The page: a list of questions, and one of them with its sound, spans and responses. All text from files and models is
// set as text, never as markup.

import { setUpAsk } from "./ask.js";
import { $, el, get, isStatic, say } from "./page.js";
import { setUpRecordings } from "./recordings.js";
import { readAlong, saidWords } from "./said.js";
import { SHORT, waveform } from "./waveform.js";

const PAGE = 50;
const TOGETHER = 150; // words a paragraph: those out of sight cost no layout
const FLAGS = ["wrong", "ungrounded", "missed", "misquoted", "late"]; // what one model's response may be
const mostZoom = (seconds) => (seconds > SHORT ? 64 : 16);
const LETTERS = "abcdefghijklmnopqrstuvwxyz";
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
    && FLAGS.every((flag) => !f[flag] || item[flag][name])
    && (!f.disagree || item.disagree) && (!words || (item.search || item.question.toLowerCase()).includes(words)));
  if (f.sort !== "order") {
    const quality = (item) => (f.sort === "away" ? item.place : item.quality)[name] ?? null, sign = f.sort === "best" ? -1 : 1;
    found = found.filter((item) => quality(item) !== null).sort((a, b) => sign * (quality(a) - quality(b)))
      .concat(found.filter((item) => quality(item) === null)); // what nobody can score comes last
  }
  return { n: found.length, page: f.page, size: f.size, items: found.slice(f.page * f.size, (f.page + 1) * f.size) };
}

const itemOf = (key) => get(isStatic ? `api/item/${key}.json` : `api/item/${key}`);
const peaksOf = (key) => get(isStatic ? `api/peaks/${key}.json` : `api/peaks/${key}?n=12000`);
const soundOf = (item) => item.sound.file || `sound/${item.key}.wav`;

// --- state ------------------------------------------------------------------------------------------------

let run = null, page = 0, shown = [], current = null, player = null, asker = null, desk = null, asked = 0;
let light = () => {}; // lights the words that are said
let wanted = null; // the key of the item that was chosen last; the one that is shown may still be on its way out

const tint = (model) => `m${Math.max(0, run.models.findIndex((one) => one.name === model)) % 6}`;
const time = (t) => `${t.toFixed(2)} s`;
const isNarrow = () => matchMedia("(max-width: 52rem)").matches;

function filters() {
  return {
    q: $("q").value.trim(), model: $("f-model").value, kind: $("f-kind").value, task: $("f-task").value,
    split: $("f-split").value, label: $("f-label").value, sort: $("f-sort").value, disagree: $("f-disagree").checked,
    ...Object.fromEntries(FLAGS.map((flag) => [flag, $(`f-${flag}`).checked])), page, size: PAGE,
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
    type: "button", "data-key": item.key, "aria-current": item.key === wanted ? "true" : null, onclick: () => choose(item.key),
  }, dots(item), headOf(item, item.question),
  el("span", { class: "soft", title: item.id }, [item.task, run.splits.length > 1 ? item.split : null, item.id].filter(Boolean).join(" · "))))));
  if (!shown.length) $("list").append(el("li", { class: "soft" }, "No question is like that: take a filter away."));
  if (open && shown.length) await openItem(shown[0].key);
}

// What is asked runs in its own direction, whatever stands around it.
const headOf = (item, text) => (item.kind === "phrase" ? el("span", {}, "Where is “", el("bdi", {}, text), "” said?") : el("bdi", {}, text));

async function choose(key) {
  await openItem(key);
  if (isNarrow()) $("item").scrollIntoView(); // there it stands below the list
}

function dots(item) {
  return el("span", { class: "dots" }, ...Object.entries(item.verdicts).map(([model, verdict]) => {
    const told = [verdict.right === null ? "not scored" : verdict.right ? "right" : "wrong", placeOf(verdict.hit)].filter(Boolean).join(", ");
    return el("span", {
      class: `dot ${tint(model)} ${verdict.right ? "right" : ""} ${verdict.hit ? "hit" : ""}`, role: "img", title: `${model}: ${told}`,
      "aria-label": `${model}: ${told}`,
    });
  }));
}

const placeOf = (hit) => (hit === null ? null : hit ? "on the evidence" : "off the evidence");
const judged = (isGood, ...text) => el("span", { class: isGood === null ? "" : isGood ? "yes" : "no" }, ...text);

async function step(by) {
  const next = shown.findIndex((item) => item.key === wanted) + by;
  if (next >= 0 && next < shown.length) return openItem(shown[next].key);
  if (next >= shown.length && !$("page-on").disabled) { page += 1; await list({ open: true }); }
  else if (next < 0 && page > 0) { page -= 1; await list(); if (shown.length) await openItem(shown.at(-1).key); }
}

// --- one item ---------------------------------------------------------------------------------------------

async function openItem(key, at = {}) {
  stopAll();
  wanted = key;
  let item;
  try { item = await itemOf(key); } catch (error) {
    if (wanted !== key) return;
    player?.destroy();
    player = current = null;
    $("item").replaceChildren(el("p", { class: "problem", role: "alert" }, `This question cannot be shown: ${error.message}`));
    return;
  }
  if (wanted !== key) return; // another one has been chosen meanwhile
  current = item;
  for (const button of document.querySelectorAll("#list button")) {
    if (button.dataset.key === key) { button.setAttribute("aria-current", "true"); button.scrollIntoView({ block: "nearest" }); }
    else button.removeAttribute("aria-current");
  }
  const picture = item.sound.ok ? el("div", { class: "picture" }) : null;
  const parts = [el("h2", {}, headOf(item, item.kind === "phrase" ? item.phrase : item.question))];
  if (item.choices.length) parts.push(choices(item));
  if (!item.sound.ok) parts.push(el("p", { class: "problem", role: "alert" }, `No sound for this question: ${item.sound.problem}. Texts, times and scores are shown all the same.`));
  else if (item.sound.problem) parts.push(el("p", { class: "problem", role: "alert" }, `Is this the right recording? ${item.sound.problem}. It can be heard all the same.`));
  parts.push(lanes(item, picture));
  if (item.sound.ok) parts.push(controls(item));
  light = () => {};
  if (item.words?.length) parts.push(words(item));
  parts.push(el("div", { class: "responses" }, ...item.responses.map((response) => responseOf(item, response))));
  parts.push(el("p", { class: "soft about" }, [item.id, item.split, item.task, ...Object.entries(item.labels).map(([name, values]) => `${name}: ${values.join(", ")}`), time(item.duration)].filter(Boolean).join(" · ")));
  player?.destroy();
  player = null;
  $("item").replaceChildren(...parts);
  history.replaceState(null, "", addressOf(key, at));
  say("");
  if (picture) {
    const made = await makePlayer(item, picture);
    if (wanted !== key) return made.destroy();
    player = made;
  }
  // A deep link shows its place; browsers start no sound unasked.
  const response = item.responses.findIndex((one) => one.model === at.model);
  const span = item.responses[response]?.mentions[Number(at.span || 0)];
  if (span) {
    mark(span, response);
    document.querySelectorAll("#item .response")[response].scrollIntoView({ block: "nearest" });
  }
  if (span?.audible) player?.show(span.start);
  else if (Number(at.t) >= 0) player?.show(Number(at.t));
}

const addressOf = (item, at = {}) => `#${new URLSearchParams({ item, ...at })}`;

function choices(item) {
  return el("ul", { class: "choices" }, ...item.choices.map((choice, n) => el("li", { class: choice === item.answer ? "right" : "" },
    `(${LETTERS[n]}) `, el("bdi", {}, choice), choice === item.answer ? el("span", { role: "img", "aria-label": "right" }, " ✓ ") : " ",
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
    el("button", { type: "button", id: "zoom-out", "aria-label": "show more seconds", disabled: true, onclick: () => zoom(0.5) }, "−"),
    el("button", { type: "button", id: "zoom-in", "aria-label": "show fewer seconds", onclick: () => zoom(2) }, "+"),
    run.ask && !isStatic ? el("button", { type: "button", id: "ask-this", onclick: () => { show("ask"); asker.use(item.key, item.clip_id); } }, "Ask about it") : null,
    el("span", { class: "clock", id: "clock" }, `0.00 / ${time(item.sound.seconds)}`),
    isLong ? el("span", { class: "soft" }, "A long clip: it is streamed, and shown without a spectrogram.") : null);
}

// One row a voice, all on the waveform's scale: a second stands below itself.
function lanes(item, picture) {
  const grid = el("div", { class: "lanes" });
  if (picture) grid.append(el("span", { class: "name" }), picture);
  if (item.evidence.length) grid.append(...lane(item, "true evidence", "truth", -1, item.evidence.map(([start, end]) => ({ start, end, audible: true }))));
  item.responses.forEach((response, n) => grid.append(...lane(item, response.model, tint(response.model), n, response.mentions)));
  return el("div", { class: "stage" }, grid);
}

function lane(item, name, tone, who, spans) {
  const whole = item.sound.ok ? item.sound.seconds : item.duration;
  const rail = el("div", { class: `rail ${tone}`, role: "group", "aria-label": `${name}: ${spans.length} spans` });
  for (const span of spans) {
    const first = Math.min(Math.max(span.start, 0), whole), last = Math.min(Math.max(span.end, first), whole);
    const label = `${name}: ${span.start.toFixed(2)} to ${time(span.end)}${span.problem ? `, ${span.problem}` : ""}`;
    const band = el("button", {
      type: "button", class: `band${span.problem ? " wrong" : ""}`, title: label, "aria-label": `play ${label}`,
      disabled: !span.audible || !item.sound.ok, onclick: () => playSpan(span, who), ...marks(span, who),
    });
    band.style.left = `${Math.min(99, (100 * first) / whole)}%`;
    band.style.width = `${(100 * (last - first)) / whole}%`;
    rail.append(band);
  }
  return [el("span", { class: "name", title: name }, el("span", { class: `key ${tone}`, "aria-hidden": "true" }), name), rail];
}

// What shows the same span, in the text, in its lane and on the waveform, lights up together. `who` counts responses;
// -1 is the true evidence.
const marks = ({ start, end }, who) => ({
  "data-span": `${who} ${start} ${end}`, onpointerenter: () => mark({ start, end }, who), onpointerleave: () => mark(null), onfocus: () => mark({ start, end }, who),
});

let sounding = null; // the span that is played
function mark(span, who) {
  const lit = span ? { ...span, who } : sounding;
  const name = lit ? `${lit.who} ${lit.start} ${lit.end}` : "";
  for (const one of document.querySelectorAll("#item [data-span]")) one.classList.toggle("now", one.dataset.span === name);
  player?.light(lit);
}

function zoom(by) {
  const grid = document.querySelector("#item .lanes"), stage = grid?.parentElement;
  if (!player || !stage) return;
  const was = Number(grid.dataset.zoom || 1), most = mostZoom(current.sound.seconds), now = Math.min(most, Math.max(1, was * by));
  grid.dataset.zoom = now;
  grid.style.width = `${100 * now}%`;
  $("zoom-out").disabled = now === 1;
  $("zoom-in").disabled = now === most;
  player.label(now);
  say(now === 1 ? "The whole clip." : `${now} times as wide.`);
  follow(player.now(), true);
}

// Keeps a time in sight where the picture is wider than its place.
function follow(at, isCentred = false) {
  const stage = document.querySelector("#item .stage"), picture = stage?.querySelector(".picture");
  if (!picture || stage.scrollWidth <= stage.clientWidth) return;
  const x = picture.offsetLeft + (at / current.sound.seconds) * picture.offsetWidth;
  const seen = x - stage.scrollLeft;
  if (isCentred || seen < picture.offsetLeft || seen > stage.clientWidth) stage.scrollLeft = x - stage.clientWidth * (isCentred ? 0.5 : 0.3);
}

function words(item) {
  const all = item.words.map(({ word, start, end, parted }) => [word, start, end, parted]);
  const isIn = ([, from, to]) => item.evidence.some(([start, end]) => from < end && to > start);
  const attributes = (word) => ({ class: `said-word${isIn(word) ? " in" : ""}`, title: time(word[1]), "aria-disabled": item.sound.ok ? null : "true" });
  const paragraphs = Array.from({ length: Math.ceil(all.length / TOGETHER) }, (_, n) => all.slice(n * TOGETHER, (n + 1) * TOGETHER));
  const box = el("div", { class: "words", role: "group", "aria-label": "What is said" }, ...paragraphs.map((some) => el("p", { dir: "auto" }, ...saidWords(some, attributes))));
  light = readAlong(box, all, (n) => playSpan(item.words[n], -2));
  return box;
}

function responseOf(item, response) {
  const text = el("p", { class: "text", dir: "auto" }), who = item.responses.indexOf(response);
  let at = 0;
  response.mentions.forEach((mention, n) => {
    const isPlayable = mention.audible && item.sound.ok;
    text.append(response.text.slice(at, mention.text_start));
    text.append(el("a", {
      class: `cite${mention.problem ? " wrong" : ""}`, href: addressOf(item.key, { model: response.model, span: n }), ...marks(mention, who),
      title: mention.problem || `play ${mention.start} to ${mention.end} seconds`, "aria-disabled": isPlayable ? null : "true",
      "aria-label": `${isPlayable ? "play " : ""}${mention.start} to ${mention.end} seconds${mention.problem ? `: ${mention.problem}` : ""}`,
      onclick: (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a window of its own
        event.preventDefault();
        history.replaceState(null, "", event.currentTarget.getAttribute("href"));
        if (isPlayable) playSpan(mention, who);
        else say(mention.problem || "There is no sound to play.");
      },
    }, response.text.slice(mention.text_start, mention.text_end)));
    at = mention.text_end;
  });
  text.append(response.text.slice(at));
  if (!response.text.trim()) text.replaceChildren(el("span", { class: "soft" }, "(an empty response)"));
  const verdict = [];
  if (response.right !== null && item.kind === "choice") verdict.push(el("span", { class: response.right ? "yes" : "no" }, response.right ? "right" : "wrong"), " · ");
  if (response.iou !== null) verdict.push(el("span", { title: "the cited intervals' intersection over union with the true evidence" }, `IoU ${response.iou.toFixed(2)}`), " · ");
  const isCiting = response.mentions.some((mention) => mention.cited);
  if (!isCiting) verdict.push("cites nothing", " · ");
  if (isCiting && response.hit !== null) verdict.push(judged(response.hit, placeOf(response.hit)), " · ");
  if (isCiting && response.quoted !== null) verdict.push(judged(response.quoted, response.quoted ? "quotes what is said there" : "no true quote"), " · ");
  verdict.push(response.k === 1 ? "1 mention" : `${response.k} mentions`);
  return el("section", { class: `response ${tint(response.model)}`, "aria-label": `response of ${response.model}` },
    el("h3", {}, el("span", { class: `key ${tint(response.model)}`, "aria-hidden": "true" }), response.model, " ", el("span", { class: "verdict" }, ...verdict)), text, citations(response, who));
}

// Each cited place: whether it is evidence, what is said there, and what the response says is.
function citations(response, who) {
  const known = response.mentions.filter((mention) => mention.cited && (mention.problem || mention.hit !== null || mention.said !== null));
  if (!known.length) return null;
  return el("ul", { class: "citations", "aria-label": "What the cited places hold" }, ...known.map((mention) => el("li", marks(mention, who),
    el("b", {}, `${mention.start.toFixed(2)} – ${time(mention.end)}`),
    mention.problem ? judged(false, mention.problem) : mention.hit === null ? null : judged(mention.hit, placeOf(mention.hit)),
    mention.said === null ? null : el("span", {}, "said there: ", mention.said ? el("q", { dir: "auto" }, mention.said) : "nothing"),
    mention.quoted ? el("span", {}, "quoted: ", judged(mention.quote_true, el("q", { dir: "auto" }, mention.quoted))) : null)));
}

// --- sound ------------------------------------------------------------------------------------------------

function playSpan({ start, end }, who) {
  if (!player) return;
  sounding = { start, end, who };
  player.playSpan(Math.max(0, start), end);
  mark(sounding, who);
  follow(start);
  say(`${start.toFixed(2)} to ${time(end)}`);
}

function playEvidence() { if (current?.evidence.length) playSpan({ start: current.evidence[0][0], end: current.evidence[0][1] }, -1); }
function stopAll() { player?.stop(); }

async function makePlayer(item, container) {
  const media = el("audio", { id: "media", preload: "auto" });
  container.append(media);
  const spans = [
    ...item.evidence.map(([start, end]) => ({ start, end, who: -1, name: "--truth" })),
    ...item.responses.flatMap((response, who) => response.mentions.filter((m) => m.audible).map((m) => ({ start: m.start, end: m.end, who, name: `--${tint(response.model)}` }))),
  ];
  const made = await waveform(container, media, soundOf(item), item.sound.seconds, () => peaksOf(item.key));
  made.setSpans(spans);
  made.moved = (now) => {
    if (!$("clock")) return;
    $("clock").textContent = `${now.toFixed(2)} / ${time(item.sound.seconds)}`;
    light(now, made.playing);
    if (made.playing) follow(now);
  };
  made.changed = (playing) => {
    if ($("play")) $("play").textContent = playing ? "Pause" : "Play";
    if (playing) return;
    sounding = null;
    mark(null);
  };
  made.pressed = ({ start, end, who }) => playSpan({ start, end }, who);
  made.broken = () => say("This sound cannot be played. Texts and times are shown all the same.");
  $("picture-kind")?.addEventListener("click", () => $("picture-kind").setAttribute("aria-pressed", String(made.toggleSpectrogram())));
  return made;
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
    "/": () => $("q").focus(), "?": () => $("help").showModal(), "+": () => zoom(2), "-": () => zoom(0.5),
  };
  if (/^[1-9]$/.test(event.key)) document.querySelectorAll("#item a.cite")[Number(event.key) - 1]?.click();
  else if (keys[event.key]) keys[event.key]();
  else return;
  event.preventDefault();
}

// --- beginning --------------------------------------------------------------------------------------------

// Options of a filter, which is hidden where there is nothing to choose; `all` is the one that filters nothing.
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
  const names = run.models.map((model) => model.name);
  fill($("f-model"), names, names.length ? `${names.at(-1)}, the last` : "");
  $("models").replaceChildren(...run.models.flatMap(({ name, n }) => [el("span", {}, el("span", { class: `key ${tint(name)}`, "aria-hidden": "true" }), name, ` ${n}`), " "]));
  fill($("f-kind"), run.kinds, "all");
  fill($("f-task"), run.tasks, "all");
  fill($("f-split"), run.splits, "all");
  fill($("f-label"), Object.entries(run.labels).flatMap(([name, values]) => values.map((value) => `${name}:${value}`)), "all");
  $("measures").replaceChildren(...run.measures.map(({ model, text, warning }) => el("li", {},
    el("span", { class: `key ${tint(model)}`, "aria-hidden": "true" }), el("b", {}, model), ` ${text}`, warning ? el("strong", { class: "no" }, ` ${warning}`) : null)));
  $("measures").hidden = run.measures.length === 0;
  $("notes").replaceChildren(...run.notes.map((note) => el("li", {}, note)));
  $("notes").hidden = run.notes.length === 0;
  $("reload").hidden = isStatic;
  await list();
}

function show(tab) {
  for (const name of ["look", "ask", "recordings"]) {
    $(name).hidden = name !== tab;
    if (name === tab) $(`tab-${name}`).setAttribute("aria-current", "page");
    else $(`tab-${name}`).removeAttribute("aria-current");
  }
  if (tab !== "look") stopAll();
  if (tab !== "ask") asker?.stop();
  if (tab !== "recordings") desk?.stop();
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
$("tab-recordings").addEventListener("click", () => show("recordings"));
document.addEventListener("keydown", onKey);
addEventListener("hashchange", fromAddress);

function fromAddress() {
  const { item, ...rest } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (item) return openItem(item, rest);
}

$("more").open = !isNarrow();
try {
  await begin();
  if (run.ask && !isStatic) asker = setUpAsk($("ask"), run.ask);
  // A cascade without a run is asked about recordings alone, which are kept: nobody needs the other tabs then.
  $("tab-ask").hidden = !asker || (run.hears && !run.n_items && run.ask.models.length === 1);
  $("tab-look").hidden = $("measures").hidden && !run.n_items && Boolean(asker);
  $("tab-recordings").hidden = !run.hears || ($("tab-look").hidden && $("tab-ask").hidden);
  $("help-open").hidden = $("tab-look").hidden;
  const isLinked = run.hears && location.hash.includes("recording=");
  if (!isLinked && (!$("tab-look").hidden || !asker)) show("look");
  else show(run.hears ? "recordings" : "ask");
  if (run.hears) desk = await setUpRecordings($("recordings"), run.ask);
  if (location.hash.includes("item=")) await fromAddress();
  else if (shown.length && !isLinked) await openItem(shown[0].key);
} catch (error) {
  $("item").replaceChildren(el("p", { class: "problem", role: "alert" }, `This page cannot be filled: ${error.message}`));
}
