// What every part of the page uses: its elements, its line of status, and what it asks the server.

const meta = (name) => document.querySelector(`meta[name="tgsr-${name}"]`).content;
export const nonce = meta("nonce");
export const isStatic = meta("static") === "1";
export const $ = (id) => document.getElementById(id);

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  made.append(...children.filter((child) => child != null)); // first: dir="auto" looks at all of them whenever one comes
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  return made;
}

export function say(text) { $("status").textContent = text; }

export async function get(path, options) {
  let answer;
  try { answer = await fetch(path, options); } catch { if (options?.signal?.aborted) throw new Error("cancelled"); throw new Error("the server does not answer: is it still running?"); }
  if (!answer.ok) {
    let told = `the server says ${answer.status}`;
    try { told = (await answer.json()).problem || told; } catch { /* no JSON: the status has to do */ }
    throw new Error(told);
  }
  return answer.json();
}
