"""What must hold of compose.yaml, of Kubernetes manifests and of Dockerfiles: rules of this project's own. No test lives here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pipeline.backends.secrets import TokenSecrets

PINNED = re.compile(r"^[a-z0-9./-]+:v?[0-9]+\.[0-9]+(\.[0-9]+)?([-.a-z0-9]*)$")
SECRET_NAMES = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH_STRING|CREDENTIAL|PRIVATE|_KEY$", re.IGNORECASE)
PUBLIC = ("AWS_ACCESS_KEY_ID",)
"""Names of keys, not keys."""


def secret_problems(where: str, environment: dict[str, str]) -> Iterator[str]:
    """A secret may be named by the file that it lies in, and by nothing else."""
    for name, value in environment.items():
        if name.endswith("_FILE"):
            if not value.startswith("/run/secrets/"):
                yield f"{where}: {name} is read from {value}, not from /run/secrets"
        elif SECRET_NAMES.search(name) and name not in PUBLIC:
            yield f"{where}: {name} is a secret in plain text"
        elif re.search(r"://[^/\s:@]*:[^/\s@]+@", value) or TokenSecrets().find(f"{name}={value}"):
            yield f"{where}: {name} holds a secret"


def image_problems(where: str, image: str) -> Iterator[str]:
    if not PINNED.match(image) or "latest" in image:
        yield f"{where}: the image {image} is not pinned to a version"


def compose_problems(said: dict[str, Any]) -> list[str]:
    """What is wrong with a compose file."""
    return [problem for name, service in said["services"].items() for problem in _service(name, service, said)]


def _service(name: str, one: dict[str, Any], said: dict[str, Any]) -> Iterator[str]:
    once = one.get("restart") == "no"
    yield from image_problems(name, one.get("image", ""))
    if not once and not one.get("healthcheck", {}).get("test"):
        yield f"{name}: no health check"
    limits = one.get("deploy", {}).get("resources", {}).get("limits", {})
    for limit in ("cpus", "memory", "pids"):
        if limit not in limits:
            yield f"{name}: no limit of {limit}"
    if one.get("read_only") is not True:
        yield f"{name}: its root file system can be written"
    if one.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in one.get("security_opt", ()) or one.get("privileged"):
        yield f"{name}: it has more rights than it needs"
    foreign = one["image"].startswith(("postgres", "chrislusf"))  # images of others begin as root, ours do not
    if str(one.get("user", "root" if foreign else "10001")).split(":")[0] in ("0", "root"):
        yield f"{name}: it runs as root"
    for port in one.get("ports", ()):
        if not str(port).startswith("127.0.0.1:"):
            yield f"{name}: the port {port} is open beyond this machine"
    if not one.get("networks") and not str(one.get("network_mode", "")).startswith("service:"):
        yield f"{name}: it is in the network of all"
    environment = one.get("environment") or {}
    yield from secret_problems(name, {key: str(value) for key, value in environment.items()})
    words = " ".join(str(word) for key in ("command", "entrypoint") for word in _listed(one.get(key)))
    if TokenSecrets().find(words):
        yield f"{name}: a secret in its command"
    wanted = {value.removeprefix("/run/secrets/") for key, value in environment.items() if str(key).endswith("_FILE")}
    given = set(one.get("secrets", ()))
    if wanted - given:
        yield f"{name}: it is not given {', '.join(sorted(wanted - given))}"
    for secret in given - said.get("secrets", {}).keys():
        yield f"{name}: there is no secret {secret}"
    for volume in one.get("volumes", ()):
        if "docker.sock" in volume or volume.startswith("/:"):
            yield f"{name}: it can reach the machine by {volume}"
    if one.get("logging", {}).get("options", {}).get("max-size") is None:
        yield f"{name}: its log has no end"


def manifest_problems(documents: list[dict[str, Any]]) -> list[str]:
    """What is wrong with rendered manifests."""
    found: list[str] = []
    for one in documents:
        where = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Secret":
            found.append(f"{where}: a secret among the manifests")
        for place, template in _templates(one):
            found += list(_pod(f"{where}{place}", template["spec"], once=one["kind"] in ("Job", "CronJob")))
    found += list(_network(documents))
    return found


def pods(documents: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, template) of every pod that is described."""
    for one in documents:
        for place, template in _templates(one):
            yield f"{one['metadata']['name']}{place}", template


