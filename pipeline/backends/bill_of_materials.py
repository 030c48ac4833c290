"""The bill of materials of a release: a CycloneDX ML-BOM, made and validated by cyclonedx-python-lib.

Adapter and base are machine-learning models, snapshots and sources are data, installed distributions are libraries. The library
has no class for a model card (CycloneDX modelCard), so that part is added to its JSON; the whole is validated against the schema.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from pipeline.domain.data import Task
from pipeline.domain.evidence import Installed, Surroundings
from pipeline.domain.lineage import Chain
from pipeline.domain.record import canonical_json
from pipeline.errors import Broken

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_SPACE = UUID("6f4bb8a1-4a0b-5d0e-9d0c-6b7e21c1f0aa")
"""Serial numbers of bills are derived from what they are about, so that the same release has the same bill."""


def bill(chain: Chain, around: Surroundings) -> bytes:
    """The bill as JSON of CycloneDX 1.6, the same for the same records and surroundings. Raises Broken if it is not valid."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.output.json import JsonV1Dot6

    adapter, base, data = _adapter(chain), _base(chain), _data(chain)
    libraries = [_library(one) for one in around.installed]
    bom = Bom(components=[base, *data, *libraries])
    bom.metadata = BomMetaData(component=adapter)
    bom.serial_number = uuid5(_SPACE, chain.version.adapter_digest + chain.version.version)
    bom.register_dependency(adapter, [base, *data, *libraries])
    content: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    content["metadata"].pop("timestamp", None)  # the same release has the same bill
    content["metadata"]["component"]["modelCard"] = _model_card(chain)
    text = canonical_json(content) + "\n"
    if (problem := bill_problem(text)) is not None:
        raise Broken(f"the bill of materials is not valid CycloneDX: {problem}")
    return text.encode()


def bill_problem(text: str) -> str | None:
    """What CycloneDX's own schema (1.6) finds wrong with a bill; None when it is valid."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    try:
        found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    except ValueError as error:
        return f"no JSON: {error}"
    return None if found is None else str(found.data.message if hasattr(found.data, "message") else found.data)[:300]


def _adapter(chain: Chain) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    version, training = chain.version, chain.training
    assert training is not None
    files = [
        Component(
            type=ComponentType.FILE,
            name=f.path,
            bom_ref=f"adapter/{f.path}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=f.sha256)],
        )
        for f in training.adapter
    ]
    said = {
        "adapter": version.adapter_digest,
        "training": version.training,
        "evaluation": version.evaluation,
        "decision": version.decision,
        "commit": version.commit,
    }
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=version.name,
        version=version.version,
        bom_ref="adapter",
        description=f"{', '.join(s.tuner.value for s in training.stages)} adapter of {training.base.id}",
        properties=_properties(said),
        components=files,
    )


def _base(chain: Chain) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    assert chain.training is not None
    base = chain.training.base
    parts = {"weights": base.weights, "tokenizer": base.tokenizer, "template": base.template or "none"}
    kind = ComponentType.MACHINE_LEARNING_MODEL
    return Component(type=kind, name=base.id, version=base.revision or base.digest, bom_ref="base", properties=_properties(parts))


def _data(chain: Chain) -> list[Component]:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    if chain.snapshot is None:
        return []
    snapshot = chain.snapshot
    told = {"rows": str(snapshot.rows), "record": snapshot.digest}
    listed = [
        Component(
            type=ComponentType.DATA,
            name=snapshot.dataset,
            version=snapshot.digest[:12],
            bom_ref="snapshot",
            properties=_properties(told),
        )
    ]
    for number, source in enumerate(snapshot.sources):
        facts = {"rows accepted": str(source.accepted)} | ({"license": source.license} if source.license else {})
        listed.append(
            Component(
                type=ComponentType.DATA,
                name=source.name,
                bom_ref=f"source/{number}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=source.sha256)],
                properties=_properties(facts),
            )
        )
    return listed


def _library(one: Installed) -> Component:
    from cyclonedx.factory.license import LicenseFactory
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    licenses = [LicenseFactory().make_from_string(one.license)] if one.license else []
    purl = PackageURL("pypi", None, one.name.lower().replace("_", "-"), one.version)
    kind = ComponentType.LIBRARY
    ref = f"library/{one.name}"
    return Component(type=kind, name=one.name, version=one.version, bom_ref=ref, purl=purl, licenses=licenses)


def _properties(said: dict[str, str]) -> list[Any]:
    from cyclonedx.model import Property

    return [Property(name=f"tuneline:{name}", value=value) for name, value in said.items()]


def _model_card(chain: Chain) -> dict[str, Any]:
    assert chain.training is not None
    task = "text-classification" if chain.training.task is Task.CLASSIFY else "text-generation"
    measured = chain.evaluation.subject("candidate") if chain.evaluation else None
    metrics = [
        {
            "type": m.metric,
            "value": f"{m.value:.6g}",
            "slice": "test split",
            "confidenceInterval": {"lowerBound": f"{m.low:.6g}", "upperBound": f"{m.high:.6g}"},
        }
        for m in (measured.metrics if measured else ())
    ]
    parameters: dict[str, Any] = {"task": task, "approach": {"type": "supervised"}}
    if chain.snapshot:
        parameters["datasets"] = [{"ref": "snapshot"}]
    return {"modelParameters": parameters, "quantitativeAnalysis": {"performanceMetrics": metrics}}
