// The study's page: consent, then one trial after the other. Every choice is sent at once; what could not be kept is
// said, and can be sent again. All text is set as text.

const main = document.getElementById("main");
const status = document.getElementById("status");
const token = location.pathname.match(/^\/study\/r\/([\w-]+)$/)?.[1];
const LETTERS = "ABC";
const tab = crypto.getRandomValues(new Uint32Array(4)).join("-"); // this page, among those of the same rater
const others = token && "BroadcastChannel" in window ? new BroadcastChannel(`tgsr-study-${token}`) : null;
const ENOUGH = 30; // seconds: who has heard so much of a long sound may rate it
const player = new Audio();
let plays = 0, shownAt = 0, playing = null;

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  const answer = await fetch(path, options);
  const text = await answer.text();
  let told = {};
  try { told = JSON.parse(text); } catch { told = { problem: text }; }
  if (!answer.ok) throw Object.assign(new Error(told.problem || `the server says ${answer.status}`), { status: answer.status });
  return told;
}

function say(text) { status.textContent = text; }

function show(title, ...content) {
  stop();
  const head = el("h1", { tabindex: "-1" }, title);
  main.replaceChildren(head, ...content);
  document.title = title;
  head.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function failed(error, again) {
  say("");
  main.append(el("div", { class: "problem", role: "alert" }, el("p", {}, `Something is wrong: ${error.message}`),
    el("button", { onclick: again }, "Try again")));
}

// --- sound ------------------------------------------------------------------------------------------------

function stop() {
  player.pause();
  if (playing) playing.button.setAttribute("aria-pressed", "false");
  playing = null;
}

function isHeard() {
  playing.button.dataset.heard = "yes";
  playing.heard();
}

function sound(name, label, heard) {
  const button = el("button", { type: "button", "aria-pressed": "false", "data-sound": name }, `▶ ${label}`);
  button.addEventListener("click", async () => {
    if (playing?.button === button) return stop();
    stop();
    player.src = `/study/media/${token}/${name}`;
    playing = { button, heard };
    button.setAttribute("aria-pressed", "true");
    try {
      await player.play();
      plays += 1;
    } catch (error) {
      if (error.name === "AbortError") return;
      stop();
      say("This sound cannot be played. The ratings so far are kept; tell whoever runs the study.");
    }
  });
  return button;
}
player.addEventListener("ended", () => { if (playing) isHeard(); stop(); });
player.addEventListener("timeupdate", () => { if (playing && player.currentTime >= ENOUGH) isHeard(); });

// --- pages ------------------------------------------------------------------------------------------------

async function welcome() {
  const { title, consent, n_trials } = await call("/study/api/consent");
  const agreed = el("input", { type: "checkbox", id: "agree" });
  const begin = el("button", { class: "main", disabled: true }, "Begin");
  agreed.addEventListener("change", () => { begin.disabled = !agreed.checked; });
  begin.addEventListener("click", async () => {
    begin.disabled = true;
    try {
      location.href = (await call("/study/api/join", { agreed: true })).link;
    } catch (error) { failed(error, () => location.reload()); }
  });
  show(title,
    el("section", {}, el("h2", {}, "What happens here"), el("p", { dir: "auto" }, consent),
      el("p", {}, `There are ${n_trials} short parts, practice first. Use headphones if you can.`)),
    el("section", {}, el("p", {}, el("label", { class: "option" }, agreed, "I have read this and agree")), begin));
}

async function next(take = "") {
  try {
    const state = await call(`/study/api/${token}?tab=${tab}${take}`);
    if (take) others?.postMessage("opened");
    if (state.done) return finished(state);
    trial(state);
  } catch (error) {
    if (error.status === 409) elsewhere();
    else failed(error, () => location.reload());
  }
}

function elsewhere() {
  show("This study is open in another tab",
    el("section", {}, el("p", { role: "alert", id: "elsewhere" }, "It goes on there. What is chosen here is not kept; what was kept before is not lost."),
      el("button", { class: "main", onclick: () => location.reload() }, "Go on here instead")));
  say("");
}
others?.addEventListener("message", elsewhere);

function finished(state) {
  show("Thank you", el("section", {}, el("p", {}, `All ${state.n} parts are rated and kept. You can close this page.`)));
  say("");
}

function trial({ title, n, n_done, trial }) {
  plays = 0;
  shownAt = performance.now();
  const answers = { ...trial.answers };
  const feedback = el("p", { class: "feedback", hidden: !trial.feedback, role: "status" }, trial.feedback || "");
  const after = el("button", { class: "main", disabled: true, onclick: () => next() }, "Next");
  const referentHeard = new Set();

  // What is chosen is sent in order, one at a time; what could not be kept goes along with the next choice.
  const unkept = new Map();
  let sending = Promise.resolve();
  function keep(measure, value) {
    unkept.delete(measure);
    unkept.set(measure, { value, plays, seconds: (performance.now() - shownAt) / 1000 });
    update();
    sending = sending.then(send);
  }

  async function send() {
    if (unkept.size) say("Keeping …");
    for (const [measure, choice] of [...unkept]) {
      let told;
      try { told = await call(`/study/api/${token}/answer`, { trial: trial.id, measure, tab, ...choice }); } catch (error) {
        if (error.status === 409) return elsewhere();
        if (error.status === 423) return location.reload(); // shows what is kept
        const again = el("button", { type: "button", onclick: () => { sending = sending.then(send); } }, "Keep it again");
        say(`Not kept: ${error instanceof TypeError ? "the study does not answer" : error.message}. `);
        status.append(again);
        return;
      }
      if (unkept.get(measure) === choice) unkept.delete(measure);
      answers[measure] = choice.value;
      if (told.feedback) { feedback.textContent = told.feedback; feedback.hidden = false; }
      update();
    }
    if (!unkept.size) say("Kept.");
  }

  function radio(measure, value, label) {
    const input = el("input", { type: "radio", name: measure, value, checked: answers[measure] === value });
    input.addEventListener("change", () => keep(measure, value));
    return el("label", { class: "option" }, input, label);
  }

  const stretches = trial.stretches.map((name, k) => el("div", { class: "stretch" },
    sound(name, `Stretch ${LETTERS[k]}`, () => { referentHeard.add(k); update(); }), radio("referent", k, `It speaks of ${LETTERS[k]}`)));
  const referent = el("fieldset", { id: "referent" }, el("legend", {}, "Which stretch does the response speak of?"),
    el("p", { class: "soft" }, "Listen to all three, each to its end. The times are hidden in the text."), ...stretches, feedback);

  function scale(measure, question, low, high) {
    return el("fieldset", { id: measure, "aria-describedby": `${measure}-ends` }, el("legend", {}, question),
      el("div", { class: "row scale" }, ...[1, 2, 3, 4, 5].map((value) => radio(measure, value, String(value)))),
      el("div", { class: "ends soft", id: `${measure}-ends` }, el("span", {}, `1: ${low}`), el("span", {}, `5: ${high}`)));
  }
  let heard = false, isLocked = Boolean(trial.locked);
  const whole = el("section", {}, el("h2", {}, "Now listen to this"),
    el("p", { class: "soft" }, "Then say how much it helps, and how well it supports the answer."),
    el("p", { class: "soft" }, "Playing it makes your choice of a stretch final."),
    sound(trial.audio, "Play the sound", () => { heard = true; update(); }));
  whole.querySelector("button").addEventListener("click", () => { isLocked = true; update(); });
  const helpful = scale("helpful", "How much did this sound help you to check the answer?", "not at all", "all I need");
  const supportive = scale("supportive", "How well does what you heard support the answer?", "not at all", "it proves it");

  function update() {
    for (const input of referent.querySelectorAll("input")) {
      input.disabled = isLocked || (referentHeard.size < trial.stretches.length && answers.referent === undefined);
    }
    const open = answers.referent !== undefined;
    whole.querySelector("button").disabled = !open || unkept.has("referent");
    for (const part of [helpful, supportive]) part.disabled = !(open && (heard || answers.helpful !== undefined));
    after.disabled = unkept.size > 0 || ["referent", "helpful", "supportive"].some((measure) => answers[measure] === undefined);
  }

  show(trial.practice ? "Practice" : title,
    el("p", { class: "soft", id: "place" }, `Part ${n_done + 1} of ${n}`),
    el("progress", { max: n, value: n_done, "aria-label": "progress" }),
    el("section", {}, el("h2", { dir: "auto" }, trial.question),
      el("ul", { class: "choices" }, ...trial.choices.map((choice, k) => el("li", {}, `(${"abcdefghijklmnopqrstuvwxyz"[k]}) `, el("bdi", {}, choice))))),
    el("section", {}, el("h2", {}, "A program's response"), el("blockquote", { dir: "auto" }, trial.response)),
    referent, whole, helpful, supportive, el("p", {}, ""), after,
    el("p", { class: "soft" }, "You can close this page and come back by its address: ", el("code", {}, location.href)));
  update();
  say("");
}

if (token) next("&take=1");
else welcome().catch((error) => failed(error, () => location.reload()));
