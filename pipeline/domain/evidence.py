"""What a release says about itself, as plain values: the in-toto statements, and whether one agrees with the records. Pure.

Signing, validating and storing are backends/'s; nothing here knows a key, a file or a clock. The provenance is made when a
version is registered and lies among its files; what is only known later (approvals, promotions) goes into the release statement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.domain.lineage import Chain
from pipeline.domain.proof import AuditCheck
from pipeline.domain.record import FileDigest, Value, digest_value
from pipeline.domain.release import Event, ModelVersion

FOLDER = "evidence"
STATEMENT = f"{FOLDER}/statement.intoto.json"
BOM = f"{FOLDER}/bom.cdx.json"
CARD = f"{FOLDER}/README.md"
KEY = f"{FOLDER}/public-key.pem"
SIGNATURE = f"{FOLDER}/model.sig"
PARTS = (STATEMENT, BOM, CARD, KEY, SIGNATURE)
"""Where evidence lies, relative to a version's artifact folder."""

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
RELEASE = "urn:tuneline:release:v1"
BUILD = "urn:tuneline:retrain:v1"
COMMITTED = ("params.yaml", "dvc.lock", "infra/constraints.txt", "pyproject.toml")
"""Files of the run's commit whose digests a statement names: what was asked, which data, which dependencies."""


class Installed(Value):
    """A distribution that was installed where the version was registered."""

    name: str
    version: str
    license: str | None = None


class Surroundings(Value):
    """What registration knows that no record says: files of the run's commit by digest, and what was installed."""

    committed: dict[str, str]
    installed: tuple[Installed, ...]
    python: str
    platform: str

    @property
    def installed_digest(self) -> str:
        return digest_value([[d.name, d.version] for d in self.installed])


def model_files(files: Sequence[FileDigest]) -> tuple[FileDigest, ...]:
    """A version's files but the evidence about them."""
    return tuple(f for f in files if not f.path.startswith(f"{FOLDER}/"))


def has_evidence(version: ModelVersion) -> bool:
    return len(model_files(version.files)) < len(version.files)


def subjects(files: Sequence[FileDigest]) -> list[dict[str, Any]]:
    return [{"name": f.path, "digest": {"sha256": f.sha256}} for f in sorted(files, key=lambda f: f.path)]


def provenance(chain: Chain, around: Surroundings, beside: Sequence[FileDigest] = ()) -> dict[str, Any]:
    """The in-toto statement of how a version came to be: SLSA provenance v1 over its files, from the records behind it.

    chain.version may still be without its evidence. beside: the evidence that was made before the statement.
    """
    version, training, evaluation, decision = chain.version, chain.training, chain.evaluation, chain.decision
    assert training is not None
    assert evaluation is not None
    assert decision is not None
    hardware = {"class": training.versions.get("device", "unknown"), "threads": training.versions.get("threads", "unknown")}
    definition = {
        "buildType": BUILD,
        "externalParameters": {
            "train": training.params,
            "evaluate": evaluation.params,
            "gate": decision.policy if isinstance(decision.policy, dict) else {},
            "params": {"path": "params.yaml", "sha256": around.committed.get("params.yaml", "")},
        },
        "internalParameters": {
            "seeds": seeds({"train": training.params, "evaluate": evaluation.params}),
            "hardware": hardware | {f"stage {s.name}": dict(s.machine) for s in training.stages},
            "versions": dict(training.versions),
            "installed": {"sha256": around.installed_digest, "distributions": len(around.installed)},
            "python": around.python,
            "platform": around.platform,
        },
        "resolvedDependencies": _dependencies(chain, around),
    }
    details = {
        "builder": {"id": "urn:tuneline:builder", "version": {"tuneline": training.versions.get("tuneline", "unknown")}},
        "metadata": {"invocationId": f"{version.tag}#{version.run_id}"},
        "byproducts": _byproducts(chain, beside),
    }
    return _statement(PROVENANCE, model_files(version.files), {"buildDefinition": definition, "runDetails": details})


