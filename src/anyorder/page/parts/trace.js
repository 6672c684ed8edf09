// One trace on the page: a text or a board whose tokens can be shown as of any step.

// How far its clock runs: to the last token, or to the last pass, which may have changed nothing.
function stepsOf(trace) {
  const written = Math.max(...trace.order) + 1;
  return trace.clock === "pass" ? Math.max(trace.nfe, written) : written;
}

// What stood at each position over time: [{at, piece, logp}, ...], a piece of null where it went back to the mask.
function historiesOf(trace) {
  const histories = trace.order.map((at, i) => (trace.events.length || at < 0 ? [] : [{ at, piece: trace.tokens[i], logp: trace.logp[i] }]));
  for (const [at, i, piece, logp] of trace.events) histories[i].push({ at, piece, logp });
  return histories;
}

// The last event of a history that has happened after so many steps, or -1.
function lastEvent(history, step) {
  let k = history.length - 1;
  while (k >= 0 && history[k].at >= step) k -= 1;
  return k;
}

// Control characters get a visible sign; a line break is a faint sign and then the break itself.
function pieceNodes(piece) {
  if (piece === "") return [document.createTextNode("\u2205")];
  const shown = piece.replace(/\r\n?/g, "\n").replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0))).replace(/[\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, "\u00b7");
  return shown.split(/(\n)/).filter((part) => part !== "").flatMap((part) => (part === "\n" ? [el("span", { class: "newline", "aria-hidden": "true" }, "\u21b5"), document.createTextNode("\n")] : [document.createTextNode(part)]));
}

function quoted(piece) {
  const text = JSON.stringify(piece);
  return text.length > 42 ? `${text.slice(0, 40)}\u2026` : text;
}

const MOST_EVENTS = 8; // of a position that the tooltip lists

function eventLine(trace, event) {
  const when = `${trace.clock} ${event.at + 1}: `;
  if (event.piece === null) return el("div", {}, when, "taken back");
  return el("div", {}, when, el("b", { class: "code" }, quoted(event.piece)), `, probability ${probability(Math.exp(Math.min(0, event.logp)))}`);
}

function tokenTip(trace, i, history, step) {
  if (trace.order[i] < 0) return [el("b", { class: "code" }, quoted(trace.tokens[i])), " was given"];
  const k = lastEvent(history, step);
  if (k < 0) return ["Not written yet"];
  const wrong = trace.wrong.includes(i) && step >= stepsOf(trace) ? el("div", {}, "a mistake") : null;
  if (history.length > 1) {
    const from = Math.max(0, k + 1 - MOST_EVENTS);
    const lines = history.slice(from, k + 1).map((event) => eventLine(trace, event));
    return [el("div", { class: "tiphead" }, from ? `position ${i + 1}, the last ${MOST_EVENTS} changes` : `position ${i + 1}`), ...lines, wrong].filter(Boolean);
  }
  const event = history[k];
  return [el("b", { class: "code" }, quoted(event.piece)), el("br"), `${trace.clock} ${event.at + 1} of ${stepsOf(trace)}`, el("br"), `probability ${probability(Math.exp(Math.min(0, event.logp)))}`, wrong].filter(Boolean);
}

// A cell and its place in the flow: `tail` holds a line break that ends the token, so that no frame is drawn on the next line.
function makeCell(trace, i) {
  const given = trace.order[i] < 0;
  const root = el("span", { class: `token ${given ? "given" : "written"}`, tabindex: i === 0 ? 0 : -1, "data-i": i });
  const cell = { root, tail: document.createTextNode(""), shown: null };
  if (given) setPiece(trace, cell, trace.tokens[i]);
  return cell;
}

function setPiece(trace, cell, piece) {
  if (cell.shown === piece) return;
  cell.shown = piece;
  const nodes = pieceNodes(piece);
  if (trace.grid) {
    cell.root.replaceChildren(el("span", { class: "digit" }, ...nodes));
    return;
  }
  cell.tail.data = nodes[nodes.length - 1].data === "\n" ? nodes.pop().data : "";
  cell.root.replaceChildren(...nodes);
}

