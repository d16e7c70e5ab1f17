"""The page's style sheet: light and dark follow the reader's system."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f6f7f9; --ink: #1c2330; --soft: #5b6472; --rule: #d9dde3; --grid: #e6e9ee;
  --ceiling: #b4bac4; --base: #7d8796; --sft: #d98a2b; --swirl: #2563c9; --kept: #c9dcf7; --whisker: #1c2330;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181f; --panel: #1c222c; --ink: #e6e9ee; --soft: #9aa4b2; --rule: #343c49; --grid: #29303b;
    --ceiling: #525c6b; --base: #8b96a6; --sft: #e0a050; --swirl: #6ea3f5; --kept: #2c4266; --whisker: #f2f4f7;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
a { color: var(--swirl); }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 80px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 12px; }
h2 { font-size: 1.25rem; margin: 48px 0 8px; padding-top: 14px; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 16px 0 4px; }
p, ul { max-width: 78ch; margin: 8px 0 12px; }
small, caption, figcaption { color: var(--soft); font-size: .8rem; }
.lead { font-size: 1.05rem; padding-left: 20px; }
.contents ol { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 12px 0; padding: 0; list-style: none; }
#provenance { color: var(--soft); font-size: .85rem; }
#provenance:empty { display: none; }
#provenance > span { margin-right: 14px; }
#provenance b { color: var(--ink); }
:focus-visible { outline: 2px solid var(--swirl); outline-offset: 2px; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; margin: 12px 0;
  font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: 6px 14px 6px 0; text-align: right; vertical-align: top; white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; font-size: .82rem; border-bottom: 1px solid var(--rule);
  vertical-align: bottom; white-space: normal; }
tbody th { font-weight: 500; }
tbody tr + tr > * { border-top: 1px solid var(--grid); }
th:first-child { text-align: left; }
.scroll th:first-child { position: sticky; left: 0; background: var(--paper); }
details .scroll th:first-child { background: var(--panel); }
table.words td, table.words th { text-align: left; white-space: normal; }
td small, th small { display: block; font-weight: 400; }
figure { margin: 8px 0; }
svg { display: block; max-width: 100%; height: auto; }
.scroll > svg { max-width: none; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--soft); }
.grid { stroke: var(--grid); }
.whisker { stroke: var(--whisker); stroke-width: 1.5; }
.curve { fill: none; stroke: var(--swirl); stroke-width: 2; stroke-linejoin: round; }
.dot { fill: var(--swirl); }
.fill-ceiling rect { fill: var(--ceiling); } .fill-base rect { fill: var(--base); }
.fill-sft rect { fill: var(--sft); } .fill-swirl rect, rect.fill-swirl { fill: var(--swirl); }
rect.fill-kept { fill: var(--kept); }
.back-ceiling { background: var(--ceiling); } .back-base { background: var(--base); }
.back-sft { background: var(--sft); } .back-swirl { background: var(--swirl); }
.legend span { margin-right: 18px; white-space: nowrap; }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin-right: 6px; }
.curves { display: flex; flex-wrap: wrap; gap: 4px 20px; }
.row { display: flex; flex-wrap: wrap; gap: 4px 20px; }
details { margin: 8px 0; padding: 8px 12px; background: var(--panel); border-radius: 6px; }
summary { cursor: pointer; overflow-wrap: anywhere; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 16px; }
.sides ol { margin: 0; padding-left: 20px; }
.sides li { margin-bottom: 10px; }
.sides span { color: var(--soft); font-size: .8rem; }
pre { margin: 2px 0; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate;
  font: .82rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.observation { color: var(--soft); border-left: 3px solid var(--rule); padding-left: 8px; }
@media (max-width: 500px) { tbody th { white-space: normal; min-width: 104px; } }
@media print { details { break-inside: avoid; } }
"""
