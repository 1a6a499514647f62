// Small helpers: elements, numbers and times as people read them.

// element("p", {class: "x", onclick: f}, "text", child, ...): attributes, listeners, children; null children are left out.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value);
  }
  append(made, children);
  return made;
}

function append(parent, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child);
  }
}

export function replace(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const grouped = new Intl.NumberFormat("en", {maximumFractionDigits: 0});

export const count = (value) => grouped.format(value);

// Four significant digits; very large and very small ones with an exponent.
export function figure(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const days = Math.floor(whole / 86400);
  const hours = Math.floor(whole / 3600) % 24;
  const minutes = Math.floor(whole / 60) % 60;
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  if (minutes > 0) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${whole} s`;
}

export function clock(seconds) {
  if (!seconds) return "–";
  const time = new Date(seconds * 1000);
  const today = new Date().toDateString() === time.toDateString();
  return time.toLocaleString("en-GB", today ? {timeStyle: "medium"} : {dateStyle: "medium", timeStyle: "short"});
}

export const percent = (part) => `${Math.floor(Math.min(1, Math.max(0, part)) * 100)} %`;

// The share of a job that is done: 0 to 1, or null when nobody knows.
export function share(job) {
  if (job.state === "succeeded") return 1;
  const progress = job.progress;
  if (!progress) return null;
  if (progress.images_total > 0) return progress.images / progress.images_total;
  if (progress.iterations > 0) return progress.iteration / progress.iterations;
  return null;
}

// A symbol and a word: never a colour alone.
const symbols = {
  waiting: "○", blocked: "⊘", queued: "◔", starting: "◑", running: "▶", stopping: "◼",
  succeeded: "✓", failed: "✕", cancelled: "–", interrupted: "‖",
};

export function stateBadge(state) {
  return element("span", {class: `badge state-${state}`},
    element("span", {"aria-hidden": "true", class: "symbol"}, symbols[state] ?? "·"), state);
}

export function bar(job, label) {
  const done = share(job);
  const known = done !== null;
  const track = element("div", {
    class: `bar${job.state === "running" && !known ? " unknown" : ""}`, role: "progressbar", "aria-label": label,
    "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": known ? String(Math.floor(done * 100)) : null,
  });
  const fill = element("div", {class: `fill state-${job.state}`});
  fill.style.width = known ? `${Math.max(done * 100, done > 0 ? 0.5 : 0)}%` : "0";
  track.append(fill);
  return track;
}

export const isEnded = (state) => ["succeeded", "failed", "cancelled", "interrupted"].includes(state);

let toastTimer = null;
export function toast(text, kind = "note") {
  const box = document.getElementById("toasts");
  replace(box, element("p", {class: `toast ${kind}`}, text));
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => replace(box), 6000);
}
