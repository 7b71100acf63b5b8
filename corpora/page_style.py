"""The template and the style sheet of the corpus report (`corpora/page.py`); the looks are those of a run's report."""

STYLE = """
:root {
  --back: #fbfbfa; --panel: #ffffff; --text: #1d2126; --quiet: #667078; --rule: #dfe3e6; --accent: #2b6cb0;
  --bad: #b3362c; --bad-back: #fbe7e4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14171a; --panel: #1c2024; --text: #e4e7ea; --quiet: #98a2aa; --rule: #333a40; --accent: #74b0ee;
    --bad: #f08a80; --bad-back: #4a1f1b66;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 24px 20px 60px; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 1.2rem; margin: 0 0 10px; }
h3 { font-size: .95rem; margin: 18px 0 6px; font-weight: 600; }
p { margin: 6px 0; }
section { background: var(--panel); border: 1px solid var(--rule); border-radius: 10px; padding: 18px 20px;
  margin-top: 18px; }
.quiet { color: var(--quiet); font-weight: 400; font-size: .9em; }
.bad { color: var(--bad); background: var(--bad-back); border-radius: 6px; padding: 0 6px; }
code, pre { font: 13px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { overflow-wrap: anywhere; }
pre { margin: 6px 0; padding: 10px 12px; background: var(--back); border: 1px solid var(--rule); border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; max-height: 320px; overflow-y: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
th { text-align: left; font-weight: 600; color: var(--quiet); white-space: nowrap; }
th, td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; white-space: nowrap; }
tr:last-child > td { border-bottom: none; }
td.free { white-space: normal; }
td.left { width: 130px; }
table.funnel { table-layout: fixed; }
table.funnel col:nth-child(1) { width: 170px; } table.funnel col:nth-child(2) { width: 105px; }
table.funnel col:nth-child(3) { width: 135px; } table.funnel col:nth-child(4) { width: 150px; }
.figures { display: flex; flex-wrap: wrap; gap: 6px 34px; margin: 12px 0 0; }
.figures div { font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.figures span { display: block; font-size: .8rem; font-weight: 400; color: var(--quiet); }
details > details { margin-left: 16px; }
td.left div { background: var(--accent); height: 9px; margin-top: 7px; border-radius: 2px; min-width: 1px; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--text); }
svg .figure { fill: var(--quiet); }
svg rect { fill: var(--accent); }
details { border-bottom: 1px solid var(--rule); padding: 4px 0; }
details:last-child { border-bottom: none; }
summary { cursor: pointer; overflow-wrap: anywhere; }
"""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>Corpus {{ stage.stage.id }} of {{ stage.recipe | text }}</title>
<style>{{ style }}</style>
</head>
<body>
<header>
<p class="quiet">corpus stage <code>{{ stage.stage.id }}</code> of <code>{{ stage.recipe | text }}</code>, output
{{ report.output }}, seed {{ stage.seed }}</p>
<h1>{{ report.documents | number }} documents{% if report.tokens %}, {{ report.tokens | number }} tokens{% endif %}</h1>
<div class="figures">
<div>{{ totals.read | number }}<span>documents read, {{ totals.read_bytes | size }}</span></div>
<div>{{ totals.dropped | number }}<span>dropped, with {{ report.dropped | length }} reasons</span></div>
<div>{{ totals.clean | number }}<span>clean, {{ totals.clean_bytes | size }}</span></div>
<div>{{ report.licence_of_data.name | text }}<span>licence of the data</span></div>
</div>
{% if speed %}<p class="quiet">{{ timings.seconds | number }} s: {{ speed.tokens | number }} tokens/s,
{{ "%.2f" | format(speed.wall) }} MB/s read, {{ "%.2f" | format(speed.processor) }} MB for each second of a processor
({{ timings.num_workers }} worker{{ "s" if timings.num_workers != 1 }}).</p>{% endif %}
</header>

