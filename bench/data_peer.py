"""The other side of bench/data.py: the chain a user would build of datasets, Great Expectations on pandas, and datasketch.

It does the same work: texts normalised, blank rows left out, exact repeats by a digest of the content, the same expectations,
near duplicates among character shingles by MinHash-LSH, and a split. Each tool is used as its manual says it is fast: batched
maps on all cores, shingles in one update, a hash function that is not cryptographic.
"""

from __future__ import annotations

import hashlib
import os
import sys
import unicodedata
import zlib
from pathlib import Path
from typing import Any

from data_laps import Laps

THRESHOLD = 0.8
PERMUTATIONS = 128
SCHEME = "affine32"  # the fastest it has
SHINGLE = 5
CORES = min(os.cpu_count() or 1, 8)


def normalise(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    prompts = [unicodedata.normalize("NFC", text or "").strip() for text in batch["prompt"]]
    completions = [unicodedata.normalize("NFC", text or "").strip() for text in batch["completion"]]
    pairs = zip(prompts, completions, strict=True)
    ids = [hashlib.sha256(f"{prompt}\x1f{completion}".encode()).hexdigest()[:32] for prompt, completion in pairs]
    return {"prompt": prompts, "completion": completions, "id": ids}


def filled(batch: dict[str, list[Any]]) -> list[bool]:
    return [bool(prompt and completion) for prompt, completion in zip(batch["prompt"], batch["completion"], strict=True)]


def sketch(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    from datasketch import MinHash

    made = []
    for prompt, completion in zip(batch["prompt"], batch["completion"], strict=True):
        text = f"{prompt} {completion}".lower()
        minhash = MinHash(PERMUTATIONS, hashfunc=zlib.crc32, scheme=SCHEME)
        minhash.update_batch({text[at : at + SHINGLE].encode() for at in range(max(1, len(text) - SHINGLE + 1))})
        made.append(minhash.hashvalues)
    return {"hashvalues": made}


def expectations(frame: Any) -> bool:
    import great_expectations as gx
    from great_expectations import expectations as ask

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    suite = context.suites.add(gx.ExpectationSuite(name="rows"))
    for column in ("id", "prompt", "completion"):
        suite.add_expectation(ask.ExpectColumnValuesToNotBeNull(column=column))
    suite.add_expectation(ask.ExpectColumnValuesToBeUnique(column="id"))
    suite.add_expectation(ask.ExpectColumnValuesToMatchRegex(column="id", regex="^[0-9a-f]{32}$"))
    for column in ("prompt", "completion"):
        suite.add_expectation(ask.ExpectColumnValueLengthsToBeBetween(column=column, min_value=1, max_value=20_000))
    suite.add_expectation(ask.ExpectColumnValuesToMatchRegex(column="completion", regex=r"\S"))
    batches = context.data_sources.add_pandas("rows").add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="rows", data=batches, suite=suite))
    checkpoint = context.checkpoints.add(gx.Checkpoint(name="rows", validation_definitions=[definition]))
    return bool(checkpoint.run(batch_parameters={"dataframe": frame}).success)


def main(folder: Path) -> None:
    laps = Laps()
    import great_expectations  # noqa: F401
    from datasets import disable_progress_bars, load_dataset
    from datasketch import MinHash, MinHashLSH

    disable_progress_bars()
    laps.lap("imports")
    rows: Any = load_dataset("json", data_files=str(folder / "inbox" / "rows.jsonl"), split="train", cache_dir=str(folder / "hf"))
    rows = rows.map(normalise, batched=True, num_proc=CORES).filter(filled, batched=True, num_proc=CORES)
    seen: set[str] = set()
    rows = rows.filter(lambda ids: [id not in seen and not seen.add(id) for id in ids], batched=True, input_columns="id")  # type: ignore[func-returns-value]
    laps.lap("take in", left=len(rows))
    if not expectations(rows.to_pandas()):
        raise SystemExit("the made-up rows did not pass")
    laps.lap("validate")
    index, kept = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS), []
    for number, values in enumerate(_sketches(rows)):
        minhash = MinHash(PERMUTATIONS, hashvalues=values, scheme=SCHEME)
        if not index.query(minhash):
            index.insert(number, minhash, check_duplication=False)
            kept.append(number)
    laps.lap("near duplicates", found=len(rows) - len(kept))
    parts = rows.select(kept).train_test_split(test_size=0.2, seed=7)
    held_out = parts["test"].train_test_split(test_size=0.25, seed=7)
    for name, part in (("train", parts["train"]), ("test", held_out["train"]), ("eval", held_out["test"])):
        part.to_parquet(str(folder / f"{name}.parquet"))
    laps.lap("split")


def _sketches(rows: Any) -> Any:
    sketched = rows.map(sketch, batched=True, num_proc=CORES, remove_columns=rows.column_names).with_format("numpy")
    for batch in sketched.iter(batch_size=1000):
        yield from batch["hashvalues"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
