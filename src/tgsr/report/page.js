"use strict";
// One span plays at a time. `run` is what plays, or what was paused: the item, its <audio>, what was pressed,
// and the end of the span. A run is over when its span ends, when another begins, or with Escape.
let run = null;
let played = null; // the run before, for the space bar

const number = (element, name) => Number(element.dataset[name]);

function show(item, seconds) {
  const duration = number(item, "duration");
  for (const head of item.querySelectorAll(".head")) {
    head.setAttribute("x1", `${100 * seconds / duration}%`);
    head.setAttribute("x2", `${100 * seconds / duration}%`);
  }
  item.querySelector(".clock").textContent = `${seconds.toFixed(2)} / ${duration.toFixed(2)} s`;
  item.classList.add("heard");
}

// The same span may stand in the text, more than once, and in a lane.
function twins(item, element) {
  const { start, end } = element.dataset;
  return item.querySelectorAll(`[data-start="${start}"][data-end="${end}"]`);
}

function mark(element, name, isOn) {
  if (element.dataset.start === undefined) return;
  for (const twin of twins(element.closest(".item"), element)) twin.classList.toggle(name, isOn);
}

function stop() {
  if (!run) return;
  run.audio.pause();
  mark(run.pressed, "on", false);
  played = run;
  run = null;
}

function follow(mine) {
  if (run !== mine || mine.audio.paused) return;
  const now = mine.audio.currentTime;
  if (now >= mine.end || mine.audio.ended) {
    stop();
    show(mine.item, Math.min(now, mine.end));
  } else {
    show(mine.item, now);
    requestAnimationFrame(() => follow(mine));
  }
}

function resume(mine) {
  mine.audio.play().then(() => follow(mine), () => { if (run === mine) stop(); });
}

function play(pressed, start, end) {
  stop();
  const item = pressed.closest(".item"), audio = document.getElementById(item.dataset.audio);
  if (!audio || !(start < number(item, "duration"))) return;
  const mine = run = { item, audio, pressed, start, end: Math.min(end, number(item, "duration")) };
  mark(pressed, "on", true);
  const begin = () => {
    if (run !== mine) return;
    audio.currentTime = start;
    show(item, start);
    resume(mine);
  };
  if (audio.readyState > 0) begin();
  else {
    audio.addEventListener("loadedmetadata", begin, { once: true });
    audio.load();
  }
}

function toggle() {
  if (!run) play(played.pressed, played.start, played.end);
  else if (run.audio.paused) resume(run);
  else run.audio.pause();
}

function press(element) {
  if (element.getAttribute("aria-disabled") === "true") return;
  if (run && run.pressed === element) toggle();
  else play(element, number(element, "start"), number(element, "end"));
}

document.addEventListener("click", (event) => {
  const element = event.target.closest("[data-start]"), wave = event.target.closest(".item[data-audio] .wave");
  if (element) press(element);
  else if (wave) {
    const box = wave.getBoundingClientRect(), duration = number(wave.closest(".item"), "duration");
    play(wave, Math.max(0, (event.clientX - box.left) / box.width * duration), duration);
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key !== " " && event.key !== "Enter") return;
  const likeButton = event.target.closest("[role=button]"); // a real button clicks by itself
  if (likeButton) press(likeButton);
  else if (event.key === "Enter" || event.target.closest("button, summary") || !(run || played)) return;
  else toggle();
  event.preventDefault();
});

for (const [kind, isOn] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]]) {
  document.addEventListener(kind, (event) => {
    const element = event.target.closest("[data-start]");
    if (element) mark(element, "near", isOn);
  });
}

// A hidden tab draws no frames; its sound must stop at the span's end all the same.
for (const audio of document.querySelectorAll("audio")) {
  audio.addEventListener("timeupdate", () => {
    if (run && run.audio === audio && audio.currentTime >= run.end) stop();
  });
}
