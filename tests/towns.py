"""One project in which the main job was run once, shared by the tests of this folder; and a maker of further ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.checkouts import make_checkout
from tests.story_town import PARAMS, Town


@pytest.fixture(scope="session")
def new_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Town]]:
    """Makes projects; stops the servers they started."""
    made: list[Town] = []

    def make(params: str = PARAMS) -> Town:
        root = make_checkout(tmp_path_factory.mktemp("town") / "project", params)
        made.append(Town(root))
        return made[-1]

    yield make
    for town in made:
        town("down", expect=None)


@pytest.fixture(scope="session")
def town(new_town: Callable[..., Town]) -> Town:
    """Week 1 ingested, tuned, registered as version 1 and promoted to production."""
    made = new_town()
    made.batch(1)
    outcome = made("run --json").json
    assert (outcome["ending"], outcome["version"]) == ("registered", "1")
    made("promote 1 --to production --by alice --reason first")
    return made
