"""The style sheet of the page, for light and dark screens.

``--c0``, ``--c1``, ... are the colours of the families of criteria in the
order of :data:`~speechbrain_ee.evaluation.theme.FAMILIES`.

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.evaluation.theme import COLOURS

_LIGHT = "".join(f"--c{n}:{colour};" for n, colour in enumerate(COLOURS))

STYLESHEET = (
    """
:root { color-scheme: light dark; --ink: #20242b; --soft: #5d6673;
  --line: #dfe3e8; --back: #fff; --card: #f6f7f9; --pale: #8a919c;
  --bad: #b5330b; --oracle: #009e73; """
    + _LIGHT
    + """ }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ec;
  --soft: #9aa4b2; --line: #343a43; --back: #14171b; --card: #1c2026;
  --pale: #78818e; --bad: #ff9a70; --oracle: #2cc79a; --c0: #4aa3df;
  --c1: #f0b73c; --c2: #f4661f; --c3: #e3a0c6; --c4: #a5d8f5;
  --c5: #f4f08a; --c6: #8f86ff; --c7: #8c7355; } }
body { margin: 0 auto; max-width: 74rem; padding: 2.5rem 1.5rem 4rem;
  background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 3.5rem 0 .3rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.8rem 0 .5rem; }
p { max-width: 46rem; margin: .4rem 0; }
.soft { color: var(--soft); font-size: .92rem; }
.panels figure { margin: 1.2rem 0; }
.pair { display: grid; gap: .6rem 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.pair svg { width: 100%; max-width: 36rem; height: auto; display: block; }
figcaption { font-weight: 600; font-size: .95rem; }
.keys { display: flex; flex-wrap: wrap; gap: .2rem 1.3rem;
  margin-top: 1.8rem; font-size: .88rem; }
.keys svg { width: 2rem; height: .7rem; margin-right: .4rem; }
.side { display: flex; flex-wrap: wrap; gap: 0 3.5rem; }
.side > div { max-width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
th, td { padding: .28rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th.group { text-align: center; border-bottom: 0; padding-bottom: 0; }
.first { padding-left: 1.6rem; }
.wrap td { white-space: normal; }
.wrap .first { padding-left: 1.2rem; }
.bars th, .bars td { text-align: left; }
.bars td.count { text-align: right; }
.bar { width: 13rem; min-width: 4.5rem; }
.bar span { display: block; height: .7rem; border-radius: 2px; }
.thin span { height: .5rem; margin: .15rem 0; min-width: 1px; }
.gaps .soft { display: inline-block; min-width: 4.3rem; text-align: left;
  margin-left: .35rem; }
.gaps td > span[style] { display: block; height: .25rem;
  border-radius: 1px; }
.gaps td:last-child { min-width: 4.5rem; }
.chip { display: inline-block; width: .7rem; height: .7rem;
  border-radius: 2px; margin-right: .45rem; }
.lead td { font-weight: 600; }
.lead .soft, td .soft { font-weight: 400; font-size: .82rem; }
abbr { text-decoration: none; cursor: help; }
.matrices { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; }
.matrices > div { max-width: 100%; }
.matrices th { white-space: normal; min-width: 7rem; }
.warn { color: var(--bad); }
.utterance { background: var(--card); border-radius: 8px;
  padding: .8rem 1rem; margin: .7rem 0; }
.utterance table { width: 100%; }
.utterance td { text-align: left; vertical-align: top;
  white-space: normal; }
.utterance td.count { white-space: nowrap; color: var(--soft); width: 9rem; }
.utterance tr:last-child td { border-bottom: 0; }
mark { background: none; color: var(--bad); font-weight: 600; }
del { color: var(--soft); }
@media (max-width: 34rem) { body { padding: 1.5rem 1rem 3rem; }
  table { font-size: .84rem; }
  th, td { padding: .25rem .35rem; } .first { padding-left: .8rem; }
  .utterance td.count { width: auto; padding-left: 0; } }
"""
)
