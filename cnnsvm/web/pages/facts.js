// What is said of an image, as rows of a table and of a list.
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
export const size = (n) => (n < 1e5 ? `${(n / 1e3).toFixed(1)} kB` : `${(n / 1e6).toFixed(1)} MB`);
const metadataSays = ({ name, value, says }) => `${name}: ${value}${says === "unknown" ? "" : ` (${says})`}`;

export function make(kind, text, look = "") {
  const node = document.createElement(kind);
  node.textContent = text;
  if (look) node.className = look;
  return node;
}

export function fillProbabilities(table, said, classSays) {
  const rows = Object.entries(said.probabilities).map(([name, value]) => {
    const row = document.createElement("tr");
    const head = make("th", classSays(name));
    head.scope = "row";
    const meter = document.createElement("meter");
    meter.value = value;
    meter.setAttribute("aria-label", `${classSays(name)}: ${value.toFixed(2)}`);
    const bar = make("td", "", "bar");
    bar.append(meter);
    row.append(head, bar, make("td", value.toFixed(2), "number"));
    return row;
  });
  table.replaceChildren(...rows);
}

export function fillFacts(list, said, answer, file) {
  const yes = (value) => (value ? "yes: traces are weaker then" : "no sign of it");
  const facts = [
    ["Size", `${said.width} × ${said.height} pixels, ${size(file.size)}`],
    ["SHA-256", said.sha256],
    ["Verdict by", said.evidence],
    ["Looked at", said.coverage === undefined ? null : `${Math.round(100 * said.coverage)} % of the pixels`],
    ["JPEG before", said.was_jpeg === undefined ? null : yes(said.was_jpeg)],
    ["Resized before", said.was_resampled === undefined ? null : yes(said.was_resampled)],
    ["Metadata", said.metadata.map(metadataSays).join("; ") || "say nothing of its making"],
    ["Model", `${answer.model}, cnnsvm ${answer.version}`],
  ];
  const shown = facts.filter(([, value]) => value);
  list.replaceChildren(...shown.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
}
