"""The other side of bench/data.py: the chain a user would build of datasets, Great Expectations on pandas, and datasketch.

It does the same work: texts normalised, blank rows left out, exact repeats by a digest of the content, the same expectations,
near duplicates among character shingles by MinHash-LSH, and a split. It comes in two hands. `plain` is what the first pages of
the manuals show: a function a row, a MinHash a text. `tuned` is what their last pages allow: batches on all cores, sketches in
bulk with a hash that is not cryptographic, sketches rebuilt without their permutations.
"""

from __future__ import annotations

import hashlib
import os
import sys
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_laps import Laps

THRESHOLD = 0.8
PERMUTATIONS = 128
SHINGLE = 5
CORES = min(os.cpu_count() or 1, 8)


def main(folder: Path, *, tuned: bool) -> None:
    laps = Laps()
    import great_expectations  # noqa: F401
    from datasets import disable_progress_bars, load_dataset
    from datasketch import MinHashLSH

    disable_progress_bars()
    laps.lap("imports")
    rows: Any = load_dataset("json", data_files=str(folder / "inbox" / "rows.jsonl"), split="train", cache_dir=str(folder / "hf"))
    rows = distinct(normalised_in_batches(rows) if tuned else normalised_by_row(rows))
    laps.lap("take in", left=len(rows))
    if not expectations(rows.to_pandas()):
        raise SystemExit("the made-up rows did not pass")
    laps.lap("validate")
    index, kept = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS), []
    for number, minhash in enumerate(sketches_in_bulk(rows) if tuned else sketches_by_row(rows)):
        if not index.query(minhash):
            index.insert(number, minhash)
            kept.append(number)
    laps.lap("near duplicates", found=len(rows) - len(kept))
    parts = rows.select(kept).train_test_split(test_size=0.2, seed=7)
    held_out = parts["test"].train_test_split(test_size=0.25, seed=7)
    for name, part in (("train", parts["train"]), ("test", held_out["train"]), ("eval", held_out["test"])):
        part.to_parquet(str(folder / f"{name}.parquet"))
    laps.lap("split")


def normalised_by_row(rows: Any) -> Any:
    def normalise(row: dict[str, Any]) -> dict[str, Any]:
        prompt, completion = clean(row["prompt"]), clean(row["completion"])
        return {"prompt": prompt, "completion": completion, "id": digest(prompt, completion)}

    return rows.map(normalise, num_proc=CORES).filter(lambda row: bool(row["prompt"] and row["completion"]), num_proc=CORES)


def normalised_in_batches(rows: Any) -> Any:
    def normalise(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        prompts, completions = (list(map(clean, batch[name])) for name in ("prompt", "completion"))
        return {"prompt": prompts, "completion": completions, "id": list(map(digest, prompts, completions))}

    def filled(prompts: list[str], completions: list[str]) -> list[bool]:
        return [bool(prompt and completion) for prompt, completion in zip(prompts, completions, strict=True)]

    columns = ["prompt", "completion"]
    return rows.map(normalise, batched=True, num_proc=CORES).filter(filled, batched=True, input_columns=columns, num_proc=CORES)


def distinct(rows: Any) -> Any:
    seen: set[str] = set()

    def new(ids: list[str]) -> list[bool]:
        fresh = []
        for id in ids:
            fresh.append(id not in seen)
            seen.add(id)
        return fresh

    # Flattened, or else all that follows picks row by row.
    return rows.filter(new, batched=True, input_columns="id").flatten_indices(num_proc=CORES)


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


def sketches_by_row(rows: Any) -> Iterator[Any]:
    from datasketch import MinHash

    for row in rows:
        minhash = MinHash(num_perm=PERMUTATIONS)
        minhash.update_batch(shingles(row["prompt"], row["completion"]))
        yield minhash


def sketches_in_bulk(rows: Any) -> Iterator[Any]:
    from datasketch import LeanMinHash, MinHash

    def sketch(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        texts = map(shingles, batch["prompt"], batch["completion"])
        made = MinHash.bulk(texts, num_perm=PERMUTATIONS, hashfunc=zlib.crc32, scheme="affine32")
        return {"values": [minhash.hashvalues for minhash in made]}

    sketched = rows.map(sketch, batched=True, num_proc=CORES, remove_columns=rows.column_names).with_format("numpy")
    for batch in sketched.iter(batch_size=1000):
        for values in batch["values"]:
            yield LeanMinHash(seed=1, hashvalues=values, scheme="affine32")


def shingles(prompt: str, completion: str) -> set[bytes]:
    text = f"{prompt} {completion}".lower()
    return {text[at : at + SHINGLE].encode() for at in range(max(1, len(text) - SHINGLE + 1))}


def clean(text: str | None) -> str:
    return unicodedata.normalize("NFC", text or "").strip()


def digest(prompt: str, completion: str) -> str:
    return hashlib.sha256(f"{prompt}\x1f{completion}".encode()).hexdigest()[:32]


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuned=sys.argv[2] == "tuned")
