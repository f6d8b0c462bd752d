"use strict";
// One clip plays at a time; a span stops at its end; the playhead follows.
let playing = null;
function stop() {
  if (!playing) return;
  playing.audio.pause();
  playing.head.style.visibility = "hidden";
  cancelAnimationFrame(playing.frame);
  playing = null;
}
function play(item, start, end) {
  stop();
  const audio = item.querySelector("audio"), head = item.querySelector(".head");
  const last = Math.min(end, Number(item.dataset.duration));
  const current = { audio, head, frame: 0 };
  playing = current;
  const follow = () => {
    if (playing !== current) return;
    if (audio.currentTime >= last || audio.ended) { audio.currentTime = Math.min(audio.currentTime, last); stop(); return; }
    const x = Number(head.dataset.left) + audio.currentTime / Number(item.dataset.duration) * Number(head.dataset.width);
    head.setAttribute("x1", x);
    head.setAttribute("x2", x);
    head.style.visibility = "visible";
    current.frame = requestAnimationFrame(follow);
  };
  audio.currentTime = start;
  audio.play().then(follow, stop);
}
document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-start]");
  if (target) play(target.closest(".item"), Number(target.dataset.start), Number(target.dataset.end));
});
document.addEventListener("keydown", (event) => {
  const target = event.target.closest("[data-start]");
  if (event.key === "Escape") stop();
  if (target && target.tagName !== "BUTTON" && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    play(target.closest(".item"), Number(target.dataset.start), Number(target.dataset.end));
  }
});
