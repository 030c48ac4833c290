"""What is installed: known vulnerabilities, licences, and a bill of materials. `make check` does all three.

    python infra/check.py vulnerabilities    ask PyPI about every pin, through pip-audit
    python infra/check.py licences           refuse licences that bind what is given on with it, but for those that are accepted
    python infra/check.py sbom --to FILE     a CycloneDX 1.6 bill of the environment, with licences

Exit codes: 0 nothing found, 1 something was, 3 it could not be looked at. What was not looked at is never taken for clean:
pip-audit itself ends with 0 when a mirror of PyPI knows of no vulnerabilities at all. infra/accepted.toml says what may pass.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BINDING = re.compile(
    r"\b(?:A?GPL|SSPL|BUSL|EUPL|CPAL|OSL|Commons Clause|GNU (?:Affero )?General Public|Proprietary)", re.IGNORECASE
)
"""Licences that ask something of what is given on together with the package. LGPL and MPL bind the package itself alone."""
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    licence: str

    @property
    def key(self) -> str:
        return re.sub(r"[-_.]+", "-", self.name).lower()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("vulnerabilities", "licences", "sbom"))
    parser.add_argument("--pins", type=Path, default=HERE / "constraints.txt", help="what is audited (default: %(default)s)")
    parser.add_argument("--accepted", type=Path, default=HERE / "accepted.toml")
    parser.add_argument("--to", type=Path, default=Path("sbom.cdx.json"), help="where the bill goes (default: %(default)s)")
    said = parser.parse_args()
    accepted = tomllib.loads(said.accepted.read_text(encoding="utf-8"))
    if said.verb == "vulnerabilities":
        code, lines = audited(said.pins, accepted.get("vulnerability", []), date.today())
    elif said.verb == "licences":
        code, lines = licences(installed(), accepted.get("licence", []))
    else:
        code, lines = written(installed(), said.to)
    print("\n".join(lines))
    sys.exit(code)


def audited(pins: Path, accepted: Sequence[dict[str, Any]], today: date) -> tuple[int, list[str]]:
    """Ask pip-audit about a file of pins, and weigh what it says."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(pins), "--no-deps", "--disable-pip"]
    command += ["-f", "json", "--desc", "off", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
        return 3, [f"NOT CHECKED: pip-audit could not ask about {pins.name}: {last}", *_how()]
    return weighed(found, accepted, today)


def weighed(found: Sequence[dict[str, Any]], accepted: Sequence[dict[str, Any]], today: date) -> tuple[int, list[str]]:
    """What pip-audit's answer comes to: (exit code, lines)."""
    lines, used, skipped, bad = [], set(), [one for one in found if "skip_reason" in one], False
    for one in found:
        for hole in one.get("vulns", ()):
            names = {hole["id"], *hole.get("aliases", ())}
            entry = next((e for e in accepted if e["package"] == one["name"] and e["id"] in names), None)
            fixed = ", ".join(hole.get("fix_versions") or ()) or "no version yet"
            if entry is None or entry["until"] < today:
                bad = True
                ended = f"; it was accepted until {entry['until']}" if entry else ""
                lines.append(f"VULNERABLE {one['name']} {one['version']}: {hole['id']}, closed by {fixed}{ended}")
            else:
                lines.append(f"accepted   {one['name']} {one['version']}: {hole['id']} until {entry['until']}: {entry['reason']}")
            if entry is not None:
                used.add(entry["id"])
    looked = len(found) - len(skipped)
    if skipped:
        few = ", ".join(one["name"] for one in skipped[:5])
        lines.append(f"NOT CHECKED: {len(skipped)} of {len(found)} packages ({few}, …): {skipped[0]['skip_reason'][:120]}")
        lines += _how()
    else:
        # Only then is an entry that nothing needed one to take out.
        stale = [entry["id"] for entry in accepted if entry["id"] not in used]
        lines += [f"STALE      {id} is accepted, and nothing has it: take it out of accepted.toml" for id in stale]
        bad = bad or bool(stale)
    lines.append(
        f"{looked} of {len(found)} packages were asked about; {'see above' if lines else 'nothing is known against them'}"
    )
    return (1 if bad else 3 if skipped or not found else 0), lines


def licences(packages: Sequence[Package], accepted: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
    """Licences that bind more than the package, but for those that a person has accepted as they are."""
    allowed = {(entry["package"], entry["licence"]): entry["reason"] for entry in accepted}
    lines, used = [], set()
    for one in packages:
        if not binds(one.licence):
            continue
        if (one.key, one.licence) in allowed:
            used.add((one.key, one.licence))
        else:
            lines.append(f"BINDING    {one.name} {one.version}: {one.licence}")
    lines += [f"STALE      {name} is accepted as {licence}, and is not installed so" for name, licence in allowed.keys() - used]
    code = 1 if lines else 0
    unknown = [one.name for one in packages if one.licence == UNKNOWN]
    counts = Counter(one.licence for one in packages).most_common(5)
    lines.append(f"{len(packages)} packages: {', '.join(f'{count} {licence}' for licence, count in counts)}, …")
    lines.append(
        f"{len(used)} accepted by name; {len(unknown)} say nothing ({', '.join(unknown) or 'none'}): look at those by hand"
    )
    return code, lines


def binds(licence: str) -> bool:
    """Whether a licence binds more than the package. Of a choice (A OR B) whoever uses it takes the one that does not."""
    return all(BINDING.search(part.replace("Lesser General", "")) for part in licence.split(" OR "))


def written(packages: Sequence[Package], target: Path) -> tuple[int, list[str]]:
    """Write the bill, once CycloneDX's own schema finds it valid."""
    text = bill(packages)
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if (problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        return 1, [f"the bill is not valid CycloneDX 1.6: {str(problem)[:300]}"]
    target.write_text(text, encoding="utf-8")
    return 0, [f"{target}: {len(packages)} packages, CycloneDX 1.6"]


def bill(packages: Sequence[Package]) -> str:
    """The environment as CycloneDX JSON; the same for the same packages, but for its time and serial number."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    made = LicenseFactory()
    libraries = [
        Component(
            type=ComponentType.LIBRARY,
            name=one.name,
            version=one.version,
            bom_ref=f"pkg:pypi/{one.key}@{one.version}",
            purl=PackageURL("pypi", None, one.key, one.version),
            licenses=[made.make_from_string(one.licence)] if one.licence != UNKNOWN else [],
        )
        for one in packages
        if one.key != "tuneline"
    ]
    bom = Bom(components=libraries)
    own = next((one for one in packages if one.key == "tuneline"), Package("tuneline", "0", "Apache-2.0"))
    root = Component(type=ComponentType.APPLICATION, name=own.name, version=own.version, bom_ref="tuneline")
    bom.metadata.component = root
    bom.register_dependency(root, libraries)
    return JsonV1Dot6(bom).output_as_string(indent=1)


def installed() -> list[Package]:
    """Every distribution of this environment, by name, with what it says of its licence."""
    found: dict[str, Package] = {}
    for one in importlib.metadata.distributions():
        made = Package(one.metadata["Name"], one.version, _licence(one.metadata))
        found.setdefault(made.key, made)
    return [found[key] for key in sorted(found)]


def _licence(said: Any) -> str:
    """The expression; else the classifiers; else the first line of the text."""
    if expression := said.get("License-Expression"):
        return str(expression)
    ends = [line.split(" :: ")[-1] for line in said.get_all("Classifier") or () if line.startswith("License ::")]
    named = [end for end in ends if end not in ("OSI Approved", "DFSG approved")]
    first = next(iter((said.get("License") or "").strip().splitlines()), "")
    return "; ".join(named) or first[:80] or UNKNOWN


def _how() -> Iterator[str]:
    yield "             run it where PyPI itself answers (a mirror may know the packages and not what is known against them), or"
    yield "             make check UNCHECKED=yes, which says so and goes on"


if __name__ == "__main__":
    main()