<section>
<h2>Mixture</h2>
<div class="wide"><table>
<tr><th>source</th>{% if report.asked_tokens %}<th>share asked</th>{% endif %}<th>share</th>
<th>documents</th><th>tokens</th><th>epochs</th>
{% if report.shortfalls %}<th>short of</th>{% endif %}
{% if left_out.values() | sum %}<th>left out</th>{% endif %}<th>licence</th></tr>
{% for name, one in sources %}
<tr><td class="free">{{ name | text }}<br><span class="quiet"><code>{{ one.version | text }}</code></span></td>
{% if report.asked_tokens %}<td>{{ one.asked_share | percent }}</td>{% endif %}
<td>{{ one.achieved_share | percent }}</td>
<td>{{ one.documents | number }}</td><td>{{ one.tokens | number }}</td>
<td>{{ "%.2f" | format(one.epochs | default(one.passes)) }}</td>
{% if report.shortfalls %}<td>{% if one.shortfall_tokens %}<span class="bad">{{ one.shortfall_tokens | number }}</span>
{% endif %}</td>{% endif %}
{% if left_out.values() | sum %}<td>{{ left_out[name] | number if left_out.get(name) }}</td>{% endif %}
<td>{{ one.licence | text }}</td></tr>
{% endfor %}
</table></div>
{% if left_out.values() | sum %}<p class="quiet">In tokens; left out is what was clean and found no room in its part.
</p>{% endif %}
</section>

<section>
<h2>From what was read to what was kept</h2>
{% for name, one in sources %}
<h3>{{ name | text }} <span class="quiet">{{ "read to its end" if one.read_whole else "read until there was enough" }}
</span></h3>
<div class="wide"><table class="funnel"><colgroup><col><col><col><col><col></colgroup>
<tr><th>after</th><th>documents</th><th>bytes</th><th></th><th>dropped, by reason</th></tr>
{% for step in one.funnel %}
<tr><td>{{ step.step }}</td><td>{{ step.documents | number }}</td><td>{{ step.bytes | size }}</td>
<td class="left"><div style="width: {{ "%.1f" | format(100 * step.bytes / (one.funnel[0].bytes or 1)) }}%"></div></td>
<td class="free">{% for reason, count in step.dropped | dictsort(by="value", reverse=true) %}
{{ reason | text }} <b>{{ count | number }}</b>{{ ", " if not loop.last }}{% endfor %}</td></tr>
{% endfor %}
{% if one.tokens %}<tr><td>written</td><td>{{ one.distinct_documents | number }}</td>
<td>{{ one.tokens | number }} tokens</td><td></td><td class="free">
{% for what, count in one.cuts.items() %}{{ what | replace("_", " ") }} <b>{{ count | number }}</b>
{{- ", " if not loop.last }} {% endfor %}</td></tr>{% endif %}
</table></div>
{% endfor %}
{% if reasons %}<h3>All reasons, documents</h3>{{ reasons }}{% endif %}
</section>

{% if report.get("packing") or truncated %}
<section>
<h2>Packing and truncation</h2>
{% if report.get("packing") %}
{% set plain = report.packing.concatenated_and_cut %}
<div class="wide"><table>
<tr><th>way</th><th>sequences of {{ report.packing.sequence_length | number }}</th><th>padding</th><th>share</th>
<th>records cut</th></tr>
<tr><td>packed (this product)</td><td>{{ report.packing.sequences | number }}</td>
<td>{{ report.packing.padding | number }}</td><td>{{ report.packing.padding_share | percent }}</td>
<td>{{ report.packing.cut | number }}</td></tr>
<tr><td>the same records one after the other</td><td>{{ plain.sequences | number }}</td>
<td>{{ plain.padding | number }}</td>
<td>{{ (plain.padding / ([plain.sequences * report.packing.sequence_length, 1] | max)) | percent }}</td>
<td>{{ plain.cut | number }}</td></tr>
</table></div>
{% endif %}
{% if truncated %}
<h3>Truncation ledger</h3>
<div class="wide"><table>
<tr><th>source</th><th>documents split</th><th>into pieces</th><th>tokens of these</th><th>tokens cut off</th>
<th>tokens left out</th></tr>
{% for name, one in truncated %}<tr><td class="free">{{ name | text }}</td><td>{{ one.split | number }}</td>
<td>{{ one.pieces | number }}</td><td>{{ one.split_tokens | number }}</td><td>{% if one.cut_off_tokens %}
<span class="bad">{{ one.cut_off_tokens | number }}</span>{% else %}0{% endif %}</td>
<td>{{ one.left_out_tokens | number }}</td></tr>{% endfor %}
</table></div>
<p class="quiet">A document that is too long for one record goes on in further pieces; left out is what found no room.
</p>
{% endif %}
</section>
{% endif %}

