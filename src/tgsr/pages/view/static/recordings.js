// The "recordings" tab: choose or drop one, hear it written down, ask about it, read along. The server hears one at a time
// and keeps what was sent until it is deleted here.

import { cited, follow, setUpMicrophone } from "./ask.js";
import { el, get, say } from "./page.js";
import { readAlong, saidWords } from "./said.js";
import { waveform } from "./waveform.js";

const LONGEST = 3600; // seconds that the microphone records
const STEP = 5; // seconds, of the arrow keys
const OPENING = "To determine the best description, let's analyze the audio content and the given timestamps:\n"; // the paper's
const NAMES = { srt: "SRT", vtt: "WebVTT", txt: "Text", textgrid: "TextGrid", json: "JSON" };

export function clock(seconds) {
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds % 60)];
  return (parts[0] ? parts : parts.slice(1)).map((part, n) => String(part).padStart(n ? 2 : 1, "0")).join(":");
}

export async function setUpRecordings(root, { models }) {
  const about = await get("api/recordings");
  let open = null, stop = () => {}, player = null, light = () => {};

  const file = el("input", { type: "file", accept: "audio/*,video/*", id: "recording-file" });
  const record = el("button", { type: "button", id: "recording-record" }, "Record");
  const drop = el("div", { class: "drop", id: "recording-drop" },
    el("p", {}, el("label", {}, "Drop a recording here, or choose one: ", file)), record,
    el("p", { class: "soft" }, `Sound or video, up to ${Math.round(about.max_bytes / 2 ** 20)} MB. It stays on this machine, in ${about.folder}, until you delete it. `
      + "A larger file is named when the page is started: tgsr view FILE."));
  const problem = el("p", { class: "problem", role: "alert", id: "recording-problem", hidden: true });
  const shelf = el("ul", { class: "shelf", "aria-label": "Recordings" });
  const desk = el("section", { class: "desk", hidden: true, "aria-labelledby": "recording-name" });
  root.replaceChildren(drop, problem, shelf, desk);

  const fail = (text) => { problem.textContent = text; problem.hidden = !text; };

  // --- which ------------------------------------------------------------------------------------------------

  async function list() {
    const { recordings } = await get("api/recordings");
    shelf.replaceChildren(...recordings.map(({ key, name }) => el("li", {}, el("button", {
      type: "button", dir: "auto", "aria-current": key === open ? "true" : null, onclick: () => choose(key, name),
    }, name))));
    shelf.hidden = recordings.length < 2 && Boolean(open);
    drop.classList.toggle("small", Boolean(open));
  }

  async function take(blob, called) {
    fail("");
    if (!blob.size) return fail(`${called} is empty (0 bytes): choose another file.`);
    if (blob.size > about.max_bytes) {
      return fail(`${called} has ${Math.round(blob.size / 2 ** 20)} MB; ${Math.round(about.max_bytes / 2 ** 20)} MB can be sent. Start the page with it: tgsr view FILE.`);
    }
    say(`Sending ${called} …`);
    try {
      const name = new URLSearchParams({ name: called });
      const { key } = await get(`api/recordings?${name}`, { method: "POST", body: blob, headers: { "content-type": "application/octet-stream" } });
      say("");
      await choose(key, called);
    } catch (error) { say(""); fail(`${called}: ${error.message}`); }
  }
  file.addEventListener("change", () => { if (file.files[0]) take(file.files[0], file.files[0].name); file.value = ""; });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    root.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0], event.dataTransfer.files[0].name);
    });
  }
  setUpMicrophone(record, LONGEST, take, fail);

  async function choose(key, name) {
    stop();
    fail("");
    close();
    open = key;
    const bar = el("progress", { max: 1, id: "recording-progress", "aria-label": "heard so far" });
    const state = el("p", { id: "recording-state", role: "status", "aria-live": "polite" }, "Waiting …");
    const cancel = el("button", { type: "button", id: "recording-cancel", onclick: () => { get(`api/recordings/${key}`, { method: "DELETE" }).then(gone, (error) => fail(error.message)); } }, "Cancel");
    const picture = el("div", { class: "picture", hidden: true });
    desk.replaceChildren(el("h2", { id: "recording-name", dir: "auto" }, name), picture, el("div", { class: "hearing" }, state, bar, cancel));
    desk.hidden = false;
    await list();
    const over = (told) => { if (open === key) { stop(); close(); desk.hidden = true; fail(`${name}: ${told}`); open = null; list(); } };
    try { await get(`api/recordings/${key}`, { method: "POST" }); } catch (error) { return over(error.message); }
    stop = follow(`api/recordings/${key}/events`, {
      queued: ({ place }) => { state.textContent = place ? `Waiting: ${place} before it.` : "Opening …"; },
      opening: () => { state.textContent = "Opening …"; },
      sound: ({ seconds }) => listen(key, picture, seconds),
      hearing: ({ share }) => { bar.value = share; state.textContent = `Hearing: ${Math.round(100 * share)} %. You can listen meanwhile.`; },
      outlining: () => { bar.value = 1; state.textContent = "Outlining …"; },
      done: () => { stop(); get(`api/recordings/${key}`).then((heard) => { if (open === key) draw(heard, picture); }).catch((error) => over(error.message)); },
      failed: ({ problem: told }) => over(told),
      cancelled: () => over("cancelled."),
    }, over);
  }

  function close() {
    player?.destroy();
    player = null;
    light = () => {};
  }

  function gone() {
    stop();
    close();
    open = null;
    desk.hidden = true;
    desk.replaceChildren();
    history.replaceState(null, "", location.pathname);
    list();
    file.focus();
  }

  // --- one recording ----------------------------------------------------------------------------------------

  async function listen(key, picture, seconds) {
    if (player) return;
    const media = el("audio", { id: "recording-media", preload: "auto" });
    picture.hidden = false;
    picture.replaceChildren(media);
    const made = await waveform(picture, media, `api/recordings/${key}/sound.wav`, seconds, () => get(`api/recordings/${key}/peaks?n=4000`));
    if (open !== key || player) return made.destroy();
    player = made;
    made.moved = (now) => { const at = document.getElementById("recording-clock"); if (at) at.textContent = `${clock(now)} / ${clock(seconds)}`; light(now, made.playing); };
    made.changed = (playing) => { const press = document.getElementById("recording-play"); if (press) press.textContent = playing ? "Pause" : "Play"; };
    made.broken = () => say("This sound cannot be played. Its words are shown all the same.");
    const at = Number(new URLSearchParams(location.hash.slice(1)).get("t"));
    if (at > 0) made.show(at);
  }

  const playFrom = (start, end = Infinity) => { player?.playSpan(start, end); };

  function draw(heard, picture) {
    const { key, seconds } = heard;
    if (!player) listen(key, picture, seconds);
    const controls = el("div", { class: "controls" },
      el("button", { type: "button", id: "recording-play", class: "main", onclick: () => player?.toggle() }, "Play"),
      el("span", { class: "clock", id: "recording-clock" }, `${clock(player?.now() || 0)} / ${clock(seconds)}`));
    const notes = heard.notes.map((note) => el("p", { class: "problem" }, `${note[0].toUpperCase()}${note.slice(1)}.`));
    const transcript = el("div", { class: "said", id: "recording-words", role: "group", "aria-label": "What is said" }, ...paragraphs(heard));
    const aside = el("aside", { class: "beside" });
    if (heard.outline.length) aside.append(el("h3", {}, "Outline"), outline(heard));
    if (heard.words.length) aside.append(el("h3", {}, "Download"), downloads(heard));
    aside.append(el("p", { class: "soft" }, `Limits: ${heard.limits}.`));
    if (heard.kept) aside.append(el("button", { type: "button", id: "recording-delete", onclick: () => remove(heard) }, "Delete recording and transcript"));
    desk.replaceChildren(el("h2", { id: "recording-name", dir: "auto" }, heard.name), el("div", { class: "deck" }, picture, controls), ...notes,
      el("div", { class: "reading" }, el("div", { class: "middle" }, ...(heard.words.length ? [asking(heard), el("h3", {}, "What is said"), transcript] : [])), aside));
    light = readAlong(transcript, heard.words, (n) => playFrom(heard.words[n][1]));
  }

  // A stretch of the outline a paragraph, which begins with its time; every word can be pressed.
  function paragraphs({ words: all, outline: lines, seconds }) {
    const starts = lines.length ? lines.map((line) => line.start) : [0];
    let n = 0;
    return starts.map((start, index) => {
      const end = starts[index + 1] ?? Infinity, first = n;
      while (n < all.length && (all[n][1] < end - 0.005 || index === starts.length - 1)) n += 1;
      return el("p", { dir: "auto" }, el("button", { type: "button", class: "at", title: `${start.toFixed(2)} s of ${seconds.toFixed(2)} s`, "aria-label": `play from ${clock(start)}`, onclick: () => playFrom(start) }, clock(start)), " ", ...saidWords(all.slice(first, n)));
    });
  }

  function outline({ key, outline: lines }) {
    return el("ol", { class: "outline", id: "recording-outline" }, ...lines.map((line) => el("li", {},
      el("a", {
        href: `#${new URLSearchParams({ recording: key, t: line.start })}`, "aria-label": `play from ${clock(line.start)}`,
        onclick: (event) => {
          if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a window of its own
          event.preventDefault();
          history.replaceState(null, "", event.currentTarget.getAttribute("href"));
          playFrom(line.start, line.end);
        },
      }, clock(line.start)), " ", el(line.own_words ? "span" : "q", { dir: "auto" }, line.text),
      line.problem ? el("strong", { class: "no" }, ` ${line.own_words ? "Not supported by the transcript: " : ""}${line.problem}`) : null)));
  }

  function downloads({ key, formats }) {
    return el("p", { class: "controls downloads" }, ...formats.map((format) => el("a", { class: "button", href: `api/recordings/${key}/words/${format}`, download: "" }, NAMES[format])));
  }

  async function remove({ key, name }) {
    const sure = document.getElementById("recording-delete");
    if (!sure.dataset.sure) { sure.dataset.sure = "yes"; sure.textContent = "Really delete? Press again"; return; }
    try { await get(`api/recordings/${key}`, { method: "DELETE" }); } catch (error) { return fail(error.message); }
    gone();
    say(`${name} and its transcript are deleted.`);
  }

  // --- asking -----------------------------------------------------------------------------------------------

  function asking({ key }) {
    const question = el("input", { type: "text", id: "recording-question", dir: "auto", required: true, maxlength: 3000, autocomplete: "off", placeholder: "When did she clean the house?" });
    const phrase = el("input", { type: "checkbox", id: "recording-phrase" });
    const model = el("select", { id: "recording-model", "aria-label": "Model", hidden: models.length < 2 }, ...models.map((one) => el("option", { value: one, selected: one === about.model }, one)));
    const send = el("button", { type: "submit", class: "main", id: "recording-ask" }, "Ask");
    const state = el("p", { class: "soft", role: "status", "aria-live": "polite", id: "recording-asked" });
    const answers = el("ol", { class: "answers", id: "recording-answers" });
    const form = el("form", { class: "question" }, el("label", {}, el("span", {}, "Question"), question), send, model,
      el("label", { class: "line" }, phrase, "These are words: find where they are said"));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      send.disabled = true;
      state.textContent = "Looking …";
      const over = (told) => { send.disabled = false; state.textContent = told; };
      const query = new URLSearchParams({ question: question.value, model: model.value, recording: key, phrase: phrase.checked ? "1" : "" });
      try {
        const { id } = await get(`api/ask?${query}`, { method: "POST" });
        const end = follow(`api/ask/${id}/events`, {
          queued: ({ place }) => { state.textContent = place ? `Waiting: ${place} before you.` : "Looking …"; },
          done: (answer) => { end(); over(""); if (open === key) { answers.prepend(answered(question.value, answer)); show(answer); question.select(); } },
          failed: ({ problem: told }) => { end(); over(told); },
          cancelled: () => { end(); over("Cancelled."); },
        }, over);
      } catch (error) { over(error.message); }
    });
    return el("div", {}, form, state, answers);
  }

  // The answer first, then what it rests on; every cited time plays.
  function answered(asked, { text, mentions, spans: evidence }) {
    const at = text.lastIndexOf("Final answer:"), end = at < 0 ? text.length : at;
    const final = at < 0 ? null : text.slice(at + "Final answer:".length).trim();
    const first = text.startsWith(OPENING) ? OPENING.length : 0;
    const shown = mentions.filter((mention) => mention.text_start >= first && mention.text_end <= end)
      .map((mention) => ({ ...mention, text_start: mention.text_start - first, text_end: mention.text_end - first }));
    const quote = final?.replace(/^["“]|["”]$/g, ""); // of an answer that is the one quotation, nothing is said twice
    const isQuote = shown.length === 1 && quote?.length > 20 && text.slice(first, end).includes(quote);
    const reasons = isQuote ? [] : cited(text.slice(first, end).trimEnd(), shown, playFrom);
    return el("li", { class: "response m2" }, el("p", { class: "soft", dir: "auto" }, asked), final ? el("p", { class: "final", dir: "auto" }, final) : null,
      reasons.length ? el("p", { class: "text", dir: "auto" }, ...reasons) : null,
      evidence.length ? el("p", { class: "controls" }, ...evidence.map(([start, stop_]) => el("button", { type: "button", class: "hear", onclick: () => playFrom(Math.max(0, start - 0.3), stop_ + 0.3) }, `▶ ${clock(start)} – ${clock(stop_)}`))) : null);
  }

  function show({ spans: evidence }) {
    player?.setSpans(evidence.map(([start, end]) => ({ start, end, name: "--m2" })));
    if (evidence.length) player?.show(evidence[0][0]);
  }

  // --- keys -------------------------------------------------------------------------------------------------

  document.addEventListener("keydown", (event) => {
    if (root.hidden || !player || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
    if (event.key === " " && event.target.matches("button, a, [role=button]")) return;
    const keys = {
      " ": () => player.toggle(), Escape: () => player.stop(), "/": () => document.getElementById("recording-question")?.focus(),
      ArrowLeft: () => player.show(Math.max(0, player.now() - STEP)), ArrowRight: () => player.show(player.now() + STEP),
    };
    if (!keys[event.key]) return;
    keys[event.key]();
    event.preventDefault();
  });

  await list();
  const wanted = new URLSearchParams(location.hash.slice(1)).get("recording") || about.given;
  const known = about.recordings.find(({ key }) => key === wanted);
  if (known) await choose(known.key, known.name);
  return { stop() { player?.stop(); } };
}