def release_statement(
    version: ModelVersion, events: Sequence[Event], stages: Sequence[str], head: Event, anchors: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The in-toto statement of what became of a version: approvals, promotions and the like, and where the ledger ended."""
    told = [
        {
            "sequence": e.sequence,
            "event": e.event.value,
            "stage": e.stage or "",
            "version": e.version,
            "actor": e.actor,
            "reason": e.reason,
            "at": e.at.isoformat(),
            "sha256": e.digest,
        }
        for e in events
    ]
    predicate = {
        "model": version.name,
        "version": version.version,
        "record": {"sha256": version.digest},
        "holds": list(stages),
        "events": told,
        "ledger": {"sequence": head.sequence, "sha256": head.digest, "anchors": [dict(a) for a in anchors]},
    }
    return _statement(RELEASE, version.files, predicate)


def agreement(statement: Mapping[str, Any], version: ModelVersion, chain: Chain) -> Iterator[AuditCheck]:
    """Whether a provenance statement says what the records say: a check for everything that both of them name."""
    named = {str(s.get("name")): s.get("digest", {}).get("sha256") for s in _list(statement.get("subject"))}
    known = {f.path: f.sha256 for f in model_files(version.files)}
    wrong = sorted(path for path in named.keys() | known.keys() if named.get(path) != known.get(path))
    yield _check("statement subjects", not wrong, f"{len(known)} files, as registered", f"it is not about {', '.join(wrong[:3])}")
    kinds = (statement.get("_type"), statement.get("predicateType")) == (STATEMENT_TYPE, PROVENANCE)
    yield _check("statement type", kinds, PROVENANCE, f"it is a {str(statement.get('predicateType'))[:60]}")
    predicate = statement.get("predicate", {})
    definition = predicate.get("buildDefinition", {})
    dependencies = {d.get("name"): d.get("digest", {}) for d in _list(definition.get("resolvedDependencies"))}
    byproducts = {d.get("name"): d for d in _list(predicate.get("runDetails", {}).get("byproducts"))}
    yield _equal("statement commit", dependencies.get("commit", {}).get("gitCommit"), version.commit)
    for name in ("training", "evaluation", "decision"):
        yield _equal(f"statement {name}", byproducts.get(name, {}).get("digest", {}).get("sha256"), getattr(version, name))
    yield _equal("statement adapter", byproducts.get("adapter", {}).get("digest", {}).get("sha256"), version.adapter_digest)
    beside = {f.path: f.sha256 for f in version.files if f.path in (BOM, CARD)}
    for path, sha256 in sorted(beside.items()):
        yield _equal(f"statement {path}", byproducts.get(path, {}).get("digest", {}).get("sha256"), sha256)
    if chain.training:
        external = definition.get("externalParameters", {})
        yield _equal("statement params", digest_value(external.get("train")), digest_value(chain.training.params))
        yield _equal("statement base", dependencies.get("base", {}).get("sha256"), chain.training.base.digest)
        inside = definition.get("internalParameters", {})
        yield _equal("statement versions", digest_value(inside.get("versions")), digest_value(dict(chain.training.versions)))
    if chain.snapshot:
        yield _equal("statement snapshot", dependencies.get("snapshot", {}).get("sha256"), chain.snapshot.digest)
        sources = {f"source {s.name}": s.sha256 for s in chain.snapshot.sources}
        said = {name: d.get("sha256") for name, d in dependencies.items() if str(name).startswith("source ")}
        yield _equal("statement sources", digest_value(said), digest_value(sources))
    if chain.evaluation:
        said = byproducts.get("evaluation", {}).get("annotations", {}).get("metrics")
        yield _equal("statement metrics", digest_value(said), digest_value(_metrics(chain)))
    if chain.decision:
        said = byproducts.get("decision", {}).get("annotations", {}).get("verdict")
        yield _equal("statement verdict", said, chain.decision.verdict.value)


def committed_files(statement: Mapping[str, Any]) -> dict[str, str]:
    """Path in the run's commit → SHA-256, as a provenance statement names them."""
    definition = statement.get("predicate", {}).get("buildDefinition", {})
    listed = _list(definition.get("resolvedDependencies"))
    return {d["name"]: d.get("digest", {}).get("sha256", "") for d in listed if d.get("name") in COMMITTED}


def seeds(params: Any, path: str = "") -> dict[str, int]:
    """Every `seed` in nested params, by its place."""
    found: dict[str, int] = {}
    rows = params.items() if isinstance(params, Mapping) else enumerate(params) if isinstance(params, list | tuple) else ()
    for key, value in rows:
        place = f"{path}.{key}" if path else str(key)
        if key == "seed" and isinstance(value, int):
            found[place] = value
        else:
            found |= seeds(value, place)
    return found


def _statement(kind: str, files: Sequence[FileDigest], predicate: dict[str, Any]) -> dict[str, Any]:
    return {"_type": STATEMENT_TYPE, "subject": subjects(files), "predicateType": kind, "predicate": predicate}


def _dependencies(chain: Chain, around: Surroundings) -> list[dict[str, Any]]:
    version, training = chain.version, chain.training
    assert training is not None
    base = training.base
    parts = {"weights": base.weights, "tokenizer": base.tokenizer} | ({"template": base.template} if base.template else {})
    listed = [
        _descriptor("commit", gitCommit=version.commit, annotations={"tag": version.tag, "uncommitted changes": version.dirty}),
        *(_descriptor(path, sha256=sha256) for path, sha256 in sorted(around.committed.items())),
        _descriptor("base", sha256=base.digest, annotations={"id": base.id, "revision": base.revision or "", **parts}),
        _descriptor("splits", sha256=training.splits),
        _descriptor("starts", sha256=training.starts),
    ]
    if chain.evaluation:
        listed.append(_descriptor("champion", sha256=chain.evaluation.champion))
    if chain.snapshot:
        rows = {"rows": chain.snapshot.rows, "dataset": chain.snapshot.dataset}
        listed.append(_descriptor("snapshot", sha256=chain.snapshot.digest, annotations=rows))
        listed += [_descriptor(f"source {s.name}", sha256=s.sha256, annotations=_origin(s)) for s in chain.snapshot.sources]
    return listed


def _origin(source: Any) -> dict[str, Any]:
    told = {"rows accepted": source.accepted, "origin": source.origin, "license": source.license}
    return {key: value for key, value in told.items() if value not in (None, "")}


def _byproducts(chain: Chain, beside: Sequence[FileDigest]) -> list[dict[str, Any]]:
    version, decision = chain.version, chain.decision
    assert decision is not None
    checks = [{"name": c.name, "verdict": c.verdict.value, "detail": c.detail} for c in decision.checks]
    return [
        _descriptor("adapter", sha256=version.adapter_digest),
        _descriptor("training", sha256=version.training),
        _descriptor("evaluation", sha256=version.evaluation, annotations={"metrics": _metrics(chain)}),
        _descriptor("decision", sha256=version.decision, annotations={"verdict": decision.verdict.value, "checks": checks}),
        *(_descriptor(f.path, sha256=f.sha256) for f in beside),
    ]


def _metrics(chain: Chain) -> list[dict[str, Any]]:
    measured = chain.evaluation.subject("candidate") if chain.evaluation else None
    return [m.model_dump(mode="json") for m in measured.metrics] if measured else []


def _descriptor(name: str, *, annotations: Mapping[str, Any] | None = None, **digest: str) -> dict[str, Any]:
    told = {"name": name, "digest": digest}
    return told | ({"annotations": dict(annotations)} if annotations else {})


def _list(value: Any) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _equal(name: str, said: object, known: str) -> AuditCheck:
    shown = str(said)[:12] if said is not None else "nothing"
    return _check(name, said == known, known[:12], f"it says {shown}, the records say {known[:12]}")


def _check(name: str, ok: bool, fine: str, wrong: str) -> AuditCheck:
    return AuditCheck(name=name, ok=ok, detail=fine if ok else wrong)
