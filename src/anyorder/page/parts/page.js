// Puts the page together from the data.

const data = JSON.parse(document.getElementById("data").textContent);

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  document.getElementById("theme-name").textContent = name === "dark" ? "Light" : "Dark";
}

function startTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const asked = hashSettings().get("theme");
  setTheme(["light", "dark"].includes(asked) ? asked : system.matches ? "dark" : "light");
  system.addEventListener("change", () => setTheme(system.matches ? "dark" : "light"));
  document.getElementById("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
}

// The page carries the record it shows; this saves it as a file.
function recordLink() {
  return el("a", { href: `data:application/jsonl;charset=utf-8,${encodeURIComponent(data.records)}`, download: "trace.jsonl" }, "save as trace.jsonl");
}

function fillHeader() {
  document.getElementById("kind").textContent = data.kind;
  document.getElementById("title").textContent = data.title;
  document.getElementById("subtitle").textContent = data.subtitle;
  const made = data.made_with;
  const facts = [["Command", made.command && el("code", {}, made.command)], ["Took", made.seconds !== null && duration(made.seconds)], ["Machine", made.machine], ...made.facts, ["Version", made.version + (made.commit ? ` (${made.commit})` : "")], ["Record", data.records && recordLink()]].filter(([, value]) => value);
  document.getElementById("made").append(...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  document.getElementById("foot").textContent = `Made by anyorder ${made.version}. This file is complete in itself: it loads nothing from the network.`;
  if (data.caveat) document.getElementById("main").prepend(el("aside", { class: "caveat", "aria-label": "A word of caution" }, el("p", {}, data.caveat)));
}

// A trace begins with what was written; a report with how to read it.
function fillGuide() {
  document.querySelectorAll("[data-for]").forEach((part) => (part.hidden = part.dataset.for !== data.kind));
  const writers = new Set(data.acts.flatMap((act) => act.samples.map((trace) => trace.kind)));
  document.querySelectorAll("[data-writer]").forEach((part) => (part.hidden = !writers.has(part.dataset.writer)));
  if (data.kind === "trace") document.getElementById("acts").after(document.getElementById("guide"));
}

function fillContents() {
  const links = data.acts.map((act, i) => [`#act-${i + 1}`, act.title || act.name]);
  links.splice(data.kind === "trace" ? links.length : 0, 0, ["#guide", "How to read it"]);
  if (data.config) links.push(["#config", "Configuration"]);
  document.getElementById("contents").append(...links.map(([href, text]) => el("a", { href }, text)));
}

// Two curves of one model differ by what follows its name: the second takes a colour of its own.
function colourOf(label, position, labels) {
  const model = label.slice(0, 3);
  if (labels.findIndex((other) => other.startsWith(model)) !== position) return 3;
  if (label.startsWith("MDM")) return 0;
  if (label.startsWith("ARM")) return 1;
  if (label.startsWith("ILM")) return 2;
  return 2 + (position % 2);
}

function curvePlots(curves) {
  const units = [...new Set(curves.map((curve) => curve.unit))];
  return units.map((unit) => {
    const labels = curves.filter((curve) => curve.unit === unit).map((curve) => curve.label);
    const series = curves.filter((curve) => curve.unit === unit).map((curve, i) => {
      const points = [...curve.points].sort((a, b) => a[0] - b[0]);
      const last = points[points.length - 1];
      return { label: curve.label, colour: colourOf(curve.label, i, labels), points, final: curve.final === null ? [last[1], last[2]] : [curve.final, curve.final_stderr ?? 0] };
    });
    const solving = unit === "% solved";
    return makePlot({
      title: solving ? "Learning to solve" : "Learning",
      note: solving ? "Puzzles kept out of training, each written once. Higher is better; bars show \u00b11 standard error." : "Measured on text kept out of training. Lower is better; bars show \u00b11 standard error.",
      xLabel: "tokens seen in training",
      yLabel: unit,
      tipHead: (x) => `after ${compact(x)} tokens`,
      series,
    });
  });
}

function zPlot(points) {
  const sorted = [...points].sort((a, b) => a[0] - b[0]);
  const last = sorted[sorted.length - 1];
  return makePlot({
    title: "How hard is one more token when n are hidden?",
    note: "With few tokens hidden, the rest give them away; with many hidden, the model must nearly guess. The average height of this curve is the model\u2019s cost per token.",
    xLabel: "hidden tokens, n",
    yLabel: "nats per hidden token",
    linear: true,
    tipHead: (x) => `${plural(x, "token")} hidden`,
    series: [{ label: "MDM", colour: 0, points: sorted, final: [last[1], last[2]] }],
  });
}

function shareCell(cell) {
  const error = cell.stderr ?? 0;
  const bar = el("span", { class: "sharebar", "aria-hidden": "true", "--share": cell.share, "--low": clamp(cell.share - error, 0, 1), "--high": clamp(cell.share + error, 0, 1) }, el("i"), error ? el("u") : null);
  return el("td", { class: "share" }, el("span", { class: "number" }, percent(cell.share), error ? el("small", {}, ` \u00b1 ${(100 * error).toFixed(1)}`) : null), bar);
}

function tableCell(cell, i) {
  if (cell !== null && typeof cell === "object") return shareCell(cell);
  const text = cell === null ? "\u2013" : typeof cell === "number" ? (Number.isInteger(cell) ? minus(cell.toLocaleString("en")) : minus(Number(cell.toPrecision(4)))) : cell;
  return i === 0 ? el("th", { scope: "row" }, text) : el("td", { class: typeof cell === "number" ? "number" : "" }, text);
}

function makeTable(table) {
  const kinds = table.columns.map((_, i) => (table.rows.some((row) => typeof row[i] === "number") ? "number" : ""));
  const head = el("tr", {}, ...table.columns.map((name, i) => el("th", { scope: "col", class: kinds[i] }, name)));
  const body = table.rows.map((row) => el("tr", {}, ...row.map(tableCell)));
  const caption = table.caption ? el("caption", {}, table.caption) : null;
  return el("div", { class: "card" }, el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": table.caption || "Results" }, el("table", { class: "results" }, caption, el("thead", {}, head), el("tbody", {}, ...body))));
}

function makeCosts(costs) {
  const card = (cost) => el("div", { class: "cost" }, el("dt", {}, cost.label), el("dd", {}, el("b", {}, typeof cost.value === "number" ? compact(cost.value) : cost.value), cost.unit ? ` ${cost.unit}` : ""), cost.help ? el("dd", { class: "help" }, cost.help) : null);
  return el("dl", { class: "costs" }, ...costs.map(card));
}

function makeAct(act, index) {
  const id = `act-${index + 1}`;
  const plots = [...curvePlots(act.curves), ...(act.z_curve.length ? [zPlot(act.z_curve)] : [])];
  return el("section", { class: "act", id, "aria-labelledby": `${id}-title` },
    data.kind === "trace" ? null : el("p", { class: "eyebrow" }, data.acts.length > 1 ? `Part ${index + 1} of ${data.acts.length}` : act.name),
    el("h2", { id: `${id}-title` }, act.title || act.name),
    el("p", { class: "summary" }, act.summary),
    act.samples.length ? makeSamples(act.samples) : null,
    act.table ? makeTable(act.table) : null,
    plots.length ? el("div", { class: "plots" }, ...plots) : null,
    act.cost.length ? makeCosts(act.cost) : null,
  );
}

function fillConfig() {
  if (!data.config) return;
  document.getElementById("yaml").textContent = data.config;
  document.getElementById("config").hidden = false;
}

startTheme();
fillHeader();
fillGuide();
fillContents();
document.getElementById("acts").append(...data.acts.map(makeAct));
fillConfig();
addEventListener("scroll", hideTip, { passive: true });
