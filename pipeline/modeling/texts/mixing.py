"""Which items an epoch draws, and how often, when data are mixed: weights, temperature and caps by task, a share of old rows.

Numbers only: an item's task, and whether it is old, are encoding.py's to say, and the order in which the drawn ones come is
rows.py's. What is drawn is a function of seed and epoch alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import Misuse
from pipeline.modeling.texts.rows import Encoded, EpochOrder
from pipeline.params.learning import MixParams
from pipeline.params.train import StageParams

log = logging.getLogger(__name__)

Places = npt.NDArray[np.int64]
LISTED = 20
"""So many tasks are named in a message."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The items of one task, all of them or its old or newer ones, in an order drawn once; `quota` of them are drawn an epoch."""

    task: str
    old: bool | None
    places: Places
    quota: int

    def drawn(self, epoch: int) -> Places:
        """Those of an epoch: the next `quota`, going round, so that none comes again before all others have come as often."""
        first = epoch * self.quota
        return self.places[np.arange(first, first + self.quota) % len(self.places)]


class MixedOrder(EpochOrder):
    """Items of one epoch by the shares that `stage.mix` gives them, shuffled, items of like length in one step.

    A task of n items is drawn in proportion to weight * n ** (1 / temperature), as many items in all as there are, so that an
    epoch stays about as long. With replay an epoch has each newer item once (more or less often by its weight), and as many old
    ones as make their share. Within an epoch no item comes more than once more often than another of its task.
    """

    def __init__(self, encoded: Encoded, stage: StageParams) -> None:
        super().__init__(encoded.lengths, batch_size=stage.step_rows, seed=stage.seed)
        self.pools = _pools(np.asarray(encoded.tasks, object), _old(encoded), stage)

    def __len__(self) -> int:
        return sum(pool.quota for pool in self.pools)

    @property
    def counts(self) -> dict[str, int]:
        """Task → items drawn an epoch, old ones apart where some are replayed."""
        names = {None: "", True: " (old)", False: " (new)"}
        return {(pool.task or "all") + names[pool.old]: pool.quota for pool in self.pools}

    def drawn(self, random: np.random.Generator) -> Places:
        return np.asarray(random.permutation(np.concatenate([pool.drawn(self.epoch) for pool in self.pools])), np.int64)


def new_order(encoded: Encoded, stage: StageParams) -> EpochOrder:
    """The order that a stage draws its items in: mixed when its params say anything of a mix, else every item once an epoch.

    Raises Misuse when weights or caps name tasks that the data do not have, or leave nothing to draw.
    """
    if not is_mixed(stage.mix) or not len(encoded):
        return EpochOrder(encoded.lengths, batch_size=stage.step_rows, seed=stage.seed)
    order = MixedOrder(encoded, stage)
    log.info("an epoch draws %s", ", ".join(f"{name} {count}" for name, count in order.counts.items()))
    return order


def is_mixed(mix: MixParams) -> bool:
    """Whether params say anything of a mix but what a task is."""
    return mix != MixParams(by=mix.by)


def _old(encoded: Encoded) -> npt.NDArray[np.bool_]:
    return encoded.old if len(encoded.old) else np.zeros(len(encoded), bool)


def _pools(tasks: npt.NDArray[np.object_], old: npt.NDArray[np.bool_], stage: StageParams) -> list[Pool]:
    mix = stage.mix
    names = sorted(set(tasks))
    _check_names(mix, names)
    counted: dict[str, Places] = {}
    for number, name in enumerate(names):
        if mix.weights.get(name, 1.0) > 0:
            # A generator of its own, so that what is drawn of a task hangs on no other.
            random = np.random.default_rng(np.random.SeedSequence(stage.seed, spawn_key=(number,)))
            counted[name] = random.permutation(np.flatnonzero(tasks == name))[: mix.caps.get(name)]
    if not counted:
        raise Misuse("all tasks have the weight 0", where="train.mix.weights", fix=f"there are: {_listed(names)}")
    new = {name: places[~old[places]] for name, places in counted.items()}
    replayed = {name: places[old[places]] for name, places in counted.items()}
    rows, old_rows = (sum(map(len, group.values())) for group in (new, replayed))
    if mix.replay is None:
        return _shared(counted, None, rows + old_rows, mix)
    if not rows or not old_rows:
        log.warning("train.mix.replay: all %d rows are %s, so all count alike", rows + old_rows, "newer" if rows else "old")
        return _shared(counted, None, rows + old_rows, mix)
    if mix.replay == 1:
        return _shared(replayed, True, old_rows, mix)
    fresh = _shared(new, False, rows, mix)
    wanted = round(rows * mix.replay / (1 - mix.replay))
    return [*fresh, *_shared(replayed, True, max(wanted, 1), mix)] if mix.replay else fresh


def _shared(groups: dict[str, Places], old: bool | None, total: int, mix: MixParams) -> list[Pool]:
    """`total` items divided among tasks by their shares; whole numbers by largest remainders, the first of equals first."""
    present = {name: places for name, places in groups.items() if len(places)}
    weights = [mix.weights.get(name, 1.0) * len(places) ** (1 / mix.temperature) for name, places in present.items()]
    exact = np.asarray(weights) / sum(weights) * total
    quotas = np.floor(exact).astype(np.int64)
    short = total - int(quotas.sum())
    quotas[np.argsort(quotas - exact, kind="stable")[:short]] += 1
    return [Pool(name, old, places, int(n)) for (name, places), n in zip(present.items(), quotas, strict=True) if n]


def _check_names(mix: MixParams, names: list[str]) -> None:
    if mix.by not in ("source", "kind") and set(names) <= {""}:
        raise Misuse(
            f"no row to learn from has the field {mix.by!r}", where="train.mix.by", fix="source, kind, or a metadata field"
        )
    for key, said in (("weights", mix.weights), ("caps", mix.caps)):
        unknown = sorted(said.keys() - set(names))
        if unknown:
            raise Misuse(
                f"the rows to learn from have no {mix.by} {unknown[0]!r}",
                where=f"train.mix.{key}",
                fix=f"there are: {_listed(names)}",
            )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(name or "''" for name in names[:LISTED]) + more
