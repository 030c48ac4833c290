"""The compact set of ids against Python's own, and what it costs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curation.keys import KEY
from pipeline.curation.seen import Seen

# Few distinct keys, so that they come again; some share the half by which places are found, some are all zeros or end in them.
KEYS = st.tuples(
    st.sampled_from([b"\0" * 8, b"\1" + b"\0" * 7, b"\0\x10" + b"\0" * 6, b"\xff" * 8]),
    st.integers(0, 40).map(lambda n: n.to_bytes(8, "big")),
).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.one_of(KEYS, st.binary(min_size=16, max_size=16)), max_size=60), max_size=12))
def test_it_knows_what_a_set_knows(batches: list[list[bytes]]) -> None:
    seen, wanted = Seen(), set()
    for batch in batches:
        expected = []
        for key in batch:
            expected.append(key not in wanted)
            wanted.add(key)
        assert seen.add(np.array(batch, KEY)).tolist() == expected
        assert len(seen) == len(wanted)


def test_it_grows_without_losing_any_and_stays_small() -> None:
    rng = np.random.default_rng(3)
    keys = np.frombuffer(rng.bytes(16 * 100_000), KEY)
    seen = Seen()
    for start in range(0, len(keys), 9000):
        assert seen.add(keys[start : start + 9000]).all()
    assert not seen.add(keys).any()
    assert seen.add(np.concatenate([keys, np.frombuffer(rng.bytes(16 * 50), KEY)])).sum() == 50
    assert seen.nbytes / len(seen) < 50


def test_keys_of_one_hash_are_told_apart() -> None:
    keys = np.array([b"samesame" + number.to_bytes(8, "big") for number in range(300)], KEY)
    seen = Seen()
    assert seen.add(keys).all()
    assert not seen.add(keys[::-1]).any()
