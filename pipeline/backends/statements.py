"""in-toto statements, checked against the format's own message types. What they say is domain/evidence.py's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.domain.evidence import PROVENANCE
from pipeline.domain.record import canonical_json
from pipeline.errors import Broken


def check_statement(statement: Mapping[str, Any]) -> None:
    """Raise Broken unless `statement` is an in-toto Statement v1, and its predicate, where it is a provenance, SLSA's v1."""
    from google.protobuf.json_format import Parse, ParseError
    from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    try:
        parsed = Parse(canonical_json(statement), statement_pb2.Statement())
        Statement.copy_from_pb(parsed).validate()
        if statement.get("predicateType") == PROVENANCE:
            Parse(canonical_json(statement["predicate"]), Provenance())
    except (ParseError, ValueError, KeyError) as error:
        raise Broken(f"this is no in-toto statement: {error}") from error
