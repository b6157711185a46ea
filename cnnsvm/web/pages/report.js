// Reports to keep: what the server said as JSON, and as one page that needs nothing from elsewhere.
import { capital } from "./facts.js";

const SIDE = 1200;
const POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";
const STYLE = `
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 0 auto; padding: 1.5rem 1rem; }
h1 { font-size: 1.3rem; margin: 0; overflow-wrap: anywhere; }
.verdict { font-size: 1.2rem; font-weight: 650; margin: .4rem 0; }
.note { border-left: .3rem solid #0b5c9e; padding: .3rem .9rem; }
figure { margin: 1rem 0; break-inside: avoid; } figcaption { font-size: .9rem; }
img { max-width: 100%; max-height: 30rem; display: block; }
table { border-collapse: collapse; } td { text-align: right; padding-left: 1.5rem; }
th { text-align: left; font-weight: 400; } caption { text-align: left; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .9rem; }
dd { margin: 0; overflow-wrap: anywhere; }`;

export function saveJson(answer, name) {
  const files = answer.files.map(({ overlay, ...said }) => said);
  const text = JSON.stringify({ judged: new Date().toISOString(), ...answer, files }, null, 2);
  save(new Blob([`${text}\n`], { type: "application/json" }), `${name}.json`);
}

export function savePage(item, words) {
  const said = item.answer.files[0];
  const page = document.implementation.createHTMLDocument(`${said.name}: ${said.sentence}`);
  const make = (kind, text = "", look = "") => {
    const node = page.createElement(kind);
    node.textContent = text;
    if (look) node.className = look;
    return node;
  };
  const policy = make("meta");
  policy.httpEquiv = "Content-Security-Policy";
  policy.content = POLICY;
  const letters = make("meta");
  letters.setAttribute("charset", "utf-8");
  page.head.prepend(letters, policy);
  page.documentElement.lang = "en";
  page.body.append(
    make("h1", said.name),
    make("p", `Judged ${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC by cnnsvm ${item.answer.version}, model ${item.answer.model}`),
    make("p", capital(said.of_pixels), "verdict"),
    ...(said.of_metadata ? [make("p", item.part(".claim").textContent)] : []),
    make("p", words.says),
    make("p", item.answer.note, "note"),
    ...figures(item, said, make),
    probabilities(said, words, make),
    make("p", words.means),
    page.importNode(item.part("dl"), true),
  );
  // not as a node: the policy of this page refuses inline styles even in a document that is not shown
  const html = page.documentElement.outerHTML.replace("</head>", `<style>${STYLE}</style></head>`);
  const text = `<!DOCTYPE html>\n${html}\n`;
  save(new Blob([text], { type: "text/html" }), `${said.name}.html`);
}

function figures(item, said, make) {
  const shown = [[reduced(item.part(".image")), "The image"]];
  if (said.overlay) shown.push([said.overlay, item.part(".about").textContent]);
  return shown.filter(([source]) => source).map(([source, caption]) => {
    const figure = make("figure");
    const image = make("img");
    image.src = source;
    image.alt = caption;
    figure.append(image, make("figcaption", caption));
    return figure;
  });
}

function probabilities(said, words, make) {
  const table = make("table");
  table.append(make("caption", "Probability of each outcome"));
  for (const [name, value] of Object.entries(said.probabilities)) {
    const row = make("tr");
    const head = make("th", words.classSays(name));
    head.scope = "row";
    row.append(head, make("td", value.toFixed(4)));
    table.append(row);
  }
  return table;
}

function reduced(image) {
  if (!image.naturalWidth) return "";
  const scale = Math.min(1, SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(scale * image.naturalWidth));
  canvas.height = Math.max(1, Math.round(scale * image.naturalHeight));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.85);
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.split(/[\\/]/).pop();
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
