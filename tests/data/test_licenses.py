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


class Untouched:
    """Sources that may not be asked for anything."""

    def find(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a source was fetched before its licence was looked at")


@pytest.mark.parametrize(
    ("source", "licenses", "problem"),
    [
        ({"path": "inbox", "license": "CC-BY-NC-4.0"}, ACCEPTED, "its licence CC-BY-NC-4.0 is noncommercial"),
        ({"path": "inbox", "license": "unknown"}, ACCEPTED, "its licence is said to be 'unknown'"),
        ({"path": "inbox"}, ("permissive",), "no licence is said"),
        ({"hub": "org/talk", "revision": "0" * 40}, ACCEPTED, "no licence is said"),
        ({"hub": "org/talk", "revision": "0" * 40, "license": "openrail"}, ACCEPTED, "LicenseRef-openrail is not among"),
    ],
)
def test_a_source_is_refused_before_it_is_fetched(
    tmp_path: Path, source: dict[str, str], licenses: tuple[str, ...], problem: str
) -> None:
    params = IngestParams.model_validate({"sources": [{"path": "fine", "license": "MIT"}, source]})
    with pytest.raises(BadInput) as refusal:
        ingest(
            params, dataset="d", task=Task.GENERATE, sources=Untouched(), parent=None, folder=tmp_path / "s", licenses=licenses
        )
    assert problem in refusal.value.what
    assert refusal.value.where == f"ingest.sources: {source.get('hub') or 'inbox'}"
    assert "license" in str(refusal.value.fix)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("license", [None, "own", "CC-BY-4.0", "MIT OR CC-BY-NC-4.0"])
def test_an_accepted_source_comes_in_with_its_licence(bench: Any, license: str | None) -> None:
    bench.put("rows.jsonl", [{"prompt": "a", "completion": "b"}])
    assert bench.take(license=license).sources[0].license == license


def test_folders_laid_out_like_the_hub_are_ones_own() -> None:
    assert IngestParams.model_validate({"sources": [{"hub": "org/talk", "revision": "0" * 40}]}).sources[0].public  # type: ignore[union-attr]
    assert not IngestParams.model_validate({"sources": [{"hub": "./talk"}]}).sources[0].public  # type: ignore[union-attr]
