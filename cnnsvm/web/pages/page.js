// The page: images in, what the server says of them out. Whatever comes from outside becomes text,
// never markup.
import { capital, fillFacts, fillProbabilities, make, size } from "./facts.js";
import { saveJson, savePage } from "./report.js";
import { Problem, ask, hasToken, patiently, setToken } from "./server.js";

const $ = (id) => document.getElementById(id);
const KINDS = {
  "with traces": ["found", "▲",
    "A hint by one method, for a human to weigh beside others. It is no proof against a person."],
  "without known traces": ["nothing", "○", "The detectors see nothing that they know. It is no proof of authenticity."],
  "unsure": ["unsure", "?", "The detectors decline to answer: on images like this they would be wrong too often."],
};
const MEANS = "Calibrated on images like those of the training: of 100 such images with 0.90, about "
  + "90 are what it says. Where fakes are rarer than there, or images are unlike those, expect less.";
const REGIONS = " What is seen in regions alone has the probability of the last outcome too: they do not tell the two apart.";
let model = null;
let stop = null;
let waiting = [];

async function judge(file, heatmap, signal) {
  if (model && file.size > model.max_bytes) {
    throw new Problem(`${size(file.size)}, more than the ${size(model.max_bytes)} that this server takes.`);
  }
  const form = new FormData();
  form.append("files", file, file.name || "image");
  const path = `v1/predict?heatmap=${heatmap}`;
  return patiently(() => ask(path, { method: "POST", body: form, signal }), signal);
}

async function judgeAll(files) {
  if (stop) { waiting.push(...files); return; }
  waiting = [...files];
  stop = new AbortController();
  let first = null;
  let done = 0;
  $("stop").hidden = $("progress").hidden = false;
  while (waiting.length && !stop.signal.aborted) {
    const file = waiting.shift();
    $("progress").max = done + 1 + waiting.length;
    $("progress").value = done;
    say(`Judging ${done + 1} of ${done + 1 + waiting.length}: ${file.name || "image"}`);
    try {
      const item = show(file);
      first ??= item.title;
      fill(item, await judge(file, false, stop.signal));
    } catch (problem) {
      if (problem.status === 401) { waiting.unshift(file); lock(problem); }
      fail(file, problem);
      if (problem.status === 401 || problem.name === "AbortError") break;
    }
    done += 1;
  }
  finish(done, first);
}

function finish(done, first) {
  const left = waiting.length;
  $("stop").hidden = $("progress").hidden = true;
  stop = null;
  if (!$("unlock").hidden) return;
  waiting = [];
  say(`${done} ${done === 1 ? "image" : "images"} done${left ? `, ${left} not begun` : ""}.`);
  if (first?.isConnected) first.focus();
}

const items = new Map();

function show(file) {
  const node = $("result").content.cloneNode(true).firstElementChild;
  const part = (selector) => node.querySelector(selector);
  const item = { file, node, part, title: part("h3"), url: URL.createObjectURL(file) };
  item.title.textContent = file.name || "image";
  part(".words").textContent = "Being judged …";
  part(".body").hidden = part(".buttons").hidden = true;
  const image = part(".image");
  image.addEventListener("error", () => { image.hidden = true; part(".unseen").hidden = false; });
  image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth < 100));
  image.src = item.url;
  part(".remove").addEventListener("click", () => remove(item));
  $("results").append(node);
  items.set(file, item);
  $("clear").hidden = false;
  return item;
}

function fill(item, answer) {
  const { part } = item;
  const said = answer.files[0];
  const [look, sign, says] = KINDS[said.kind] ?? ["", "", ""];
  item.answer = answer;
  part("article").className = look;
  part(".sign").textContent = sign;
  part(".words").textContent = capital(said.of_pixels);
  part(".claim").textContent = said.of_metadata ? `${look === "nothing" ? "But" : "And"} ${said.of_metadata}.` : "";
  part(".claim").hidden = !said.of_metadata;
  part(".says").textContent = says;
  part(".image").alt = `The image ${said.name}`;
  fillProbabilities(part("tbody"), said, classSays);
  const means = MEANS + (said.kind === "with traces" && said.evidence === "region" ? REGIONS : "");
  part(".means").textContent = means;
  fillFacts(part("dl"), said, answer, item.file);
  part(".body").hidden = part(".buttons").hidden = false;
  part(".where").hidden = !(model?.has_heatmaps ?? true);
  part(".where").onclick = () => showWhere(item);
  part(".json").onclick = () => saveJson(item.answer, said.name);
  part(".page").onclick = () => savePage(item, { says, means, classSays });
}

