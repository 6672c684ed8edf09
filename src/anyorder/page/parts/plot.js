// Line plots with error bars, drawn anew at every width so that text keeps its size.

const PLOT = { height: 300, left: 48, right: 16, top: 16, bottom: 44 };

function niceStep(span, count) {
  const raw = span / count;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const ratio = raw / unit;
  return unit * (ratio > 5 ? 10 : ratio > 2 ? 5 : ratio > 1 ? 2 : 1);
}

function linearTicks(low, high, step) {
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

function logTicks(low, high, count) {
  for (const digits of [[1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      ticks.push(...digits.map((digit) => digit * 10 ** power).filter((x) => x >= low && x <= high));
    }
    if (ticks.length <= count || digits.length === 1) return ticks.length > 1 ? ticks : [low, high];
  }
  return [];
}

// Pixel positions of data values: padded nice range upright, linear or logarithmic range across.
function makeScales(spec, width) {
  const points = spec.series.flatMap((one) => one.points);
  const xs = points.map((p) => p[0]);
  const [xLow, xHigh] = [Math.min(...xs), Math.max(...xs)];
  const log = !spec.linear && xLow > 0 && xHigh / xLow > 12;
  const yLow = Math.min(...points.map((p) => p[1] - p[2]));
  const yHigh = Math.max(...points.map((p) => p[1] + p[2]));
  const noneBelow = points.every((p) => p[1] >= 0); // only error bars may reach below 0: they end at the axis
  const step = niceStep((yHigh - yLow || Math.abs(yHigh) || 1) * 1.08, 5);
  const [bottom, top] = [Math.max(Math.floor(yLow / step), noneBelow ? 0 : -Infinity) * step, Math.ceil(yHigh / step) * step];
  const inner = width - PLOT.left - PLOT.right - 16;
  const position = (x) => (xHigh === xLow ? 0.5 : log ? Math.log(x / xLow) / Math.log(xHigh / xLow) : (x - xLow) / (xHigh - xLow));
  const high = PLOT.height - PLOT.top - PLOT.bottom;
  const count = Math.max(3, Math.floor(width / 90));
  return {
    log,
    x: (x) => PLOT.left + 8 + inner * position(x),
    y: (y) => PLOT.top + high * (1 - (Math.max(y, bottom) - bottom) / (top - bottom || 1)),
    xTicks: log ? logTicks(xLow, xHigh, count) : linearTicks(xLow, xHigh, niceStep(xHigh - xLow || 1, count)),
    yTicks: linearTicks(bottom, top, step),
  };
}

function drawAxes(scales, spec, width) {
  const base = PLOT.height - PLOT.bottom;
  const group = svg("g", { class: "axes" });
  for (const tick of scales.yTicks) {
    const y = scales.y(tick);
    group.append(
      svg("line", { class: "rule", x1: PLOT.left, x2: width - PLOT.right, y1: y, y2: y }),
      svg("text", { x: PLOT.left - 10, y: y + 4, "text-anchor": "end" }, minus(tick)),
    );
  }
  for (const tick of scales.xTicks) {
    const x = scales.x(tick);
    group.append(
      svg("line", { class: "mark", x1: x, x2: x, y1: base, y2: base + 5 }),
      svg("text", { x, y: base + 19, "text-anchor": "middle" }, compact(tick)),
    );
  }
  const middle = (PLOT.left + width - PLOT.right) / 2;
  group.append(
    svg("line", { class: "base", x1: PLOT.left, x2: width - PLOT.right, y1: base, y2: base }),
    svg("text", { class: "label", x: middle, y: PLOT.height - 6, "text-anchor": "middle" }, spec.xLabel + (scales.log ? " (logarithmic scale)" : "")),
  );
  return group;
}

function marker(shape, x, y) {
  const r = 3.6;
  if (shape === 1) return svg("rect", { class: "dot", x: x - r, y: y - r, width: 2 * r, height: 2 * r });
  if (shape === 2) return svg("path", { class: "dot", d: `M${x} ${y - r * 1.3}L${x + r * 1.3} ${y}L${x} ${y + r * 1.3}L${x - r * 1.3} ${y}z` });
  return svg("circle", { class: "dot", cx: x, cy: y, r });
}

function drawSeries(one, scales) {
  const group = svg("g", { class: `series s${one.colour}` });
  const line = one.points.map((p, i) => `${i ? "L" : "M"}${scales.x(p[0]).toFixed(1)} ${scales.y(p[1]).toFixed(1)}`);
  const cap = one.points.length > 40 ? 0 : 3.5;
  const bars = one.points.map(([px, py, error]) => {
    const [x, low, high] = [scales.x(px), scales.y(py - error), scales.y(py + error)];
    const caps = cap ? `M${x - cap} ${low}h${2 * cap}M${x - cap} ${high}h${2 * cap}` : "";
    return error ? `M${x} ${low}V${high}${caps}` : "";
  });
  group.append(svg("path", { class: "line", d: line.join("") }), svg("path", { class: "bar", d: bars.join("") }));
  if (one.points.length <= 60) group.append(...one.points.map((p) => marker(one.colour, scales.x(p[0]), scales.y(p[1]))));
  return group;
}

function nearest(points, x) {
  return points.reduce((best, p) => (Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best));
}

// Pointer and arrow keys move a vertical guide over the union of all x values.
function addCursor(frame, spec, state) {
  const xs = [...new Set(spec.series.flatMap((one) => one.points.map((p) => p[0])))].sort((a, b) => a - b);
  const show = (index) => {
    state.index = clamp(index, 0, xs.length - 1);
    const x = xs[state.index];
    const at = state.scales.x(x);
    state.guide.setAttribute("d", `M${at} ${PLOT.top}V${PLOT.height - PLOT.bottom}`);
    const rows = spec.series.map((one) => {
      const p = nearest(one.points, x);
      return el("div", { class: "tiprow" }, swatch(one.colour), `${one.label}: `, el("b", {}, withError(p[1], p[2])));
    });
    const box = frame.getBoundingClientRect();
    showTip({ left: box.left + at, width: 0, top: box.top + PLOT.top, bottom: box.top + PLOT.top + 20 }, el("div", { class: "tiphead" }, spec.tipHead(x)), ...rows);
  };
  const hide = () => {
    state.guide.setAttribute("d", "");
    hideTip();
  };
  frame.addEventListener("pointermove", (event) => {
    const at = event.clientX - frame.getBoundingClientRect().left;
    show(xs.reduce((best, x, i) => (Math.abs(state.scales.x(x) - at) < Math.abs(state.scales.x(xs[best]) - at) ? i : best), 0));
  });
  frame.addEventListener("pointerleave", hide);
  frame.addEventListener("blur", hide);
  frame.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -xs.length, End: xs.length }[event.key];
    if (event.key === "Escape") hide();
    if (move === undefined) return;
    event.preventDefault();
    show((state.index ?? (move > 0 ? -1 : xs.length)) + move);
  });
}

