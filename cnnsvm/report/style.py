"""The look of the HTML reports: a page, and one style sheet, light and dark, phone to desk."""

CSS = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5a6675; --line: #d8dee6;
  --paper: #ffffff; --card: #f4f6f9; --accent: #0b5c9e; --good: #1b6e3c; --bad: #a33a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #a3afbd; --line: #38424f;
  --paper: #14181e; --card: #1e242c; --accent: #7db8ee; --good: #7fd3a0; --bad: #ffab7a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 68rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
p.command { max-width: none; }
.soft { color: var(--soft); font-size: .9rem; }
code { font: .86em/1.5 ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.4rem, 1fr));
  gap: .7rem; margin: 1.2rem 0; padding: 0; list-style: none; }
.cards li { background: var(--card); border-radius: .5rem; padding: .7rem .8rem; }
.cards strong { display: block; font-size: 1.7rem; line-height: 1.2; color: var(--accent);
  font-variant-numeric: tabular-nums; }
.cards span { display: block; font-size: .8rem; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.cards span:first-child { color: var(--ink); font-weight: 600; }
.note { border-left: .3rem solid var(--accent); background: var(--card); padding: .6rem .9rem;
  margin: 1rem 0; border-radius: 0 .4rem .4rem 0; }
.note.alarm { border-color: var(--bad); }
/* .scroll shades its right edge while columns are hidden there */
.scroll { overflow-x: auto; background:
  linear-gradient(to left, var(--paper) 1rem, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--line), transparent) right / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: .9rem; padding-bottom: .3rem; }
th, td { text-align: right; padding: .3rem .5rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; }
th { color: var(--soft); }
th:first-child { text-align: left; padding-left: 0; white-space: normal; max-width: 16rem;
  overflow-wrap: break-word; }
tbody th { color: var(--ink); }
.words { text-align: left; white-space: normal; min-width: 6.5rem; }
@media (max-width: 32rem) { table { font-size: .82rem; } th, td { padding: .3rem .4rem; } }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
.plots { display: grid; gap: 1rem; margin-top: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; }
.plots img { width: 100%; height: auto; display: block; background: #fff;
  border: 1px solid var(--line); border-radius: .5rem; }
figcaption { color: var(--soft); font-size: .85rem; padding: .3rem .1rem; }
.thumbs { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(9.6rem, 1fr)); }
.thumbs figure { background: var(--card); border-radius: .5rem; padding: .5rem; }
.thumbs img, .missing { display: flex; width: 100%; height: 10rem; object-fit: contain;
  align-items: center; justify-content: center; text-align: center; }
.missing { border: 1px dashed var(--soft); border-radius: .3rem; color: var(--soft);
  font-size: .85rem; padding: .5rem; }
.thumbs figcaption { overflow-wrap: anywhere; }
.thumbs b { display: block; color: var(--ink); }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .2rem 1rem;
  font-size: .9rem; margin: .4rem 0; }
dt { color: var(--soft); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
ul.plain { padding-left: 1.1rem; font-size: .9rem; overflow-wrap: anywhere; }
@media print { body { max-width: none; } h2, figure, table { break-inside: avoid; } }
"""

#: A contact sheet: figures whose pictures stand side by side.
SHEET_CSS = """
.sheet { display: grid; gap: .8rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.sheet.single { grid-template-columns: repeat(auto-fill, minmax(9.6rem, 1fr)); }
.sheet figure { background: var(--card); border-radius: .5rem; padding: .5rem; min-width: 0; }
.strip { display: flex; gap: .3rem; }
.strip div { flex: 1 1 0; min-width: 0; }
.strip span { display: block; font-size: .8rem; color: var(--soft); }
.strip img { display: block; width: 100%; max-height: 11rem; object-fit: contain; }
/* the white of a mask is that of the page */
.strip .mask img { outline: 1px solid var(--soft); background: #8b929b; }
.strip p { margin: 0; padding: 1.5rem .3rem; text-align: center; border: 1px dashed var(--soft);
  color: var(--soft); font-size: .8rem; }
.sheet figcaption { overflow-wrap: anywhere; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
"""

#: A page that may load nothing from elsewhere; to be formatted with ``title``, ``css``, ``body``.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
{body}
</body>
</html>
"""