async function showWhere(item) {
  const { part } = item;
  const button = part(".where");
  button.disabled = true;
  say(`Looking where ${item.file.name || "the image"} seems repainted …`);
  try {
    const answer = await judge(item.file, true);
    const said = answer.files[0];
    if (!said.overlay) throw new Problem(said.overlay_error);
    item.answer = answer;
    overlay(item, said);
    button.hidden = true;
    say("The overlay is shown. The slider sets its strength.");
    part(".slider input").focus();
  } catch (problem) {
    say(problem.message);
    button.disabled = false;
  }
}

function overlay({ part }, said) {
  const image = part(".overlay");
  const slider = part(".slider input");
  const fade = () => { image.style.opacity = slider.value / 100; };
  image.src = said.overlay;
  image.alt = `Where ${said.name} looks repainted, from blue, 0, to yellow, 1`;
  image.classList.toggle("tiny", said.width < 100);
  for (const name of [".overlay", ".slider", ".scale", ".about"]) part(name).hidden = false;
  part(".about").textContent = `${said.overlay_says} It is no outline of what was repainted.${
    said.evidence === "generated" ? " This verdict rests on the image as a whole, which no map shows." : ""}`;
  slider.oninput = fade;
  fade();
}

function fail(file, problem) {
  const item = items.get(file);
  if (problem.status === 401 || problem.name === "AbortError") { remove(item); return; }
  const { part } = item;
  part("article").className = "failed";
  part(".sign").textContent = "✕";
  part(".words").textContent = `Not judged: ${problem.message}`;
  part(".buttons").hidden = false;
  for (const name of [".where", ".page", ".json"]) part(name).hidden = true;
}

function remove(item) {
  URL.revokeObjectURL(item.url);
  const next = item.node.nextElementSibling ?? item.node.previousElementSibling;
  const hadFocus = item.node.contains(document.activeElement);
  item.node.remove();
  items.delete(item.file);
  $("clear").hidden = items.size === 0;
  if (hadFocus) (next?.querySelector("h3") ?? $("files")).focus();
}

function lock(problem) {
  say(hasToken() ? problem.message : "");
  setToken("");
  $("unlock").hidden = false;
  $("token").focus();
}

async function learnModel() {
  try {
    model = await patiently(() => ask("v1/model"));
  } catch (problem) {
    $("model").textContent = problem.status === 401 ? "Known once the token is given." : problem.message;
    if (problem.status === 401) lock(problem);
    return;
  }
  $("model").textContent = `${capital(model.name)}, ${model.model}; cnnsvm ${model.version}. It reads ${
    model.formats.join(", ")}; at most ${size(model.max_bytes)} and ${
    (model.max_pixels / 1e6).toFixed(0)} megapixels.`;
  $("detectors").replaceChildren(...model.detectors.map(detectorDetails));
}

function detectorDetails(detector) {
  const details = document.createElement("details");
  details.append(make("summary", `The detector ${detector.name}${detector.sees ? `: ${detector.sees}` : ""}`));
  details.append(make("p", `A verdict needs a probability above ${detector.rejection_threshold.toFixed(2)}.`));
  const list = document.createElement("ul");
  list.append(...detector.knows.map((sentence) => make("li", sentence)));
  details.append(list);
  return details;
}

const classSays = (name) => capital(model?.classes.find((each) => each.name === name)?.says ?? name);
const say = (text) => { $("status").textContent = text; };

for (const id of ["files", "camera"]) {
  $(id).addEventListener("change", (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    judgeAll(files);
  });
}
for (const [name, isOver] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", isOver);
    const files = [...(event.dataTransfer?.files ?? [])];
    if (name === "drop" && files.length) judgeAll(files);
  });
}
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) judgeAll(files);
});
$("stop").addEventListener("click", () => stop?.abort());
$("clear").addEventListener("click", () => {
  [...items.values()].forEach(remove);
  say("All results are removed.");
  $("files").focus();
});
$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken($("token").value);
  $("token").value = "";
  $("unlock").hidden = true;
  const files = waiting;
  waiting = [];
  learnModel();
  if (files.length) judgeAll(files);
  else $("files").focus();
});
learnModel();
