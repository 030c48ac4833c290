"""What a run needs beside its data, put there as tracked files, so that every stage is a function of files.

Benchmarks and edge cases, the rows that a person wants left out, the sides that earlier runs gave to groups, the champion, the
released adapters that training begins from, the files of suites that evaluation asks. What is made of them is the stages'. No
backend is picked here (see wiring.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.domain.curated import Frozen, Splits
from pipeline.domain.data import Snapshot, empty_snapshot
from pipeline.domain.erasure import erasures
from pipeline.domain.measured import SuiteFiles
from pipeline.domain.model import BaseModelRef, Champion, Start, Starts, TrainingRun
from pipeline.domain.record import describe_files
from pipeline.domain.release import Event, ModelVersion, holder, registrations, revoked, version_record
from pipeline.domain.wording import no_such_model
from pipeline.errors import Misuse, Tampered
from pipeline.modeling.base import describe_base
from pipeline.ports import Progress, silent
from pipeline.terminal import say
from pipeline.wiring import World, find_base, take_in

if TYPE_CHECKING:
    from pipeline.backends.run_folder import RunFolder
    from pipeline.params import Params, StageParams
    from pipeline.workspace import Workspace


def place_reserved(world: World, run: RunFolder, params: Params, progress: Progress = silent) -> Snapshot:
    """Put benchmarks and edge cases beside the data, read by the same parser: looking for leaks is then a function of files."""
    entries, folder = (*params.split.benchmarks, *params.split.edge_cases), run.workspace.reserved
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    if not entries:
        reserved = empty_snapshot(params.model.name, params.model.task)
        reserved.write(run.workspace.reserved_record)
    else:
        # Whatever its licence: what is held against the data is not learned from.
        reserved = take_in(world, params, folder, entries, licenses=("any",), progress=progress)
    run.store.add(folder)
    return reserved


def place_reviewed(world: World, run: RunFolder, params: Params) -> None:
    """Put the list of rows that a person wants left out beside the data, so that curation is a function of files."""
    folder, listed = run.workspace.reviewed, params.curate.leave_out
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if listed is None:
        run.workspace.reviewed_list.write_text("id,reason\n", encoding="utf-8")
    else:
        source = world.git.root / listed
        if not source.is_file() or source.is_symlink():
            raise Misuse(f"{listed} is no file", where="curate.leave_out", fix="name a CSV of the project, or drop the key")
        shutil.copyfile(source, run.workspace.reviewed_list)
    run.store.add(folder)


def place_frozen(run: RunFolder) -> Frozen:
    """Put the sides that earlier runs gave to groups beside the data: those the last run began from, and those it drew."""
    workspace, frozen = run.workspace, Frozen()
    fresh = workspace.frozen.with_name("frozen.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "sides").mkdir(parents=True)
    if run.parent is not None:
        frozen = Frozen.read(workspace.frozen_record)
        parts = [(workspace.frozen, frozen.sides)]
        # A run that purged a record was never split: what it began from holds all sides.
        if workspace.splits_record.exists():
            drawn = Splits.read(workspace.splits_record)
            parts.append((workspace.splits, drawn.sides))
            frozen = Frozen(splits=drawn.digest, sides=(*frozen.sides, *drawn.sides))
        for folder, files in parts:
            for file in files:
                shutil.copyfile(folder / file.path, fresh / file.path)
    frozen.write(fresh / workspace.frozen_record.name)
    shutil.rmtree(workspace.frozen, ignore_errors=True)
    fresh.rename(workspace.frozen)
    run.store.add(workspace.frozen)
    return frozen


def place_champion(world: World, run: RunFolder, params: Params) -> Champion:
    """Put what holds the last stage beside the data, verified, so that evaluation is a function of files."""
    model, stage = params.model.name, params.release.stages[-1]
    events = world.ledger.events(model)
    version = holder(events, stage)
    folder = run.workspace.champion
    if folder.exists():
        shutil.rmtree(folder)
    champion = Champion()
    if version is not None:
        record = version_record(events, version)
        _lay(world, record, folder / "adapter")
        champion = Champion(version=version, training=record.training, adapter_digest=record.adapter_digest)
    champion.write(run.workspace.champion_record)
    run.store.add(folder)
    return champion


def place_suites(world: World, run: RunFolder, params: Params) -> SuiteFiles:
    """Put the files that evaluation reads (suites, a schema, a reward model) beside the data, the commit's or the checkout's."""
    folder = run.workspace.suites
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    files = {}
    for number, (path, place) in enumerate(_asked_files(params).items()):
        source = _below(run.workspace.root, path) or _below(world.git.root, path)
        if source is None:
            raise Misuse(f"{path} is no file of this repository", where=place, fix="name a file below its root, or drop the key")
        target = folder / "files" / str(number)
        if source.is_dir():
            shutil.copytree(source, target)
            files[path] = tuple(f.model_copy(update={"path": f"files/{number}/{f.path}"}) for f in describe_files(target))
        else:
            shutil.copyfile(source, target)
            files[path] = tuple(f for f in describe_files(folder) if f.path == f"files/{number}")
    record = SuiteFiles(files=files)
    record.write(run.workspace.suites_record)
    run.store.add(folder)
    return record


def _below(root: Path, path: str) -> Path | None:
    """What `path` is below `root`, links followed; None where there is nothing or it leads out of it."""
    found = (root / path).resolve()
    return found if found.exists() and found.is_relative_to(root.resolve()) else None


def _asked_files(params: Params) -> dict[str, str]:
    """The paths that evaluation reads, each with the place in params where it stands."""
    asked = params.evaluate
    found = {suite.file: f"evaluate.suites.{suite.name}.file" for suite in asked.suites if suite.file}
    if asked.format.schema_file:
        found[asked.format.schema_file] = "evaluate.format.schema_file"
    if asked.judge is not None and asked.judge.by == "reward_model":
        found[asked.judge.model] = "evaluate.judge.model"
    return found


def place_starts(world: World, run: RunFolder, params: Params) -> Starts:
    """Put the released adapters that stages of the training ask for beside the data: training is a function of files."""
    starts = lay_starts(world, run.workspace, params, dirty=run.code.dirty)
    run.store.add(run.workspace.starts)
    return starts


def lay_starts(world: World, workspace: Workspace, params: Params, *, dirty: bool) -> Starts:
    """The same, verified, in a folder that nothing tracks. dirty: whether what is made there may begin from uncommitted changes.

    The champion is there when a stage begins from it, replays its data or is held near it, and somebody holds the last stage. It
    is left out, and said to be, when its data held a record that was forgotten since: what begins from the bare base instead has
    not seen it. Raises Misuse for a version that there is none of, that was revoked, that was made from uncommitted changes while
    this run was not, whose data held what was forgotten, or that is on another base; Tampered for one that is not whole.
    """
    folder = workspace.starts
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    chain = _placed_stages(params)
    begun = {stage.start: place for place, stage in chain if stage.start == "champion" or stage.start.startswith("version:")}
    continual = any(stage.mix.replay is not None or stage.ewc.weight for _, stage in chain)
    wanted = {"champion": "train", **begun} if continual else begun
    base = describe_base(params.model, find_base(world, workspace, params), root=workspace.root) if begun else None
    entries = []
    for name, place in wanted.items():
        if name == "champion":
            record = _champion_to_begin_from(world, params)
        else:
            record = _version_to_begin_from(world, params.model.name, name, place, dirty=dirty)
        if record is None:
            continue
        inside = name.replace(":", "-").replace("/", "-")
        training = _lay(world, record, folder / inside)
        if name in begun and base is not None:
            _refuse_other_base(training, base, name, place)
        start = Start(
            name=name,
            model=record.name,
            version=record.version,
            training=record.training,
            adapter_digest=record.adapter_digest,
            folder=inside,
            shards=_shards(world, record, training),
        )
        entries.append(start)
    starts = Starts(entries=tuple(entries))
    starts.write(workspace.starts_record)
    return starts


def _placed_stages(params: Params) -> list[tuple[str, StageParams]]:
    """The training's stages, each with the place in params where it stands."""
    chain = params.train.chain(params.model.task)
    return [(f"train.stages.{number}" if params.train.stages else "train", stage) for number, stage in enumerate(chain)]