// Show a cell as of a step. A masked one is as wide as what comes next there, and is not read aloud; one of a text that
// grows is not there at all before its token is.
function paintCell(trace, i, cell, history, step) {
  const steps = stepsOf(trace);
  const k = lastEvent(history, step);
  const event = history[k] ?? null;
  const masked = event === null || event.piece === null;
  const now = event !== null && event.at === step - 1 && step < steps;
  const states = { hidden: masked, fresh: now && !masked, back: now && masked, again: !masked && k > 0, wrong: trace.wrong.includes(i) && event === history[history.length - 1] };
  const key = `${k} ${now}`;
  if (cell.key === key) return masked;
  cell.key = key;
  for (const [name, on] of Object.entries(states)) cell.root.classList.toggle(name, on);
  cell.root.hidden = trace.grows && masked;
  if (cell.root.hidden) {
    cell.tail.data = "";
    cell.shown = null;
    return masked;
  }
  const visible = masked ? history.slice(k + 1).find((later) => later.piece !== null) : event;
  setPiece(trace, cell, visible.piece);
  cell.root.style.setProperty("--t", (visible.at / Math.max(1, steps - 1)).toFixed(3));
  cell.root.style.setProperty("--p", Math.exp(Math.min(0, visible.logp)).toFixed(3));
  if (trace.grid) {
    cell.root.querySelector("small")?.remove();
    cell.root.append(el("small", { "aria-hidden": "true" }, String(visible.at + 1)));
  }
  if (masked) {
    cell.root.setAttribute("role", "img");
    cell.root.setAttribute("aria-label", now ? "taken back" : "masked");
  } else {
    cell.root.removeAttribute("role");
    cell.root.removeAttribute("aria-label");
  }
  return masked;
}

// Thick lines after every box where the width is a square number (2x2 boxes on a board of 4).
function boxBorders(cells, width) {
  const box = Math.sqrt(width);
  if (!Number.isInteger(box) || box < 2) return;
  cells.forEach((cell, i) => {
    const [row, column] = [Math.floor(i / width), i % width];
    if (column % box === box - 1 && column < width - 1) cell.classList.add("box-right");
    if (row % box === box - 1 && row < cells.length / width - 1) cell.classList.add("box-below");
  });
}

// Pointer and focus show what stood at a position, when, and its probability; arrow keys walk through the tokens.
function addTokenKeys(canvas, trace, cells, tipOf) {
  const show = (cell) => showTip(cell.getClientRects()[0] ?? cell.getBoundingClientRect(), ...tipOf(Number(cell.dataset.i)));
  const over = (event) => {
    const cell = event.target.closest(".token");
    if (cell) show(cell);
    else hideTip();
  };
  canvas.addEventListener("pointerover", over);
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("focusin", over);
  canvas.addEventListener("click", over);
  canvas.addEventListener("focusout", hideTip);
  canvas.addEventListener("keydown", (event) => {
    const here = cells.filter((cell) => !cell.hidden);
    const i = here.indexOf(event.target.closest(".token"));
    const down = trace.grid ?? 10;
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -down, ArrowDown: down, Home: -cells.length, End: cells.length }[event.key];
    if (event.key === "Escape") hideTip();
    if (move === undefined || i < 0) return;
    event.preventDefault();
    here[i].tabIndex = -1;
    const next = here[clamp(i + move, 0, here.length - 1)];
    next.tabIndex = 0;
    next.focus();
  });
}

// The tab key finds one token: the one it found last, or if that is gone the first that is there.
function reachable(cells) {
  const found = cells.find((cell) => cell.tabIndex === 0 && !cell.hidden) ?? cells.find((cell) => !cell.hidden);
  for (const cell of cells) cell.tabIndex = cell === found ? 0 : -1;
}

