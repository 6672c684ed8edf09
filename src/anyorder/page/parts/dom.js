"use strict";
// Small helpers: elements, numbers, the tooltip. Text always enters as text nodes.

const SVG_NAMESPACE = document.getElementById("theme-icon").namespaceURI;

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) node.style.setProperty(key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG_NAMESPACE, tag), attributes, children);
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

// 12345 -> "12.3k", 0.01234 -> "0.0123": three significant digits and a metric suffix.
function compact(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-3) return value.toExponential(1).replace("-", "\u2212");
  const suffixes = ["", "k", "M", "G", "T", "P", "E"];
  let power = size < 1 ? 0 : Math.min(suffixes.length - 1, Math.floor(Math.log10(size) / 3));
  let scaled = Number((value / 1000 ** power).toPrecision(3));
  if (Math.abs(scaled) >= 1000 && power < suffixes.length - 1) {
    power += 1;
    scaled /= 1000;
  }
  return `${minus(scaled)}${suffixes[power]}`;
}

function minus(value) {
  return String(value).replace("-", "\u2212");
}

// A value to as many decimals as its error deserves (two digits of the error).
function withError(value, error) {
  if (!error) return minus(Number(value.toPrecision(4)));
  const decimals = clamp(1 - Math.floor(Math.log10(error)), 0, 4);
  return `${minus(value.toFixed(decimals))} \u00b1 ${error.toFixed(decimals)}`;
}

function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)}\u202f%`;
}

// Probabilities: never print 1 or 0 for what is only close to it.
function probability(value) {
  if (value >= 0.9995) return "over 0.999";
  if (value < 0.0005) return value.toExponential(1).replace("-", "\u2212");
  return value.toFixed(3);
}

function duration(seconds) {
  if (seconds < 10) return `${Number(seconds.toPrecision(2))} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const total = Math.round(seconds);
  const hours = Math.floor(total / 3600);
  const minutes = Math.floor((total % 3600) / 60);
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${total % 60} s`;
}

function plural(count, noun, many = `${noun}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? noun : many}`;
}

// What follows "#" as settings, for links to a state: #t=0.5&theme=dark&colour=sure&show=1
function hashSettings() {
  const hash = location.hash.slice(1);
  return new URLSearchParams(hash.includes("=") ? hash : "");
}

function showTip(box, ...children) {
  const tip = document.getElementById("tip");
  tip.replaceChildren(...children);
  tip.hidden = false;
  const size = tip.getBoundingClientRect();
  const edge = document.documentElement.clientWidth;
  const left = clamp(box.left + box.width / 2 - size.width / 2, 8, Math.max(8, edge - size.width - 8));
  const above = box.top - size.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above < 8 ? box.bottom + 8 : above}px`;
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}