def _champion_to_begin_from(world: World, params: Params) -> ModelVersion | None:
    model, stage = params.model.name, params.release.stages[-1]
    events = world.ledger.events(model)
    version = holder(events, stage)
    if version is None:
        say(f"  nobody holds {stage}: where training would begin from the champion, it begins from the bare base")
        return None
    if (event := _forgotten_since(events, version)) is not None:
        said = f"a record that was forgotten since (event {event}): training begins from the bare base, and replays nothing"
        say(f"  the data of the champion, version {version}, held {said}")
        return None
    return version_record(events, version)


def _version_to_begin_from(world: World, own: str, name: str, place: str, *, dirty: bool) -> ModelVersion:
    """What `version:N` (of the model `own`) or `version:MODEL/N` means. Raises Misuse unless training may begin from it."""
    model, _, version = name.removeprefix("version:").rpartition("/")
    model, where = model or own, f"{place}.start"
    events = world.ledger.events(model)
    if not events:
        raise no_such_model(model, world.ledger.models())
    gone = revoked(events)
    usable = [known for known in registrations(events) if known not in gone]
    fix = f"versions of {model} to begin from: {', '.join(usable[-10:]) or 'none'}"
    if version not in registrations(events):
        raise Misuse(f"{model} has no version {version}", where=where, fix=fix)
    if version in gone:
        raise Misuse(f"version {version} of {model} was revoked, so nothing may begin from it", where=where, fix=fix)
    record = version_record(events, version)
    if record.dirty and not dirty:
        said = f"version {version} of {model} was made from uncommitted changes, and what began from it could not be made again"
        raise Misuse(said, where=where, fix="commit the changes, run again, and begin from the version that this makes")
    if (event := _forgotten_since(events, version)) is not None:
        said = f"the data of version {version} of {model} held a record that was forgotten since (event {event} of its ledger)"
        raise Misuse(said, where=where, fix="begin from the base, or from a version that was made later")
    return record