// Where (across) and when (downwards) each token was written: a diagonal for an ARM, a cloud for an MDM.
function makeOrderMap(trace, histories) {
  const steps = stepsOf(trace);
  const count = trace.order.length;
  const picture = svg("svg", { class: "ordermap", viewBox: `-1 -1 ${count + 1} ${steps + 1}`, preserveAspectRatio: "none", role: "img", "aria-label": `Map of the writing order: position from left to right, ${trace.clock} from top to bottom` });
  const given = trace.order.map((at, i) => (at < 0 ? `M${i - 0.5} -1h1V${steps}h-1z` : "")).join("");
  const [later, done, back, now] = ["later", "done", "back", "now"].map((name) => svg("path", { class: name }));
  picture.append(svg("path", { class: "given", d: given }), later, done, back, now);
  const every = histories.flatMap((history, i) => history.map((event) => ({ i, at: event.at, back: event.piece === null })));
  const dots = (keep) => every.map((dot) => (keep(dot) ? `M${dot.i} ${dot.at}h0` : "")).join("");
  const show = (step) => {
    later.setAttribute("d", dots((dot) => dot.at >= step));
    done.setAttribute("d", dots((dot) => dot.at < step && !dot.back));
    back.setAttribute("d", dots((dot) => dot.at < step && dot.back));
    now.setAttribute("d", step > 0 && step < steps ? `M-1 ${step - 0.5}H${count}` : "");
  };
  const figure = el("figure", { class: "map" }, picture, el("figcaption", {}, el("span", {}, `\u2193 ${trace.clock}`), el("span", {}, trace.grows ? "position in the finished text \u2192" : "position \u2192")));
  return { figure, show };
}

// What a trace cost, as of a step; one that counts passes also says how many tokens each has brought so far.
function paneFacts(trace, histories, step, visible) {
  const total = trace.order.filter((at) => at >= 0).length;
  const finished = step >= stepsOf(trace);
  const facts = [];
  if (trace.clock === "pass") {
    const passes = finished ? trace.nfe : step;
    const changed = histories.map((history) => history.filter((event, k) => event.at < step && (event.piece === null || (k > 0 && history[k - 1].piece !== null))).length).reduce((a, b) => a + b, 0);
    facts.push(finished || trace.grows ? plural(visible, "token") : `${visible} of ${plural(total, "token")}`, finished ? plural(passes, "pass", "passes") : `${passes} of ${plural(trace.nfe, "pass", "passes")}`);
    if (passes > 0) facts.push(`${(visible / passes).toFixed(2)} tokens a pass`);
    if (histories.some((history) => history.length > 1)) facts.push(`${changed} revised`);
  } else facts.push(plural(total, "token"), plural(trace.nfe, "pass", "passes"));
  if (trace.seconds !== null) facts.push(duration(trace.seconds));
  return facts.join(" \u00b7 ");
}

// A pane: heading, the text or board, a map of the order, notes. show(step) gives the state after that many steps.
function makePane(trace) {
  const histories = historiesOf(trace);
  const cells = trace.tokens.map((_, i) => makeCell(trace, i));
  const flow = trace.grid ? cells.map((cell) => cell.root) : cells.flatMap((cell, i) => (i === cells.length - 1 ? [cell.root] : [cell.root, cell.tail]));
  const roots = cells.map((cell) => cell.root);
  const canvas = el("div", { class: trace.grid ? `board ${trace.grid > 6 ? "dense" : ""}` : "text", role: "group", "aria-label": `${trace.kind}, ${trace.sampler}: the ${trace.grid ? "board" : "text"}. Arrow keys walk through it.`, "--columns": trace.grid }, ...flow);
  if (trace.grid) boxBorders(roots, trace.grid);
  let at = 0;
  addTokenKeys(canvas, trace, roots, (i) => tokenTip(trace, i, histories[i], at));
  const map = trace.grid ? null : makeOrderMap(trace, histories);
  const verdict = trace.ok === null ? null : el("p", { class: `verdict ${trace.ok ? "yes" : "no"}` }, trace.ok ? "\u2713 solved" : "\u2717 not solved");
  const facts = el("span", { class: "facts" });
  const steps = stepsOf(trace);
  const show = (step) => {
    at = step;
    const masked = cells.map((cell, i) => trace.order[i] >= 0 && paintCell(trace, i, cell, histories[i], step));
    const visible = masked.filter((hidden, i) => trace.order[i] >= 0 && !hidden).length;
    if (trace.grows) reachable(roots);
    map?.show(step);
    facts.textContent = paneFacts(trace, histories, step, visible);
    verdict?.classList.toggle("pending", step < steps);
  };
  const head = el("div", { class: "panehead" }, el("span", { class: `badge ${trace.kind.toLowerCase()}` }, trace.kind), el("span", { class: "sampler" }, trace.sampler), facts);
  const notes = [trace.prompt, trace.note].filter(Boolean).map((text) => el("p", { class: "note" }, text));
  return { root: el("div", { class: "pane" }, head, canvas, verdict, map?.figure, ...notes), show, steps };
}
