"""The README of an exported release: how a stranger verifies it with public tools alone. Pure: facts in, Markdown out.

A test runs each of its commands as it stands, where Tuneline cannot be imported; so must everything be that is added here.
"""

from __future__ import annotations

from collections.abc import Mapping

TOOLS = (
    "model-signing",
    "in-toto-attestation",
    "securesystemslib",
    "cryptography",
    "cyclonedx-python-lib",
    "jsonschema",
    "pyopenssl",
)
"""What the instructions use, by its name on PyPI."""

_STATEMENTS = """\
import hashlib, json, pathlib
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf.json_format import Parse
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()

def opened(path, key):
    envelope = Envelope.from_dict(json.loads(pathlib.Path(path).read_text()))
    envelope.verify([SSlibKey.from_crypto(load_pem_public_key(pathlib.Path(key).read_bytes()))], threshold=1)
    Statement.copy_from_pb(Parse(envelope.payload, statement_pb2.Statement())).validate()
    statement = json.loads(envelope.payload)
    for subject in statement["subject"]:
        assert sha256(f"release/{subject['name']}") == subject["digest"]["sha256"], subject["name"]
    return statement

made = opened("release/evidence/statement.intoto.json", "keys/release.pem")
Parse(json.dumps(made["predicate"]), Provenance())
print("provenance:", len(made["subject"]), "files,", made["predicateType"])
byproducts = {b["name"]: b["digest"].get("sha256") for b in made["predicate"]["runDetails"]["byproducts"]}
for name in ("training", "evaluation", "decision"):
    assert sha256(f"records/{name}.json") == byproducts[name], name
for one in made["predicate"]["buildDefinition"]["resolvedDependencies"]:
    if pathlib.Path("code", one["name"]).is_file():
        assert sha256(f"code/{one['name']}") == one["digest"]["sha256"], one["name"]
    if one["name"] in ("snapshot", "splits", "starts", "champion"):
        assert sha256(f"records/{one['name']}.json") == one["digest"]["sha256"], one["name"]
print("records and files of the commit: as the provenance names them")

became = opened("release.intoto.json", "keys/export.pem")["predicate"]
assert sha256("records/version.json") == became["record"]["sha256"]
for event in became["events"]:
    print(event["at"], event["event"], event["stage"], "by", event["actor"], "-", event["reason"])"""

_LEDGER = """\
import hashlib, json, pathlib
lines = pathlib.Path("ledger/events.jsonl").read_bytes().splitlines(keepends=True)
before = None
there = {}
for line in lines:
    event = json.loads(line)
    assert before is None or event["previous"] == before, event["sequence"]
    before = hashlib.sha256(line).hexdigest()
    there[event["sequence"]] = before
statement = json.loads(__import__("base64").b64decode(json.loads(pathlib.Path("release.intoto.json").read_text())["payload"]))
became = statement["predicate"]
assert before == became["ledger"]["sha256"], "the excerpt does not end where the release statement says"
assert all(there[e["sequence"]] == e["sha256"] for e in became["events"])
registered = json.loads(lines[0])
assert registered["subject"] == hashlib.sha256(pathlib.Path("records/version.json").read_bytes()).hexdigest()
for anchor in became["ledger"]["anchors"]:
    assert there.get(anchor["sequence"], anchor["sha256"]) == anchor["sha256"], anchor
print(len(lines), "events, an unbroken chain up to", before)"""

_BILL = """\
import pathlib
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(pathlib.Path("release/evidence/bom.cdx.json").read_text())
assert problem is None, problem
print("bill of materials: valid CycloneDX 1.6")"""


def evidence_readme(*, name: str, version: str, commit: str, tag: str, keys: Mapping[str, str]) -> str:
    """keys: name of a file below keys/ → its SHA-256."""
    fingerprints = "\n".join(f"    {digest}  keys/{file}" for file, digest in sorted(keys.items()))
    return f"""# {name}, version {version}: the release and its evidence

What lies here: `release/`, every file of the released version, evidence among them; `records/`, what each step wrote down;
`ledger/events.jsonl`, the release ledger from the registration of this version on; `code/`, files of the commit that made it
(`{commit}`, tag `{tag}`); `release.intoto.json`, what became of the version (approvals, promotions); `keys/`, public keys.

All of it can be verified with public tools, without the software that made it, and without a network once these are installed:

    python -m pip install -r requirements.txt

Every check below prints what it found, and ends with an error when something does not hold. Run them in this folder.

## 0. Whose keys are these?

A signature proves that the holder of a key signed. Compare these fingerprints with those that the project gave you another way:

{fingerprints}

## 1. Nothing was lost or damaged on the way

```bash
sha256sum --check --quiet SHA256SUMS
test "$(find . -type f -not -name SHA256SUMS | wc -l)" = "$(wc -l < SHA256SUMS)"
```

## 2. Every file of the release is signed (OpenSSF model signing)

```bash
python -m model_signing verify key release --signature release/evidence/model.sig --public_key keys/release.pem
```

## 3. How it was made, and what became of it (in-toto, SLSA provenance, DSSE)

```bash
python - <<'END'
{_STATEMENTS}
END
```

## 4. The ledger: who decided what, in an unbroken chain

Each line is an event; its SHA-256, line end included, is what the next line calls `previous`. The last one is in the signed
release statement. Where you have fetched the project's tags `tuneline/{name}/anchor/*`, compare `git show TAG:anchor.json` too.

```bash
python - <<'END'
{_LEDGER}
END
```

## 5. What it is made of (CycloneDX)

```bash
python - <<'END'
{_BILL}
END
```
"""