function swatch(colour) {
  const picture = svg("svg", { class: `swatch series s${colour}`, viewBox: "0 0 22 12", width: 22, height: 12, "aria-hidden": "true" });
  picture.append(svg("path", { class: "line", d: "M1 6H21" }), marker(colour, 11, 6));
  return picture;
}

function numbersTable(spec) {
  const head = el("tr", {}, ...["", spec.xLabel, spec.yLabel, "standard error"].map((text) => el("th", { scope: "col" }, text)));
  const rows = spec.series.flatMap((one) =>
    one.points.map((p) => el("tr", {}, el("th", { scope: "row" }, one.label), ...[p[0].toLocaleString("en"), minus(Number(p[1].toPrecision(5))), Number(p[2].toPrecision(2))].map((text) => el("td", {}, String(text))))),
  );
  return el("details", { class: "numbers" }, el("summary", {}, "The numbers"), el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows))));
}

// spec: title, note, xLabel, yLabel, linear (never a logarithmic axis), tipHead(x), series: [{label, colour, points: [[x, y, error]], final}]
function makePlot(spec) {
  const words = spec.series.map((one) => `${one.label} ends at ${withError(...one.final)}`).join("; ");
  const frame = el("div", { class: "frame", tabindex: 0, role: "group", "aria-label": `${spec.title}. ${spec.yLabel} against ${spec.xLabel}. ${words}. Arrow keys read the points.` });
  const state = { scales: null, guide: null, index: null };
  const draw = (width) => {
    state.scales = makeScales(spec, width);
    state.guide = svg("path", { class: "cursor" });
    const picture = svg("svg", { width, height: PLOT.height, viewBox: `0 0 ${width} ${PLOT.height}`, "aria-hidden": "true" });
    picture.append(drawAxes(state.scales, spec, width), state.guide, ...spec.series.map((one) => drawSeries(one, state.scales)));
    frame.replaceChildren(picture);
  };
  new ResizeObserver((entries) => draw(Math.max(260, Math.floor(entries[0].contentRect.width)))).observe(frame);
  addCursor(frame, spec, state);
  const legend = spec.series.length < 2 ? null : el("ul", { class: "legend" }, ...spec.series.map((one) => el("li", {}, swatch(one.colour), el("span", {}, one.label), el("b", {}, withError(...one.final)))));
  return el("figure", { class: "card plot" }, el("figcaption", {}, el("h3", {}, spec.title), el("p", {}, spec.note)), legend ?? "", el("p", { class: "unit" }, spec.yLabel), frame, numbersTable(spec));
}
