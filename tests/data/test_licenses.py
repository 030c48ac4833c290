"""Which licences are accepted: by id, by class, in expressions; and that a refused source is not opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from packaging.licenses import canonicalize_license_expression
from pydantic import ValidationError

from pipeline.domain.data import Task
from pipeline.domain.licensing import ACCEPTED, canonical_license, check_license, license_classes, license_fix
from pipeline.errors import BadInput
from pipeline.params import CleanParams, IngestParams
from pipeline.steps.ingest import ingest


@pytest.mark.parametrize(
    ("license", "classes"),
    [
        ("CC0-1.0", {"public-domain"}),
        ("pddl-1.0", {"public-domain"}),
        ("MIT", {"permissive"}),
        ("cc-by-4.0", {"permissive"}),
        ("CC-BY-3.0", {"permissive"}),
        ("apache-2.0", {"permissive"}),
        ("CDLA-Permissive-2.0", {"permissive"}),
        ("CDLA-Sharing-1.0", {"share-alike"}),
        ("CC-BY-SA-3.0", {"share-alike"}),
        ("ODbL-1.0", {"share-alike"}),
        ("AGPL-3.0-only", {"share-alike"}),
        ("CC-BY-NC-4.0", {"noncommercial"}),
        ("CC-BY-NC-SA-4.0", {"noncommercial"}),
        ("CC-BY-ND-4.0", {"no-derivatives"}),
        ("CC-BY-NC-ND-4.0", {"noncommercial", "no-derivatives"}),
        ("PolyForm-Noncommercial-1.0.0", {"noncommercial"}),
        ("openrail", set()),
        ("own", {"own"}),
        ("Proprietary", {"own"}),
        ("unknown", {"unlicensed"}),
        (None, {"own"}),
    ],
)
def test_classes(license: str | None, classes: set[str]) -> None:
    assert license_classes(license) == classes


@pytest.mark.parametrize(
    ("license", "accepted", "public", "ok"),
    [
        (None, ACCEPTED, False, True),
        (None, ACCEPTED, True, False),
        (None, ("MIT",), False, False),
        (None, ("own",), False, True),
        (None, ("unlicensed",), True, True),
        (None, ("any",), True, True),
        ("other", ACCEPTED, False, False),
        ("own", ACCEPTED, True, True),
        ("own", ("permissive",), False, False),
        ("MIT", ("permissive",), True, True),
        ("mit", ("MIT",), True, True),
        ("MIT", ("Apache-2.0", "share-alike"), True, False),
        ("CC-BY-NC-4.0", ACCEPTED, False, False),
        ("CC-BY-NC-4.0", (*ACCEPTED, "noncommercial"), False, True),
        ("CC-BY-NC-4.0", (*ACCEPTED, "CC-BY-NC-4.0"), False, True),
        ("CC-BY-NC-ND-4.0", (*ACCEPTED, "noncommercial"), False, False),
        ("CC-BY-NC-ND-4.0", (*ACCEPTED, "noncommercial", "no-derivatives"), False, True),
        ("MIT OR CC-BY-NC-4.0", ACCEPTED, False, True),
        ("MIT AND CC-BY-NC-4.0", ACCEPTED, False, False),
        ("(MIT OR CC-BY-NC-4.0) AND CC-BY-SA-4.0", ACCEPTED, False, True),
        ("MIT OR CC-BY-NC-4.0 AND CC-BY-ND-4.0", ACCEPTED, False, True),
        ("GPL-3.0-or-later WITH Classpath-exception-2.0", ACCEPTED, False, True),
        ("openrail", ACCEPTED, False, False),
        ("openrail", ("LicenseRef-openrail",), False, True),
        ("Our Special Licence!", ("any",), False, True),
        ("(" * 5000 + "MIT", ACCEPTED, False, False),
    ],
)
def test_policy(license: str | None, accepted: tuple[str, ...], public: bool, ok: bool) -> None:
    problem = check_license(license, accepted, public=public)
    assert (problem is None) is ok, problem
    if problem:
        assert problem.startswith(("no licence is said", "its licence", "it is your own"))
        assert license_fix(license)


def test_every_license_is_named_as_spdx_names_it() -> None:
    for license in ("cc-by-4.0", "mit and (apache-2.0 or 0bsd)", "openrail++", "Our Special Licence!"):
        name = canonical_license(license)
        assert canonicalize_license_expression(name) == name


def test_params_take_ids_and_classes_and_nothing_else() -> None:
    assert CleanParams(licenses=("own", "mit", "LicenseRef-acme", "noncommercial")).licenses[1] == "mit"
    with pytest.raises(ValidationError, match="'CC-BY' is neither an SPDX id nor one of own, public-domain"):
        CleanParams(licenses=("CC-BY",))
    with pytest.raises(ValidationError):
        CleanParams(licenses=())


@pytest.mark.parametrize(("license", "taken"), [(None, True), ("own", True), ("CC-BY-4.0", True), ("CC-BY-NC-4.0", False)])
def test_a_source_is_asked_for_its_licence_before_it_is_opened(tmp_path: Path, license: str | None, taken: bool) -> None:
    inbox, folder = tmp_path / "inbox", tmp_path / "snapshot"
    inbox.mkdir()
    # Were the file opened, it would be refused for what it is.
    (inbox / "rows.jsonl").write_bytes(b'{"prompt": "a", "completion": "b"}\n' if taken else b"\x00\x01 no rows at all")

    def take() -> Any:
        params = IngestParams(license=license)
        return ingest(params, dataset="d", task=Task.GENERATE, sources=[inbox], parent=None, folder=folder, root=tmp_path)

    if taken:
        assert take().sources[0].license == license
        return
    with pytest.raises(BadInput, match="is noncommercial, which clean") as refusal:
        take()
    assert refusal.value.where
    assert "clean.licenses" in str(refusal.value.fix)
    assert not [path for path in folder.rglob("*") if path.is_file()]