def _templates(one: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    spec = one.get("spec", {})
    if one["kind"] in ("Deployment", "StatefulSet", "Job"):
        yield "", spec["template"]
    elif one["kind"] == "CronJob":
        yield "", spec["jobTemplate"]["spec"]["template"]
    elif one["kind"] == "RayCluster":
        yield "/head", spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            yield f"/{group['groupName']}", group["template"]


def _pod(where: str, spec: dict[str, Any], *, once: bool) -> Iterator[str]:
    guard = spec.get("securityContext", {})
    if guard.get("runAsNonRoot") is not True or not guard.get("runAsUser"):
        yield f"{where}: it may run as root"
    if guard.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{where}: no seccomp profile"
    if spec.get("automountServiceAccountToken") is not False:
        yield f"{where}: it is given a token of the API server"
    if spec.get("hostNetwork") or spec.get("hostPID") or any("hostPath" in volume for volume in spec.get("volumes", ())):
        yield f"{where}: it reaches into its node"
    for one in [*spec.get("initContainers", ()), *spec["containers"]]:
        at = f"{where} ({one['name']})"
        yield from image_problems(at, one["image"])
        rights = one.get("securityContext", {})
        if rights.get("readOnlyRootFilesystem") is not True:
            yield f"{at}: its root file system can be written"
        if rights.get("allowPrivilegeEscalation") is not False or rights.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{at}: it has more rights than it needs"
        for sort in ("requests", "limits"):
            for what in ("cpu", "memory"):
                if what not in one.get("resources", {}).get(sort, {}):
                    yield f"{at}: no {sort} of {what}"
        if not once and one in spec["containers"] and "readinessProbe" not in one:
            yield f"{at}: no health check"
        plain = {entry["name"]: str(entry["value"]) for entry in one.get("env", ()) if "value" in entry}
        yield from secret_problems(at, plain)
        if TokenSecrets().find(" ".join([*one.get("command", ()), *one.get("args", ())])):
            yield f"{at}: a secret in its command"
        mounted = {item["path"] for v in spec.get("volumes", ()) for item in v.get("secret", {}).get("items", ())}
        wanted = {value.removeprefix("/run/secrets/") for name, value in plain.items() if name.endswith("_FILE")}
        if wanted - mounted:
            yield f"{at}: it is not given {', '.join(sorted(wanted - mounted))}"
        places = {mount["name"] for mount in one.get("volumeMounts", ())}
        if missing := places - {volume["name"] for volume in spec.get("volumes", ())} - {"data"}:
            yield f"{at}: it mounts what is not there: {', '.join(sorted(missing))}"


def _network(documents: list[dict[str, Any]]) -> Iterator[str]:
    policies = [one for one in documents if one["kind"] == "NetworkPolicy"]
    everyone = [policy["spec"] for policy in policies if policy["spec"]["podSelector"] == {}]
    shut = [spec for spec in everyone if not spec.get("ingress") and not spec.get("egress")]
    if not any(set(spec["policyTypes"]) == {"Ingress", "Egress"} for spec in shut):
        yield "network: what is not said is allowed"
    served = {one["spec"]["selector"]["app"] for one in documents if one["kind"] == "Service"}
    inward = [policy["spec"]["podSelector"] for policy in policies if "Ingress" in policy["spec"]["policyTypes"]]
    let_in = {app for selector in inward for app in _apps(selector)}
    for app in sorted(served - let_in):
        yield f"network: nobody may reach {app}"
    for one in documents:
        if one["kind"] == "Service" and one["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield f"network: {one['metadata']['name']} is reached from outside the cluster"


def _apps(selector: dict[str, Any]) -> set[str]:
    named = {selector.get("matchLabels", {}).get("app")} - {None}
    for one in selector.get("matchExpressions", ()):
        named |= set(one.get("values", ())) if one["key"] == "app" else set()
    return {str(name) for name in named}


def dockerfile_problems(text: str) -> list[str]:
    """What is wrong with a Dockerfile."""
    found, stages, lines = [], set(), re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            image, _, stage = rest.partition(" AS ")
            found += [] if image in stages else list(image_problems("FROM", image))
            stages.add(stage)
        if word == "ADD":
            found.append("ADD fetches and unpacks: take COPY")
        if word == "COPY" and rest.split()[-2:-1] == ["."]:
            found.append("COPY of everything: name what is needed")
        if word in ("ENV", "ARG"):
            said = dict(re.findall(r"([A-Za-z_]+)=(\S+)", rest))
            found += list(secret_problems(word, said))
        if "apt-get install" in line:
            names = re.search(r"--no-install-recommends\s+([^&]*)", line)
            loose = [name for name in (names[1].split() if names else ["?"]) if "=" not in name]
            found += [f"apt: {name} has no version" for name in loose]
            found += [] if "rm -rf /var/lib/apt/lists" in line else ["apt: lists stay in the image"]
        if re.search(r"\bpip install\b", line) and "-c " not in line:
            found.append("pip: installed without the constraints")
        if re.search(r"curl[^|]*\|\s*(ba)?sh|wget[^|]*\|\s*(ba)?sh", line):
            found.append("what was fetched is run unseen")
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    if not users or users[-1].split(":")[0] in ("0", "root"):
        found.append("it runs as root")
    if not any(line.startswith("HEALTHCHECK ") and "NONE" not in line for line in lines):
        found.append("no health check")
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value or ""]
