// Words that are read along: those that are said now are lit and kept in sight. Tab reaches one of them, the arrows go on
// from there, Enter plays.

import { el } from "./page.js";

const REST = 4000; // ms for which a reader who scrolls is left alone

// `words` as [text, start, end, whether a blank stands before it]; `attributes` gives each more of its own.
export const saidWords = (words, attributes = () => ({})) => words.flatMap(([text, , , isParted], n) => [
  isParted ? " " : "", el("span", { class: "said-word", role: "button", tabindex: "-1", ...attributes(words[n]) }, text)]);

// -> what lights the words in `box` that are said at a time, and none while nothing plays. `play` gets a word's number.
export function readAlong(box, words, play) {
  const spans = [...box.querySelectorAll(".said-word")], numbers = new Map(spans.map((span, n) => [span, n]));
  const order = words.map((_, n) => n).sort((one, other) => words[one][1] - words[other][1]);
  const longest = words.reduce((most, [, start, end]) => Math.max(most, end - start), 0);
  let lit = [], scrolled = 0;
  if (spans.length) spans[0].tabIndex = 0;
  for (const kind of ["wheel", "touchmove"]) box.addEventListener(kind, () => { scrolled = Date.now(); }, { passive: true });
  const numberOf = (event) => numbers.get(event.target.closest(".said-word"));
  box.addEventListener("click", (event) => { if (numberOf(event) !== undefined) play(numberOf(event)); });
  box.addEventListener("keydown", (event) => {
    const n = numberOf(event);
    if (n === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    const on = getComputedStyle(spans[n].parentElement).direction === "rtl" ? -1 : 1; // arrows go where they point
    const next = spans[n + on * ({ ArrowRight: 1, ArrowLeft: -1 }[event.key] || 0)];
    if (event.key === "Enter" || event.key === " ") play(n);
    else if (next && next !== spans[n]) { spans[n].tabIndex = -1; next.tabIndex = 0; next.focus(); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  function begunBy(now) {
    let low = 0, high = order.length;
    while (low < high) { const mid = (low + high) >> 1; if (words[order[mid]][1] <= now) low = mid + 1; else high = mid; }
    return low;
  }

  return (now, isPlaying) => {
    const next = isPlaying ? order.slice(begunBy(now - longest), begunBy(now)).filter((n) => now < words[n][2]) : [];
    if (next.join() === lit.join()) return;
    for (const n of lit) spans[n].classList.remove("now");
    lit = next;
    for (const n of lit) spans[n].classList.add("now");
    if (!lit.length) return;
    const word = spans[lit[0]].getBoundingClientRect(), place = box.getBoundingClientRect();
    const isSeen = word.top >= place.top && word.bottom <= place.bottom;
    if (!isSeen && Date.now() - scrolled > REST) box.scrollTop += word.top - place.top - box.clientHeight / 3;
  };
}
