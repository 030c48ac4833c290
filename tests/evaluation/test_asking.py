"""What evaluation reads, put beside the data; whether it is still that; and what answers take."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from asked_rows import asked

from pipeline.asking.belonging import check_files
from pipeline.asking.timing import quantile, time_answers
from pipeline.domain.measured import SuiteFiles
from pipeline.errors import Misuse, Tampered
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.params import Params
from pipeline.params.evaluate import CostParams
from pipeline.placing import place_suites
from pipeline.workspace import Workspace


def place(root: Path, *files: str) -> tuple[SuiteFiles, Workspace]:
    """Suites of `files`, asked for in a run's folder below `root`; root/checkout is the user's checkout."""
    suites = [{"name": f"s{at}", "kind": "text", "file": file} for at, file in enumerate(files)]
    params = Params.model_validate({"model": {"name": "m", "task": "generate", "base": "./x"}, "evaluate": {"suites": suites}})
    workspace = Workspace(root / "run")
    workspace.root.mkdir(exist_ok=True)
    run = SimpleNamespace(workspace=workspace, store=SimpleNamespace(add=lambda folder: None))
    world = SimpleNamespace(git=SimpleNamespace(root=root / "checkout"))
    return place_suites(world, run, params), workspace  # type: ignore[arg-type]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "general.txt").write_text("once upon a time\n")
    (tmp_path / "secret.txt").write_text("not yours\n")
    return folder


def test_files_come_from_the_commit_or_the_checkout_and_are_found_by_what_params_call_them(checkout: Path) -> None:
    root = checkout.parent
    (root / "run").mkdir()
    (root / "run" / "edge.yaml").write_text("- name: a\n")
    record, workspace = place(root, "general.txt", "edge.yaml")
    assert (workspace.suites / record.place("general.txt")).read_text() == "once upon a time\n"
    assert (workspace.suites / record.place("edge.yaml")).read_text() == "- name: a\n"
    assert SuiteFiles.read(workspace.suites_record) == record
    check_files(record, workspace.suites)


@pytest.mark.parametrize("path", ["../secret.txt", "absent.txt", "link.txt", "/etc/hostname"])
def test_what_is_no_file_of_the_repository_is_refused_by_its_key(checkout: Path, path: str) -> None:
    (checkout / "link.txt").symlink_to(checkout.parent / "secret.txt")
    with pytest.raises(Misuse, match="no file of this repository") as error:
        place(checkout.parent, path)
    assert error.value.where == "evaluate.suites.s0.file"


def test_a_changed_or_added_file_is_refused(checkout: Path) -> None:
    record, workspace = place(checkout.parent, "general.txt")
    file = workspace.suites / record.place("general.txt")
    file.write_text("once upon a crime\n")
    with pytest.raises(Tampered, match="not the recorded one"):
        check_files(record, workspace.suites)


def test_answers_are_timed_one_by_one_and_in_a_batch() -> None:
    rows, sizes, spent = asked(["yes"] * 9), [], [0, 0]

    def answer(name: str, some: SplitRows) -> Said:
        sizes.append((name, len(some)))
        spent[:] = [spent[0] + 10 * len(some), spent[1] + 2 * len(some)]
        time.sleep(0.02 if name == "slow" else 0.0)
        return Said(["yes"] * len(some))

    params = CostParams(price_per_hour=3.6, timed_answers=4)
    slow, quick = time_answers(answer, ["slow", "quick"], rows, params, batch_size=6, tokens=lambda _: (spent[0], spent[1]))
    assert sizes == [("slow", 6), *[("slow", 1)] * 4, ("quick", 6), *[("quick", 1)] * 4]
    assert (slow.answers, slow.timed, slow.prompt_tokens, slow.answer_tokens) == (6, 4, 10, 2)
    assert slow.latency_p95 >= slow.latency_p50 >= 0.02
    assert slow.per_thousand == pytest.approx(1000 * slow.seconds / 6 * 3.6 / 3600)
    assert quick.latency_p50 < slow.latency_p50


def test_quantiles_are_of_the_nearest_rank() -> None:
    assert [quantile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.25, 0.5, 0.51, 0.95)] == [1, 1, 2, 3, 4]
    assert quantile([], 0.5) == 0
