"""How the report looks: on a wide screen, a phone, in the dark and on paper."""

STYLE = """
:root { color-scheme: light dark;
  --page: #fff; --text: #1c1c1e; --quiet: #666; --box: #f3f4f6; --grid: #e2e2e5;
  --main: #2563eb; --second: #d9480f; --faint: #bcd0f7; --good: #15803d; --bad: #b91c1c; }
@media (prefers-color-scheme: dark) { :root {
  --page: #16181d; --text: #e6e6e9; --quiet: #a0a3ab; --box: #23262d; --grid: #363a43;
  --main: #7aa7ff; --second: #ff9b66; --faint: #35496f; --good: #5fd38a; --bad: #ff8b8b; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; } h3 { font-size: 1rem; margin: 0 0 .4rem; }
header p { margin: .2rem 0 1.2rem; color: var(--quiet); overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .6rem; }
.card { background: var(--box); border-radius: .5rem; padding: .6rem .9rem; color: var(--quiet);
  font-size: .9rem; }
.card b { display: block; font-size: 1.15rem; color: var(--text); white-space: nowrap; }
aside { border-left: 4px solid var(--second); background: var(--box); border-radius: .3rem;
  padding: .6rem 1rem; margin-top: 1.2rem; }
aside h2 { margin: 0; font-size: 1rem; } aside ul { margin: .3rem 0 0; padding-left: 1.1rem; }
aside.bad { border-color: var(--bad); } span.bad, aside.bad h2 { color: var(--bad); }
.good { color: var(--good); }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: .5rem 1.5rem; }
svg { width: 100%; height: auto; } svg text { font-size: 13px; fill: var(--quiet); }
svg polyline { fill: none; stroke-linejoin: round; }
polyline.main { stroke: var(--main); } polyline.second { stroke: var(--second); }
polyline.faint { stroke: var(--faint); } polyline.grid { stroke: var(--grid); }
circle.main { fill: var(--main); } circle.second { fill: var(--second); }
article { border-top: 1px solid var(--grid); padding: .7rem 0; }
dl { display: grid; grid-template-columns: repeat(3, 1fr); gap: .4rem 1.2rem; margin: 0; }
dt { color: var(--quiet); font-size: .85rem; }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--grid); overflow-wrap: anywhere; }
th { font-weight: 500; color: var(--quiet); width: 34%; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } th { width: 42%; } }
@media print {
  :root { color-scheme: light; --page: #fff; --text: #000; --quiet: #444; --box: #f3f4f6;
    --grid: #ccc; --main: #2563eb; --second: #d9480f; --faint: #bcd0f7; --good: #15803d;
    --bad: #b91c1c; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { max-width: none; padding: 0; font-size: 11pt; } .curves { grid-template-columns: 1fr 1fr; }
  article, svg, tr, aside, .card { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""
