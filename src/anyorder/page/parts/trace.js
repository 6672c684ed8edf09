// One trace on the page: a text or a board whose tokens can be shown as of any step.

function stepsOf(trace) {
  return Math.max(...trace.order) + 1;
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

function tokenTip(trace, i, hidden) {
  const steps = stepsOf(trace);
  if (trace.order[i] < 0) return [el("b", { class: "code" }, quoted(trace.tokens[i])), " was given"];
  if (hidden) return ["Not written yet"];
  const sure = Math.exp(Math.min(0, trace.logp[i]));
  return [el("b", { class: "code" }, quoted(trace.tokens[i])), el("br"), `step ${trace.order[i] + 1} of ${steps}`, el("br"), `probability ${probability(sure)}`, trace.wrong.includes(i) ? el("div", {}, "a mistake") : null].filter(Boolean);
}

function makeCell(trace, i) {
  const given = trace.order[i] < 0;
  const last = Math.max(1, stepsOf(trace) - 1);
  const wrong = trace.wrong.includes(i);
  const cell = el("span", {
    class: `token ${given ? "given" : "written"}${wrong ? " wrong" : ""}`,
    tabindex: i === 0 ? 0 : -1,
    "data-i": i,
    "--t": given ? null : (trace.order[i] / last).toFixed(3),
    "--p": given ? null : Math.exp(Math.min(0, trace.logp[i])).toFixed(3),
  });
  cell.append(...(trace.grid ? [el("span", { class: "digit" }, ...pieceNodes(trace.tokens[i]))] : pieceNodes(trace.tokens[i])));
  if (trace.grid && !given) cell.append(el("small", { "aria-hidden": "true" }, String(trace.order[i] + 1)));
  return cell;
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

// Pointer and focus show a token's step and probability; arrow keys walk through the tokens.
function addTokenKeys(canvas, trace, cells) {
  const show = (cell) => showTip(cell.getClientRects()[0] ?? cell.getBoundingClientRect(), ...tokenTip(trace, Number(cell.dataset.i), cell.classList.contains("hidden")));
  const over = (event) => {
    const cell = event.target.closest(".token");
    if (cell) show(cell);
    else hideTip();
  };
  canvas.addEventListener("pointerover", over);
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("focusin", over);
  canvas.addEventListener("focusout", hideTip);
  canvas.addEventListener("keydown", (event) => {
    const i = Number(event.target.closest(".token")?.dataset.i);
    const down = trace.grid ?? 10;
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -down, ArrowDown: down, Home: -cells.length, End: cells.length }[event.key];
    if (event.key === "Escape") hideTip();
    if (move === undefined || Number.isNaN(i)) return;
    event.preventDefault();
    cells[i].tabIndex = -1;
    const next = cells[clamp(i + move, 0, cells.length - 1)];
    next.tabIndex = 0;
    next.focus();
  });
}

// Where (across) and when (downwards) each token was written: a diagonal for an ARM, a cloud for an MDM.
function makeOrderMap(trace) {
  const steps = stepsOf(trace);
  const count = trace.order.length;
  const picture = svg("svg", { class: "ordermap", viewBox: `-1 -1 ${count + 1} ${steps + 1}`, preserveAspectRatio: "none", role: "img", "aria-label": "Map of the writing order: position from left to right, step from top to bottom" });
  const given = trace.order.map((at, i) => (at < 0 ? `M${i - 0.5} -1h1V${steps}h-1z` : "")).join("");
  const [later, done, now] = ["later", "done", "now"].map((name) => svg("path", { class: name }));
  picture.append(svg("path", { class: "given", d: given }), later, done, now);
  const dots = (keep) => trace.order.map((at, i) => (at >= 0 && keep(at) ? `M${i} ${at}h0` : "")).join("");
  const show = (step) => {
    later.setAttribute("d", dots((at) => at >= step));
    done.setAttribute("d", dots((at) => at < step));
    now.setAttribute("d", step > 0 && step < steps ? `M-1 ${step - 0.5}H${count}` : "");
  };
  const figure = el("figure", { class: "map" }, picture, el("figcaption", {}, el("span", {}, "\u2193 step"), el("span", {}, "position \u2192")));
  return { figure, show };
}

function paneFacts(trace) {
  const written = trace.order.filter((at) => at >= 0).length;
  const facts = [plural(written, "token"), plural(trace.nfe, "pass", "passes")];
  if (trace.seconds !== null) facts.push(duration(trace.seconds));
  return facts.join(" \u00b7 ");
}

// A line break that ends a token stands after it, so that no frame is drawn on the next line; the last one is dropped.
function textFlow(cells) {
  return cells.flatMap((cell, i) => {
    const end = cell.lastChild;
    if (end.data !== "\n") return [cell];
    end.remove();
    return i === cells.length - 1 ? [cell] : [cell, end];
  });
}

// A masked token is not read aloud either.
function setMasked(cell, hidden) {
  if (cell.classList.toggle("hidden", hidden)) {
    cell.setAttribute("role", "img");
    cell.setAttribute("aria-label", "masked");
  } else {
    cell.removeAttribute("role");
    cell.removeAttribute("aria-label");
  }
}

// A pane: heading, the text or board, a map of the order, notes. show(step) gives the state after that many steps.
function makePane(trace) {
  const cells = trace.tokens.map((_, i) => makeCell(trace, i));
  const canvas = el("div", { class: trace.grid ? `board ${trace.grid > 6 ? "dense" : ""}` : "text", role: "group", "aria-label": `${trace.kind}, ${trace.sampler}: the ${trace.grid ? "board" : "text"}. Arrow keys walk through it.`, "--columns": trace.grid }, ...(trace.grid ? cells : textFlow(cells)));
  if (trace.grid) boxBorders(cells, trace.grid);
  addTokenKeys(canvas, trace, cells);
  const map = trace.grid ? null : makeOrderMap(trace);
  const verdict = trace.ok === null ? null : el("p", { class: `verdict ${trace.ok ? "yes" : "no"}` }, trace.ok ? "\u2713 solved" : "\u2717 not solved");
  const steps = stepsOf(trace);
  const show = (step) => {
    cells.forEach((cell, i) => {
      const hidden = trace.order[i] >= step;
      cell.classList.toggle("fresh", trace.order[i] === step - 1 && step <= steps && trace.order[i] >= 0 && step < steps);
      setMasked(cell, hidden);
    });
    map?.show(step);
    verdict?.classList.toggle("pending", step < steps);
  };
  const head = el("div", { class: "panehead" }, el("span", { class: `badge ${trace.kind.toLowerCase()}` }, trace.kind), el("span", { class: "sampler" }, trace.sampler), el("span", { class: "facts" }, paneFacts(trace)));
  const notes = [trace.prompt, trace.note].filter(Boolean).map((text) => el("p", { class: "note" }, text));
  return { root: el("div", { class: "pane" }, head, canvas, verdict, map?.figure, ...notes), show, steps };
}
