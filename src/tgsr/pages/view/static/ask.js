// The "ask" tab: a recording, a question, a model; the answer as it is written, its spans on the waveform. The recording
// is a file, what a microphone hears, or the sound of an item.

import { el, get, say } from "./page.js";
import { waveform } from "./waveform.js";

// A response as text and buttons, which play what it cites.
export function cited(whole, mentions, play) {
  const parts = [];
  let at = 0;
  for (const mention of mentions) {
    const press = () => mention.audible && play(mention.start, mention.end);
    parts.push(whole.slice(at, mention.text_start), el("a", {
      class: `cite${mention.problem ? " wrong" : ""}`, role: "button", tabindex: "0", title: mention.problem || "play", "aria-disabled": mention.audible ? null : "true",
      onclick: press, onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); press(); } },
    }, whole.slice(mention.text_start, mention.text_end)));
    at = mention.text_end;
  }
  return [...parts, whole.slice(at)];
}

// A button that records until it is pressed again; `take` gets what was heard, `failed` why nothing is.
export function setUpMicrophone(record, most_seconds, take, failed) {
  let recorder = null;
  if (!navigator.mediaDevices?.getUserMedia || typeof MediaRecorder === "undefined") {
    record.disabled = true;
    record.after(el("p", { class: "soft", id: "no-microphone" }, "This browser offers no microphone here (it does on localhost and over https). A file works all the same."));
  }
  record.addEventListener("click", async () => {
    if (recorder) return recorder.stop();
    let stream;
    try { stream = await navigator.mediaDevices.getUserMedia({ audio: true }); } catch (error) {
      return failed(`The microphone cannot be used (${error.name}). A file works all the same.`);
    }
    const pieces = [];
    recorder = new MediaRecorder(stream);
    recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
    recorder.addEventListener("stop", () => {
      stream.getTracks().forEach((track) => track.stop());
      take(new Blob(pieces, { type: recorder.mimeType }), "recorded here");
      recorder = null;
      record.textContent = "Record";
    });
    recorder.start();
    record.textContent = "Stop recording";
    setTimeout(() => recorder?.stop(), 1000 * most_seconds);
  });
}

// What a server tells of its work, until it is over. A browser tries again by itself, for ever: whether anybody is there
// has to be asked. -> what ends the listening
export function follow(address, heard, over, again = () => {}) {
  const events = new EventSource(address);
  let isOver = false;
  const end = () => { isOver = true; events.close(); };
  const lost = (told) => { if (!isOver) { end(); over(told); } };
  events.onopen = again; // all is told again to whoever comes back
  for (const [kind, act] of Object.entries(heard)) events.addEventListener(kind, (event) => act(JSON.parse(event.data)));
  events.onerror = async () => {
    try { await get("api/run"); } catch (error) { return lost(`${error.message} Try again when it is back.`); }
    if (events.readyState === EventSource.CLOSED) lost("The server does not know this any more: try again.");
  };
  return end;
}