{% if report.get("duplicate_repositories") %}
<section>
<h2>Copied repositories</h2>
<p>{{ report.duplicate_repositories.dropped | number }} were dropped as copies of
{{ report.duplicate_repositories.kept | number }} others, that hold at least
{{ report.duplicate_repositories.threshold | percent }} of their bytes. All are in <code>data/repositories.jsonl</code>.
</p>
{% if repositories %}
<div class="wide"><table>
<tr><th>kept</th><th>files</th><th>bytes</th><th>copies</th><th>each with the share that the kept one holds</th></tr>
{% for one in repositories %}<tr><td class="free"><code>{{ one.repository | text }}</code></td>
<td>{{ one.files | number }}</td><td>{{ one.bytes | size }}</td><td>{{ one.size | number }}</td><td class="free">
{% for copy in one.copies %}<code>{{ copy.repository | text }}</code> {{ copy.bytes | size }}
<b>{{ copy.share | percent }}</b>{{ ", " if not loop.last }} {% endfor %}</td></tr>{% endfor %}
</table></div>
{% endif %}
</section>
{% endif %}

{% if report.near_duplicates %}
<section>
<h2>Near-duplicates</h2>
<p>{{ report.near_duplicates.dropped | number }} of {{ report.near_duplicates.documents | number }} documents in
{{ report.near_duplicates.clusters | number }} clusters were dropped; the largest has
{{ report.near_duplicates.largest_cluster | number }}. All are in <code>data/clusters.jsonl</code>.</p>
{% for one in clusters %}
<details><summary>{{ one.size }}: <code>{{ one.kept | text }}</code></summary><div class="wide"><table>
{% for member in one.members %}<tr><td class="free"><code>{{ member.id | text }}</code></td>
<td>{{ member.characters | number }} characters</td><td>{% if loop.first %}kept{% else %}similarity
{{ member.jaccard | default(member.estimated_jaccard) }}{% endif %}</td></tr>{% endfor %}
</table></div></details>
{% endfor %}
</section>
{% endif %}

<section>
<h2>Contamination</h2>
{% if report.contamination.questions %}
<p>Looked for: {% for name, count in report.contamination.questions.items() %}{{ name | text }}
({{ count | number }}){{ ", " if not loop.last }}{% endfor %}. Questions left in the product:
{{ report.contamination.overlap }}.</p>
<p class="quiet">Runs of {{ report.contamination.ngram }} words{% if report.contamination.subsequence %}, common
subsequences of {{ report.contamination.subsequence }}{% endif %}, exact short and procedural questions.</p>
{% else %}<p>No benchmark was named: nothing was looked for.</p>{% endif %}
{% if self_test %}
<h3>Self-test: injected questions that are found</h3>
<div class="wide"><table><tr><th>questions</th><th>disguise</th><th>found</th><th>recall</th><th>95% interval</th></tr>
{% for group, kind, rate, missed in self_test %}
<tr><td>{{ group }}</td><td>{{ kind | replace("_", " ") }}</td><td>{{ rate.found }} of {{ rate.trials }}</td>
<td>{% if missed %}<span class="bad">{{ rate.rate | percent }}</span>{% else %}{{ rate.rate | percent }}{% endif %}</td>
<td>{{ rate.low | percent }} to {{ rate.high | percent }}</td></tr>
{% endfor %}</table></div>
{% endif %}
</section>

