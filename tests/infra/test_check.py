"""`make check`: what could not be looked at is not taken for clean, what is accepted ends, and the bill is whole."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.checkouts import ROOT

TODAY = date(2026, 11, 29)


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("infra_check", ROOT / "infra" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["infra_check"] = module
    spec.loader.exec_module(module)
    return module


def package(name: str, *ids: str, version: str = "1.0", fixed: tuple[str, ...] = ()) -> dict[str, Any]:
    """As pip-audit says it."""
    return {
        "name": name,
        "version": version,
        "vulns": [{"id": id, "fix_versions": list(fixed), "aliases": [f"GHSA-{id}"]} for id in ids],
    }


SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}
ACCEPTED = [{"id": "CVE-1", "package": "diskcache", "until": date(2027, 1, 1), "reason": "its folder is private"}]
CASES = [
    ("nothing is known", [package("a"), package("b")], [], 0, "nothing is known against them"),
    ("a hole", [package("a", "CVE-9", fixed=("1.1",))], [], 1, "a 1.0: CVE-9, closed by 1.1"),
    ("an accepted one", [package("diskcache", "CVE-1")], ACCEPTED, 0, "accepted"),
    ("by another name of it", [package("diskcache", "CVE-1x")], [{**ACCEPTED[0], "id": "GHSA-CVE-1x"}], 0, "accepted"),
    ("of another package", [package("a", "CVE-1")], ACCEPTED, 1, "VULNERABLE a"),
    (
        "whose day has come",
        [package("diskcache", "CVE-1")],
        [{**ACCEPTED[0], "until": date(2026, 11, 28)}],
        1,
        "until 2026-11-28",
    ),
    ("that nothing has", [package("a")], ACCEPTED, 1, "STALE"),
    ("what was skipped", [package("a"), SKIPPED], [], 3, "NOT CHECKED: 1 of 2"),
    ("all was skipped", [SKIPPED], ACCEPTED, 3, "NOT CHECKED: 1 of 1"),
    ("a hole and a gap", [package("a", "CVE-9"), SKIPPED], [], 1, "NOT CHECKED"),
    ("nothing at all", [], [], 3, "0 of 0"),
]


@pytest.mark.parametrize(("found", "accepted", "code", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_an_audit_comes_to(check: ModuleType, found: list[Any], accepted: list[Any], code: int, said: str) -> None:
    ended, lines = check.weighed(found, accepted, TODAY)
    assert ended == code, lines
    assert said in "\n".join(lines)


def test_without_a_network_it_is_not_checked_and_not_clean(tmp_path: Path) -> None:
    """Through the real pip-audit, whose way to PyPI is a port at which nobody listens."""
    pins = tmp_path / "pins.txt"
    pins.write_text("diskcache==5.6.3\n")
    env = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
    command = [sys.executable, str(ROOT / "infra" / "check.py"), "vulnerabilities", "--pins", str(pins)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stdout.startswith("NOT CHECKED")


@pytest.mark.parametrize(
    ("licence", "binds"),
    [
        ("MIT", False),
        ("AGPL-3.0-only", True),
        ("GPL-2.0-or-later", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("GNU Affero General Public License v3", True),
        ("LGPL-3.0-only", False),
        ("GNU Lesser General Public License v2 or later (LGPLv2+)", False),
        ("Apache-2.0 OR GPL-2.0-or-later", False),
        ("GPL-3.0-only OR AGPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", True),
        ("Business Source License 1.1 (BUSL-1.1)", True),
        ("MPL-2.0", False),
    ],
)
def test_which_licences_bind_more_than_the_package(check: ModuleType, licence: str, binds: bool) -> None:
    assert check.binds(licence) == binds


def test_licences_of_this_environment_are_accepted_by_name_or_bind_nothing(check: ModuleType) -> None:
    import tomllib

    accepted = tomllib.loads((ROOT / "infra" / "accepted.toml").read_text())["licence"]
    packages = check.installed()
    code, lines = check.licences(packages, accepted)
    assert code == 0, lines
    code, lines = check.licences([*packages, check.Package("evil", "1", "AGPL-3.0-only")], accepted)
    assert code == 1
    assert lines[0] == "BINDING    evil 1: AGPL-3.0-only"
    code, lines = check.licences([one for one in packages if one.key != "grandalf"], accepted)
    assert code == 1
    assert lines[0].startswith("STALE      grandalf")


def test_the_bill_names_every_distribution_once(check: ModuleType, tmp_path: Path) -> None:
    # The schema takes seconds for hundreds of packages; each is written alike.
    code, _ = check.written(check.installed()[::10], tmp_path / "sbom.json")
    assert code == 0
    assert json.loads((tmp_path / "sbom.json").read_text())["specVersion"] == "1.6"
    bill = json.loads(check.bill(check.installed()))
    names = [one["name"] for one in bill["components"]]
    there = {one.metadata["Name"] for one in importlib.metadata.distributions()} - {"tuneline"}
    assert {name.lower().replace("_", "-").replace(".", "-") for name in names} == {
        name.lower().replace("_", "-").replace(".", "-") for name in there
    }
    assert len(names) == len(set(names))
    torch = next(one for one in bill["components"] if one["name"] == "torch")
    assert torch["purl"].startswith("pkg:pypi/torch@2.")
    assert sum(bool(one.get("licenses")) for one in bill["components"]) > 0.95 * len(names)
    assert bill["metadata"]["component"]["name"] == "tuneline"
