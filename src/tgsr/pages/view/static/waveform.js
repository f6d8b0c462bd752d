// The picture of a sound, with spans over it, that is played where it is pressed.

import Regions from "./vendor/regions.esm.js";
import Spectrogram from "./vendor/spectrogram.esm.js";
import Timeline from "./vendor/timeline.esm.js";
import WaveSurfer from "./vendor/wavesurfer.esm.js";
import { nonce } from "./page.js";

export const SHORT = 120; // seconds: longer clips are streamed, with the server's peaks and without a spectrogram
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// About ten labels: 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60 … seconds apart.
function interval(seconds) {
  return [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800].find((one) => seconds / one <= 10) || 3600;
}

function label(seconds) {
  if (seconds < 60) return String(Math.round(10 * seconds) / 10);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.round(seconds % 60)];
  return (parts[0] ? parts : parts.slice(1)).map((part, n) => String(part).padStart(n ? 2 : 1, "0")).join(":");
}

// A waveform with coloured spans over one <audio> element, which plays spans to their end and no further.
export async function waveform(container, media, url, seconds, peaks) {
  const regions = Regions.create();
  let spans = [], stopAt = null, spectrogram = null, gone = false, isReady = false;
  const made = { playing: false, moved() {}, changed() {}, broken() {}, pressed({ start, end }) { made.playSpan(start, end); } };
  const surfer = WaveSurfer.create({
    container, media, height: 88, waveColor: colour("--wave"), progressColor: colour("--played"), cursorColor: colour("--ink"),
    normalize: true, cspNonce: nonce, dragToSeek: true, sampleRate: 16000, // the spectrogram goes up to half of it
    plugins: [regions],
  });
  const timeline = (zoom) => surfer.registerPlugin(Timeline.create({
    height: 18, timeInterval: interval(seconds / zoom), primaryLabelInterval: interval(seconds / zoom),
    formatTimeCallback: (at) => (at > seconds * (1 - 0.03 / zoom) ? "" : label(at)), // it would be cut off
    style: { fontSize: "11px", color: colour("--soft") },
  }));
  let times = timeline(1);
  const broken = () => { if (!gone) made.broken(); };
  const shade = (name, isLit) => `color-mix(in srgb, ${colour(name)} ${isLit ? 32 : 12}%, transparent)`;
  const draw = () => {
    isReady = true;
    container.dataset.drawn = "yes";
    regions.clearRegions();
    for (const span of spans) {
      if (span.start >= seconds) continue;
      span.region = regions.addRegion({ start: span.start, end: Math.min(span.end, seconds), drag: false, resize: false, color: shade(span.name) });
      span.region.on("click", (event) => { event.stopPropagation(); made.pressed(span); });
    }
  };
  surfer.on("error", broken);
  surfer.on("ready", draw);

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
  Object.assign(made, {
    playSpan(from, to) { stopAt = Math.min(to, seconds); media.currentTime = from; start(); },
    toggle() { if (media.paused) { stopAt = null; start(); } else media.pause(); },
    stop() { stopAt = null; media.pause(); },
    show(at) { media.currentTime = Math.min(at, seconds); },
    now: () => media.currentTime,
    light(lit) {
      for (const span of spans) span.region?.setOptions({ color: shade(span.name, lit && span.who === lit.who && span.start === lit.start && span.end === lit.end) });
    },
    toggleSpectrogram() {
      if (spectrogram) { spectrogram.destroy(); spectrogram = null; return false; }
      spectrogram = Spectrogram.create({ labels: true, height: 140, scale: "mel", frequencyMax: 8000, fftSamples: 512, useWebWorker: false, labelsColor: "#ffffff", labelsBackground: "transparent" });
      surfer.registerPlugin(spectrogram);
      return true;
    },
    label(zoom) { times.destroy(); times = timeline(zoom); },
    setSpans(now) { spans = now; if (isReady) draw(); },
    destroy() { gone = true; media.pause(); surfer.destroy(); },
  });
  if (seconds > SHORT) {
    try {
      const { peaks: pairs } = await peaks();
      if (!gone) surfer.load(url, [pairs.map(([low, high]) => (Math.abs(low) > Math.abs(high) ? low : high))], seconds).catch(broken);
    } catch { media.src = url; } // no picture, but its sound
  } else surfer.load(url).catch(broken);
  return made;
}