export function setUpAsk(root, { models, max_seconds, max_bytes }) {
  let recording = null, item = null, under = null, sending = null, end = null, player = null;
  const file = el("input", { type: "file", accept: "audio/*,video/*", id: "ask-file" });
  const record = el("button", { type: "button", id: "ask-record" }, "Record");
  const name = el("p", { class: "soft", id: "ask-name" }, "No recording yet.");
  const drop = el("div", { class: "drop" }, el("p", {}, el("label", {}, "Drop a recording here, or choose one: ", file)), record, name);
  const question = el("textarea", { id: "ask-question", dir: "auto", required: true });
  const choices = el("textarea", { id: "ask-choices", dir: "auto", placeholder: "one a line; leave empty for an open question" });
  const phrase = el("input", { type: "checkbox", id: "ask-phrase" });
  const model = el("select", { id: "ask-model" }, ...models.map((one) => el("option", { value: one }, one)));
  const send = el("button", { type: "submit", class: "main", id: "ask-send" }, "Ask");
  const cancel = el("button", { type: "button", id: "ask-cancel", hidden: true }, "Cancel");
  const progress = el("p", { id: "ask-progress", role: "status", "aria-live": "polite" });
  const picture = el("div", { class: "picture", hidden: true });
  const text = el("p", { class: "text response m2", id: "ask-answer", dir: "auto", hidden: true });
  const asked = el("span", {}, "Question");
  const form = el("form", { class: "form" }, drop, el("label", {}, asked, question),
    el("label", { class: "line" }, phrase, "These are words: find where they are said"),
    el("label", {}, "Choices", choices), el("label", {}, "Model", model), el("div", { class: "controls" }, send, cancel));
  root.replaceChildren(el("h2", {}, "Ask about a recording"), el("div", { class: "two" }, form,
    el("section", { "aria-label": "Answer" }, progress, picture, text)));
  phrase.addEventListener("change", () => { asked.textContent = phrase.checked ? "Words" : "Question"; choices.disabled = phrase.checked; });

  function take(blob, called) {
    if (blob.size > max_bytes) {
      progress.textContent = `${called}: ${(blob.size / 1e6).toFixed(1)} MB; the most is ${(max_bytes / 1e6).toFixed(0)} MB: cut it.`;
      return;
    }
    recording = blob;
    item = null;
    name.textContent = `${called}, ${(blob.size / 1e3).toFixed(0)} kB`;
    progress.textContent = "";
  }
  file.addEventListener("change", () => file.files[0] && take(file.files[0], file.files[0].name));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0], event.dataTransfer.files[0].name);
    });
  }

  setUpMicrophone(record, max_seconds, take, (problem) => { progress.textContent = problem; });

  function finished(told) {
    end?.();
    end = null;
    under = sending = null;
    text.removeAttribute("aria-busy");
    cancel.hidden = true;
    send.disabled = false;
    progress.textContent = told;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!recording && !item) { progress.textContent = "Choose or record something first."; return; }
    send.disabled = true;
    text.hidden = true;
    picture.hidden = true;
    player?.stop();
    cancel.hidden = false;
    progress.textContent = "Sending …";
    const query = new URLSearchParams({ question: question.value, model: model.value });
    if (phrase.checked) query.set("phrase", "1");
    else for (const choice of choices.value.split("\n").map((line) => line.trim()).filter(Boolean)) query.append("choice", choice);
    const body = item ? {} : { body: recording, headers: { "content-type": "application/octet-stream" } };
    if (item) query.set("key", item);
    const mine = sending = new AbortController();
    try {
      const { id } = await get(`api/ask?${query}`, { method: "POST", signal: mine.signal, ...body });
      if (sending === mine) { under = id; look(id); }
    } catch (error) { if (sending === mine) finished(error.message); }
  });
  cancel.addEventListener("click", () => {
    sending?.abort();
    if (under) get(`api/ask/${under}`, { method: "DELETE" }).catch(() => {});
    finished("Cancelled.");
  });

  function look(id) {
    let written = "";
    const mark = (spans) => player?.setSpans(spans.map(([start, end]) => ({ start, end, name: "--m2" })));
    let shown = [];
    text.setAttribute("aria-busy", "true");
    end = follow(`api/ask/${id}/events`, {
      queued: ({ place }) => { progress.textContent = place ? `Waiting: ${place} before you.` : "The model listens …"; },
      heard: async ({ seconds }) => {
        progress.textContent = "The model writes …";
        picture.hidden = false;
        player?.destroy();
        const media = el("audio", { id: "ask-media", preload: "auto" });
        picture.replaceChildren(media);
        player = await waveform(picture, media, `api/ask/${id}/sound.wav`, seconds, () => get(`api/ask/${id}/peaks?n=2400`));
        player.broken = () => say("This sound cannot be played. Its answer is shown all the same.");
        mark(shown);
      },
      text: ({ piece }) => { written += piece; text.hidden = false; text.textContent = written; },
      spans: ({ spans }) => { shown = spans; mark(shown); },
      done: (answer) => { shown = answer.spans; mark(shown); draw(answer); finished(told(answer)); say(""); },
      failed: ({ problem }) => finished(problem),
      cancelled: () => finished("Cancelled."),
    }, finished, () => { written = ""; });
  }

  function told({ spans, n_invalid, evidence, truncated }) {
    const seconds = evidence.reduce((sum, [start, end]) => sum + end - start, 0);
    const end = truncated ? " The response was cut off at its limit and may lack its answer." : "";
    const cited = spans.length ? `${spans.length} cited span${spans.length > 1 ? "s" : ""}, ${seconds.toFixed(2)} s to listen to.` : "The response cites no span inside the recording.";
    return (n_invalid ? `${cited} ${n_invalid} cited intervals end before they start.` : cited) + end;
  }

  function draw({ text: whole, mentions }) {
    text.hidden = false;
    text.replaceChildren(...cited(whole, mentions, (start, end) => player?.playSpan(start, end)));
  }

  return {
    use(key, name_) {
      item = key;
      recording = null;
      file.value = "";
      name.textContent = `the sound of ${name_}`;
      progress.textContent = "";
      question.focus();
    },
    stop() { player?.stop(); },
  };
}
