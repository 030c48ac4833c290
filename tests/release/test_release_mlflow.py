"""The release steps on the real registry: MLflow on SQLite. Its aliases are a projection of the ledger, repaired from it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from release_world import MODEL, STAGES, Candidate, World

import pipeline
from pipeline.backends import mlflow_glance
from pipeline.backends.mlflow_models import packed
from pipeline.domain.release import ModelVersion
from pipeline.errors import TryLater
from pipeline.steps import audit
from pipeline.steps.reconcile import reconcile
from pipeline.steps.register import register
from pipeline.steps.releases import releases


def test_register_promote_roll_back_and_repair_on_mlflow(world: World, tmp_path: Path) -> None:
    from pipeline.backends.mlflow import MlflowRegistry, connect, tracked_run

    client = connect(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts")
    world.registry = MlflowRegistry(client)

    def registered(name: str) -> ModelVersion:
        made: Candidate = world.candidate_files(name)
        with tracked_run(client, MODEL, made.tag, {}) as tracker:
            tracker.log_folder(made.run.training / "adapter", "model/adapter")
            tracker.log_file(made.run.validation / "validation.html", "reports")
        source = f"{client.get_run(tracker.run_id).info.artifact_uri}/model"
        stores = {"registry": world.registry, "ledger": world.ledger, "now": world.clock}
        words = {"name": MODEL, "run_id": tracker.run_id, "commit": "c" * 40, "tag": made.tag, "dirty": False, "source": source}
        first = register(made.decision, made.training, made.evaluation, actor="tuneline", reason="passed", **words, **stores)
        again = register(made.decision, made.training, made.evaluation, actor="tuneline", reason="again", **words, **stores)
        assert again == first
        return first

    one, two = registered("one"), registered("two")
    assert (one.version, two.version) == ("1", "2")
    assert {f.path for f in one.files} == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    assert "reports/validation.html" in {f.path for f in one.reports}
    assert one.tags.items() <= client.get_model_version(MODEL, "1").tags.items()

    world.promote("1")
    world.promote("2")
    assert client.get_model_version_by_alias(MODEL, "production").version in (2, "2")
    world.rollback()
    assert not world.rollback(leaving="2").changed
    assert world.registry.aliases(MODEL) == {"production": "1"}
    assert mlflow_glance.aliases(tmp_path / "mlflow.db", MODEL) == {"production": "1"}
    assert mlflow_glance.aliases(tmp_path / "mlflow.db", "another") == {}

    client.set_registered_model_alias(MODEL, "production", "2")
    stores = {"registry": world.registry, "ledger": world.ledger}
    assert reconcile(MODEL, STAGES, **stores) == ("the alias production named 2; it names 1 again, as the ledger says",)
    assert reconcile(MODEL, STAGES, **stores) == ()

    def proof() -> audit.AuditReport:
        return audit.verify("production", model=MODEL, archive=world.archive, **stores)

    assert proof().broken == ()
    weights = world.registry.artifacts(MODEL, "1") / "adapter" / "adapter_model.safetensors"
    kept = tmp_path / "kept"
    shutil.copy(weights, kept)
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    # The model lies among the run's own files here, so it is found to be changed in both roles.
    assert [c.name for c in proof().broken] == ["model file", "report file"]
    assert all(str(weights) in c.detail for c in proof().broken)
    shutil.copy(kept, weights)

    client.delete_model_version(MODEL, "1")
    assert [c.name for c in proof().broken] == ["alias production", "registry", "model file"]
    assert [(r.version, r.missing, r.stages) for r in releases(MODEL, **stores)] == [
        ("2", False, ()),
        ("1", True, ("production",)),
    ]


def test_an_interrupted_run_whose_params_were_changed_is_left_to_itself(tmp_path: Path) -> None:
    from pipeline.backends.mlflow import RUN_KEY, connect, tracked_run

    client = connect(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts")
    with tracked_run(client, MODEL, "desk-0001", {"by": "ada"}) as first:
        first.log_params({"train.epochs": 6, "train.rank": 4})
    with tracked_run(client, MODEL, "desk-0001", {}) as same:
        same.log_params({"train.epochs": 6, "train.rank": 4})
    assert same.run_id == first.run_id
    with tracked_run(client, MODEL, "desk-0001", {}) as other:
        other.log_params({"train.epochs": 3, "train.rank": 4})
        other.log_metrics({"loss": 1.0}, step=1)
    assert other.run_id != first.run_id
    old, new = client.get_run(first.run_id), client.get_run(other.run_id)
    assert (old.info.status, old.data.params["train.epochs"], RUN_KEY in old.data.tags) == ("KILLED", "6", False)
    assert (new.info.status, new.data.params["train.epochs"], new.data.tags["by"]) == ("FINISHED", "3", "ada")
    with tracked_run(client, MODEL, "desk-0001", {}) as again:
        pass
    assert again.run_id == other.run_id


def test_the_package_is_one_zip_of_the_same_bytes_that_python_imports_from(tmp_path: Path) -> None:
    package = Path(pipeline.__file__).parent
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    made = packed(package, tmp_path / "a")
    assert made.read_bytes() == packed(package, tmp_path / "b").read_bytes()
    script = f"import sys; sys.path.insert(0, {str(made)!r}); import pipeline.domain.release as r; print(r.__file__)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(made))


def test_an_mlflow_that_is_down_holds_nothing_up_that_the_ledger_has(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event stands, the message says so, and the alias follows once, when MLflow is back."""
    from pipeline.backends.mlflow import MlflowRegistry, connect

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    down = MlflowRegistry(connect(f"http://127.0.0.1:{port}", None))
    for ask in (lambda: down.aliases(MODEL), lambda: down.versions(MODEL), lambda: down.point(MODEL, "production", "1")):
        with pytest.raises(TryLater, match="did not answer"):
            ask()
    world.register("one")
    world.register("two")
    world.promote("1")
    there = world.registry

    class Half:
        """Files can be read, but MLflow itself does not answer."""

        def __getattr__(self, name: str) -> object:
            return getattr(down if name in ("aliases", "point", "versions") else there, name)

    world.registry = Half()  # type: ignore[assignment]
    with pytest.raises(TryLater, match=r"the ledger has it .event 4: promoted 2") as caught:
        world.promote("2")
    assert "tuneline reconcile" in str(caught.value)
    assert world.ledger.holder(MODEL, "production") == "2"
    world.registry = there
    stores = {"registry": there, "ledger": world.ledger}
    assert reconcile(MODEL, STAGES, **stores) == ("the alias production named 1; it names 2 again, as the ledger says",)
    assert reconcile(MODEL, STAGES, **stores) == ()
    assert not world.promote("2").changed


def test_a_model_whose_logging_was_killed_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    """MLflow names a model among a run's outputs before its files are there; until they are, it is pending."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    from pipeline.backends.mlflow import connect, tracked_run
    from pipeline.backends.mlflow_models import whole_model

    client = connect(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts")
    with tracked_run(client, MODEL, "desk-0001", {}) as tracker:
        assert whole_model(client, tracker.run_id) is None
        for ended in (False, True):
            experiment = client.get_run(tracker.run_id).info.experiment_id
            model = client.create_logged_model(experiment, name="model", source_run_id=tracker.run_id)
            client.log_outputs(tracker.run_id, [LoggedModelOutput(model.model_id, step=0)])
            if ended:
                client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
            assert whole_model(client, tracker.run_id) == (model.model_id if ended else None)