def _forgotten_since(events: Sequence[Event], version: str) -> int | None:
    """The event by which a record in the data of `version` was forgotten; None when there is none."""
    return next((event.sequence for event, erasure in erasures(events) if version in erasure.versions), None)


def _lay(world: World, record: ModelVersion, target: Path) -> TrainingRun:
    """Copy a released adapter to `target`; the record of how it was trained. Raises Tampered when it is not that training's."""
    source = world.registry.artifacts(record.name, record.version) / "artifacts" / "adapter"
    shutil.copytree(source, target)
    text, where = world.archive.record(record, record.training)
    training = TrainingRun.from_json(text, where=where, digest=record.training)
    if describe_files(target) != training.adapter:
        said = f"the adapter of {record.name} version {record.version} is not the one that was trained"
        raise Tampered(said, where=str(source))
    return training


def _shards(world: World, record: ModelVersion, training: TrainingRun) -> tuple[str, ...]:
    """Names of the shards that have rows which a version was trained on."""
    text, where = world.archive.record(record, training.splits)
    splits = Splits.from_json(text, where=where, digest=training.splits)
    return tuple(Path(part.path).stem for part in splits.train.parts)


def _refuse_other_base(training: TrainingRun, base: BaseModelRef, name: str, place: str) -> None:
    for part in ("weights", "tokenizer", "template"):
        if getattr(training.base, part) != getattr(base, part):
            said = f"{name} was tuned on {training.base.id}, whose {part} is not that of {base.id}"
            raise Misuse(said, where=f"{place}.start", fix="begin from the base, or tune on the base that the version is of")
