"""The model card of a release: Markdown and YAML as the Hugging Face hub has them. Pure: records in, text out.

No row of data and no path of a machine enters a card; what it says is in the records behind the version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pipeline.domain.data import Task
from pipeline.domain.evidence import Surroundings
from pipeline.domain.lineage import Chain
from pipeline.domain.measured import MetricValue, SliceValue


def model_card(chain: Chain, around: Surroundings) -> str:
    version = chain.version
    lines = [*_front_matter(chain), "", f"# {version.name}, version {version.version}", ""]
    for part in (_about(chain), _use(chain), _metrics(chain), _data(chain), _training(chain, around), _limits(chain)):
        lines += [*part, ""]
    lines += _proof(chain)
    return "\n".join(lines) + "\n"


def _front_matter(chain: Chain) -> Iterator[str]:
    version, training = chain.version, chain.training
    assert training is not None
    task = "text-classification" if training.task is Task.CLASSIFY else "text-generation"
    yield "---"
    yield f"base_model: {_quoted(training.base.id)}"
    yield "base_model_relation: adapter"
    yield "library_name: peft"
    yield f"pipeline_tag: {task}"
    yield f"tags: [tuneline, {', '.join(_quoted(s.tuner.value) for s in training.stages)}]"
    yield "model-index:"
    yield f"  - name: {_quoted(f'{version.name}@{version.version}')}"
    yield "    results:"
    yield f"      - task: {{type: {task}}}"
    dataset = chain.snapshot.dataset if chain.snapshot else version.name
    digest = chain.splits.test.sha256 if chain.splits else ""
    yield f"        dataset: {{name: {_quoted(f'{dataset}, test split')}, type: {_quoted(dataset)}, revision: {_quoted(digest)}}}"
    yield "        metrics:" if _candidate(chain) else "        metrics: []"
    for m in _candidate(chain):
        yield f"          - {{type: {_quoted(m.metric)}, value: {m.value:.6g}, name: {_quoted(_interval(m))}}}"
    yield "---"


def _about(chain: Chain) -> Iterator[str]:
    training = chain.training
    assert training is not None
    tuners = ", then ".join(f"{s.objective.value} by {s.tuner.value}" for s in training.stages)
    yield f"An adapter of `{training.base.id}`" + (f" at `{training.base.revision}`" if training.base.revision else "") + "."
    yield f"It was made by {tuners}: {training.steps} steps on {training.train_rows:,} rows."
    yield f"It changes nothing without that very base (digest `{training.base.digest[:12]}`)."


def _use(chain: Chain) -> Iterator[str]:
    training = chain.training
    assert training is not None
    yield "## Intended use"
    yield ""
    doing = "choosing one of its labels for a text" if training.task is Task.CLASSIFY else "answering prompts"
    yield f"{doing.capitalize()} like those of the data that it was tuned and tested on (below). It was tested for nothing else."


def _metrics(chain: Chain) -> Iterator[str]:
    yield "## Metrics"
    yield ""
    rows = chain.evaluation.rows if chain.evaluation else 0
    yield f"On {rows:,} held-out test rows, with 95 % intervals (bootstrap over groups)."
    yield ""
    yield "| who | metric | value | from | to |"
    yield "|---|---|---:|---:|---:|"
    for subject in chain.evaluation.subjects if chain.evaluation else ():
        for m in subject.metrics:
            yield f"| {_cell(subject.name)} | {_cell(m.metric)} | {m.value:.4g} | {m.low:.4g} | {m.high:.4g} |"


def _data(chain: Chain) -> Iterator[str]:
    yield "## Data"
    yield ""
    snapshot, splits = chain.snapshot, chain.splits
    if snapshot is None:
        yield "The records of the data could not be read."
        return
    yield f"Snapshot `{snapshot.digest[:12]}` of `{_cell(snapshot.dataset)}`: {snapshot.rows:,} rows."
    if splits:
        yield f"Learned from {splits.train.rows:,}, watched on {splits.eval.rows:,}, tested on {splits.test.rows:,} rows."
    licenses = sorted({s.license for s in snapshot.sources if s.license})
    yield f"Licences of the rows: {', '.join(_cell(one) for one in licenses) or 'not declared'}."
    yield ""
    yield "| source | SHA-256 | rows |"
    yield "|---|---|---:|"
    for source in snapshot.sources[-50:]:
        yield f"| {_cell(source.name)} | `{source.sha256[:12]}` | {source.accepted:,} |"
    if len(snapshot.sources) > 50:
        yield f"| … and {len(snapshot.sources) - 50} earlier ones, in the bill of materials | | |"


def _training(chain: Chain, around: Surroundings) -> Iterator[str]:
    training = chain.training
    assert training is not None
    yield "## Training"
    yield ""
    made_with = ", ".join(f"{name} {version}" for name, version in training.versions.items() if version != "none")
    yield f"Loss at the end {training.train_loss:.4g}" + (f", on eval {training.eval_loss:.4g}." if training.eval_loss else ".")
    yield f"{training.trainable_parameters:,} parameters were tuned. Made with {made_with}."
    yield f"Commit `{chain.version.commit[:12]}` ({_cell(chain.version.tag)})" + (
        ", from uncommitted changes." if chain.version.dirty else "."
    )
    for stage in training.stages:
        for alarm in stage.alarms:
            yield f"Alarm in stage {_cell(stage.name)}: {_cell(alarm)}"


def _limits(chain: Chain) -> Iterator[str]:
    yield "## Limits"
    yield ""
    said = list(_known_limits(chain))
    for line in said:
        yield f"- {line}"
    yield "- What was not measured is not known: the intervals above are about rows like the test rows, and about nothing else."


def _known_limits(chain: Chain) -> Iterator[str]:
    evaluation, decision = chain.evaluation, chain.decision
    worst: dict[tuple[str, str], SliceValue] = {}
    for s in evaluation.slices if evaluation else ():
        if s.subject == "candidate" and ((s.field, s.metric) not in worst or s.score < worst[s.field, s.metric].score):
            worst[s.field, s.metric] = s
    for s in worst.values():
        scored = f"{s.metric} {s.score:.4g} [{s.low:.4g}, {s.high:.4g}] on {s.rows:,} rows"
        yield f"Weakest where {_cell(s.field)} is {_cell(s.value)}: {scored}."
    for metric, least in sorted(decision.detectable.items() if decision else ()):
        yield f"The test could tell a difference of {least:.2g} in {_cell(metric)} and none that is smaller."
    for rule in chain.curation.rules if chain.curation else ():
        if rule.dropped:
            yield f"{rule.dropped:,} rows were left out by the rule {_cell(rule.rule)}."


def _proof(chain: Chain) -> Iterator[str]:
    yield "## Evidence"
    yield ""
    yield "Beside this card: `statement.intoto.json` (in-toto, SLSA provenance v1, in a DSSE envelope), `bom.cdx.json`"
    yield "(CycloneDX), `model.sig` (OpenSSF model signature over every file) and `public-key.pem`."
    yield ""
    yield f"Gate: {chain.decision.verdict.value if chain.decision else 'unknown'}, decision `{chain.version.decision[:12]}`."


def _candidate(chain: Chain) -> Sequence[MetricValue]:
    found = chain.evaluation.subject("candidate") if chain.evaluation else None
    return found.metrics if found else ()


def _interval(m: MetricValue) -> str:
    return f"{m.metric} [{m.low:.4g}, {m.high:.4g}] on {m.rows} rows"


def _quoted(text: str) -> str:
    """A JSON string, which YAML reads as the same text."""
    return json.dumps(text, ensure_ascii=True)


def _cell(text: str) -> str:
    """Text that can not end a table's cell, a line or a code span, or begin a tag."""
    plain = " ".join(text.split())
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("`", "'").replace("<", "&lt;")