<section>
<h2>Licences</h2>
<p>The data alone ask for: <b>{{ report.licence_of_data.name | text }}</b>.
{{ report.licence_of_data.sentence | text }}</p>
<div class="wide"><table><tr><th>source</th><th>licences of the clean documents</th></tr>
{% for name, one in sources %}<tr><td>{{ name | text }}</td><td class="free">
{% for licence, count in one.licences | dictsort(by="value", reverse=true) %}{{ licence | text }}
<b>{{ count | number }}</b>{{ ", " if not loop.last }} {% endfor %}</td></tr>{% endfor %}
</table></div>
<p class="quiet">Bookkeeping, not legal advice.</p>
</section>

<section>
<h2>Redactions</h2>
<div class="wide"><table><tr><th>source</th><th>documents</th><th>placeholders</th></tr>
{% for name, one in sources %}<tr><td>{{ name | text }}</td>
<td>{{ one.redactions.documents | default(0) | number }}</td><td class="free">
{% for kind, count in one.redactions.items() if kind != "documents" %}{{ kind }} <b>{{ count | number }}</b>
{{- ", " if not loop.last }} {% else %}none{% endfor %}</td></tr>{% endfor %}
</table></div>
</section>

{% if lengths or languages %}
<section>
<h2>Lengths and languages</h2>
{% if lengths %}<h3>Documents by their tokens</h3>{{ lengths }}{% endif %}
{% if languages %}<h3>Bytes of clean text by language</h3>{{ languages }}{% endif %}
</section>
{% endif %}

{% if timings %}
<section>
<h2>Time</h2>
<div class="wide"><table><tr><th>step</th><th>seconds</th><th>of a processor</th></tr>
{% for name, one in timings.steps | dictsort %}<tr><td>{{ name }}</td><td>{{ "%.1f" | format(one.seconds) }}</td>
<td>{{ "%.1f" | format(one.processor_seconds) }}</td></tr>{% endfor %}
<tr><td>workers</td><td></td><td>{{ "%.1f" | format(timings.processor_seconds_of_workers) }}</td></tr>
<tr><td>all</td><td>{{ "%.1f" | format(timings.seconds) }}</td>
<td>{{ "%.1f" | format(timings.processor_seconds + timings.processor_seconds_of_workers) }}</td></tr>
</table></div>
<p class="quiet">Of the last run: what an earlier one left in work/ was not done again.</p>
</section>
{% endif %}

<section>
<h2>What was dropped</h2>
<p class="quiet">The first of each reason; more are in <code>data/dropped.jsonl</code>.</p>
{% for source, one in sources if source in samples %}
<details{{ " open" if loop.length == 1 }}><summary>{{ source | text }} <span class="quiet">
{{ one.dropped.values() | sum | number }} documents</span></summary>
{% for reason, lines in samples[source].items() %}
<details><summary>{{ reason | text }} <b>{{ one.dropped[reason] | number }}</b></summary>
{% for line in lines %}
<p><code>{{ line.id | text }}</code>{% for key, value in line.details.items() %} <span class="quiet">{{ key | text }}:
{{ value | text }}</span>{% endfor %}</p><pre>{{ line.text | text }}</pre>
{% endfor %}</details>
{% endfor %}</details>
{% else %}<p>Nothing.</p>{% endfor %}
</section>

<section>
<h2>What was kept</h2>
<p class="quiet">An even draw of each source.</p>
{% for source, one in sources if source in kept %}
<details><summary>{{ source | text }} <span class="quiet">{{ kept[source] | length }} of {{ one.clean | number }}
</span></summary>
{% for line in kept[source] %}
<details><summary><code>{{ line.id | text }}</code> <span class="quiet">{{ line.licence | text }},
{{ line.characters | number }} characters</span></summary><pre>{{ line.text | text }}</pre></details>
{% endfor %}</details>
{% endfor %}
</section>
</body>
</html>
"""
