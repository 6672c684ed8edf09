// The player: one clock for the traces of a group, with play, pause, slider, speed and colouring.

const SPEEDS = [0.25, 0.5, 1, 2, 4];
const COLOURS = [
  ["order", "When", "first", "last"],
  ["sure", "How sure", "unsure", "sure"],
  ["plain", "Plain", "", ""],
];

function makeClock(steps, onStep) {
  const perSecond = clamp(steps / 8, 2, 60); // a whole trace takes about eight seconds at speed 1
  const clock = { step: steps, exact: steps, playing: false, speed: 1, before: 0 };
  const tick = (now) => {
    if (!clock.playing) return;
    clock.exact = Math.min(steps, clock.exact + ((now - clock.before) / 1000) * perSecond * clock.speed);
    clock.before = now;
    if (clock.exact >= steps) clock.playing = false;
    clock.step = Math.floor(clock.exact + 1e-9);
    onStep(clock);
    if (clock.playing) requestAnimationFrame(tick);
  };
  clock.seek = (step) => {
    clock.step = clock.exact = clamp(step, 0, steps);
    onStep(clock);
  };
  clock.toggle = () => {
    clock.playing = !clock.playing;
    if (clock.playing && clock.step >= steps) clock.exact = 0;
    clock.before = performance.now();
    clock.step = Math.floor(clock.exact);
    onStep(clock);
    if (clock.playing) requestAnimationFrame(tick);
  };
  return clock;
}

function segmented(label, options, chosen, onPick) {
  const buttons = options.map(([value, text]) => el("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => pick(value) }, text));
  const pick = (value) => {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(options[i][0] === value)));
    onPick(value);
  };
  return el("div", { class: "segmented", role: "group", "aria-label": label }, ...buttons);
}

function makeKey(traces) {
  const scales = COLOURS.filter(([name]) => name !== "plain").map(([name, , low, high]) => el("span", { class: `scale for-${name}` }, low, el("i", { class: `ramp ${name}` }), high));
  const given = traces.some((trace) => trace.order.includes(-1)) ? el("span", { class: "sign" }, el("i", { class: "token given" }, "abc"), "given") : null;
  const sign = (name, text) => el("span", { class: "sign" }, el("i", { class: `token written ${name}` }, "abc"), text);
  const wrong = traces.some((trace) => trace.wrong.length) ? sign("wrong", "mistake") : null;
  const back = traces.some((trace) => trace.events.some(([, , piece]) => piece === null)) ? sign("hidden back", "just taken back") : null;
  const again = traces.some((trace) => historiesOf(trace).some((history) => history.length > 1)) ? sign("again", "written anew") : null;
  const masks = traces.some((trace) => !trace.grows);
  const wide = traces.some((trace) => !trace.grid) ? "still masked; drawn as wide as what will stand there, which the model does not know" : "still masked";
  return el("div", { class: "key" }, ...scales, given, wrong, back, again, masks ? el("span", { class: "sign" }, el("i", { class: "token written hidden" }, "abc"), wide) : null);
}

function makeControls(clock, steps, unit, setColour, colour) {
  const icon = svg("path", { fill: "currentColor" });
  const name = el("span", {}, "Play");
  const play = el("button", { type: "button", class: "play", onclick: clock.toggle }, svg("svg", { viewBox: "0 0 16 16", width: 14, height: 14, "aria-hidden": "true" }, icon), name);
  const slider = el("input", { type: "range", min: 0, max: steps, step: 1, "aria-label": unit === "pass" ? "Pass" : "Step", oninput: () => clock.seek(Number(slider.value)) });
  const counter = el("output", { class: "counter" });
  const speed = el("select", { "aria-label": "Speed", onchange: () => (clock.speed = Number(speed.value)) }, ...SPEEDS.map((x) => el("option", { value: x, selected: x === 1 }, `${x}\u00d7`)));
  const jump = (text, label, by) => el("button", { type: "button", class: "ghost jump", "aria-label": label, onclick: () => clock.seek(clock.step + by) }, text);
  const root = el("div", { class: "controls" }, play, el("span", { class: "jumps" }, jump("\u2039", `One ${unit} back`, -1), jump("\u203a", `One ${unit} on`, 1)), slider, counter, speed, segmented("Colour of the tokens", COLOURS, colour, setColour));
  const update = () => {
    slider.value = clock.step;
    slider.style.setProperty("--done", `${(100 * clock.step) / steps}%`);
    slider.setAttribute("aria-valuetext", `${unit} ${clock.step} of ${steps}`);
    counter.replaceChildren(unit === "pass" ? "pass " : "", el("b", {}, String(clock.step)), ` / ${steps}`);
    icon.setAttribute("d", clock.playing ? "M3 2h4v12H3zM9 2h4v12H9z" : "M3.5 1.5l10.5 6.5-10.5 6.5z");
    name.textContent = clock.playing ? "Pause" : clock.step >= steps ? "Replay" : "Play";
  };
  return { root, update };
}

function makePlayer(traces, colour) {
  const panes = traces.map(makePane);
  const steps = Math.max(1, ...panes.map((pane) => pane.steps));
  const root = el("div", { class: "player", "data-colour": colour });
  const clock = makeClock(steps, () => {
    panes.forEach((pane) => pane.show(Math.min(clock.step, pane.steps)));
    controls.update();
  });
  const controls = makeControls(clock, steps, traces[0].clock, (name) => (root.dataset.colour = name), colour);
  const boards = traces.every((trace) => trace.grid);
  root.append(controls.root, el("div", { class: `panes ${boards ? "boards" : ""}`, "--panes": panes.length }, ...panes.map((pane) => pane.root)), makeKey(traces));
  root.addEventListener("keydown", (event) => {
    if (event.key !== " " || event.target.closest("button, select, input")) return;
    event.preventDefault();
    clock.toggle();
  });
  clock.seek(Math.round(steps * clamp(Number(hashSettings().get("t") ?? 1), 0, 1)));
  return { root, stop: () => clock.playing && clock.toggle() };
}

// Traces of one group name share a player; those without a name stand alone.
function groupTraces(samples) {
  const groups = new Map();
  samples.forEach((trace, i) => {
    const name = trace.group || `${trace.kind} ${i + 1}`;
    groups.set(name, [...(groups.get(name) ?? []), trace]);
  });
  return [...groups];
}

function makeSamples(samples) {
  const groups = groupTraces(samples);
  const stage = el("div", { class: "stage" });
  let player = null;
  const asked = COLOURS.map(([name]) => name).find((name) => name === hashSettings().get("colour")) ?? "order";
  const pick = (index) => {
    player?.stop();
    player = makePlayer(groups[index][1], player?.root.dataset.colour ?? asked);
    stage.replaceChildren(player.root);
  };
  const first = clamp(Number(hashSettings().get("show") ?? 0) || 0, 0, groups.length - 1);
  const chooser = groups.length > 1 ? segmented("Which sample", groups.map(([name], i) => [i, name]), first, pick) : null;
  chooser?.classList.add("chooser");
  pick(first);
  return el("div", { class: "card samples" }, chooser, stage);
}
