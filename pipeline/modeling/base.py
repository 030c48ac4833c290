"""Where the base model lies and what exactly it is: its folder, the digests of its weights, tokenizer and template.

Only files are read here, never a model: torch, transformers and hub code may not enter at import, so a step may call this
cheaply. What loads a base is in loading.py. Nothing that a base ships is ever run: no remote code, no pickle.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.domain.data import Task
from pipeline.domain.model import BaseModelRef
from pipeline.domain.record import digest_bytes, digest_file, digest_value
from pipeline.errors import Broken, Misuse, TryLater
from pipeline.params import ModelParams

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "*.jinja", *TOKENIZER_FILES]
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")
REFUSED_CONFIG = ("auto_map", "parent_library", "_attn_implementation", "_attn_implementation_internal", "custom_pipelines")


def locate_base(model: ModelParams, *, root: Path) -> Path:
    """The folder that holds the base of `model`; relative folders start at `root`.

    A hub id is downloaded (safetensors, tokenizer and JSON files only) at its pinned revision, or taken from the cache when
    HF_HUB_OFFLINE is set. Raises Misuse where there is no such base and TryLater where the hub does not answer.
    """
    name = model.base
    if name.startswith("package:"):
        folder = _package_folder(name)
    elif name.startswith(("./", "../", "/")):
        folder = (root / name).resolve()
    else:
        folder = _hub_folder(name, model.revision)
    if not folder.is_dir():
        raise Misuse(
            f"the base model {name!r} is no folder: {folder} does not exist",
            where="model.base",
            fix="write ./FOLDER relative to the project, package:MODULE/FOLDER, or a hub id with a revision",
        )
    return folder


def describe_base(model: ModelParams, path: Path, *, root: Path = Path()) -> BaseModelRef:
    """What the base in the folder `path` is, by content, with the chat template in force (task generate).

    `root` is where the relative path of `model.chat_template` starts. Raises Misuse; see base_ref and template_text.
    """
    return base_ref(model, path, template_text(model, path, root=root) if model.task is Task.GENERATE else None)


def base_ref(model: ModelParams, path: Path, template: str | None) -> BaseModelRef:
    """What the base in the folder `path` is, by content, together with a chat template's text.

    `weights` covers the safetensors files and config.json (the same tensors under another config are another model),
    `tokenizer` the tokenizer files. Raises Misuse for bases that only come as pickles or want code of their own to run.
    """
    check_config(path)
    weights = [*_weight_files(path), path / "config.json"]
    if (path / "generation_config.json").is_file():
        weights.append(path / "generation_config.json")
    tokenizer = [path / name for name in TOKENIZER_FILES if (path / name).is_file()]
    if not tokenizer:
        raise Misuse("the base has no tokenizer files", where=str(path), fix="put tokenizer.json beside the weights")
    return BaseModelRef(
        id=model.base,
        revision=model.revision,
        weights=_digest_files(weights),
        tokenizer=_digest_files(tokenizer),
        template=digest_bytes(template.encode()) if template is not None else None,
    )


def template_text(model: ModelParams, path: Path, *, root: Path = Path()) -> str:
    """The chat template in force: the file that `model.chat_template` names, else the one that the base's tokenizer has."""
    if model.chat_template is not None:
        file = root / model.chat_template
        if not file.is_file():
            raise Misuse(f"the chat template {model.chat_template!r} does not exist", where="model.chat_template")
        return file.read_bytes().decode("utf-8")
    if (path / "chat_template.jinja").is_file():
        return (path / "chat_template.jinja").read_bytes().decode("utf-8")
    own = read_json(path / "tokenizer_config.json").get("chat_template") if (path / "tokenizer_config.json").is_file() else None
    if isinstance(own, list):  # several named templates; the one for plain chat is called default
        own = {t.get("name"): t.get("template") for t in own if isinstance(t, dict)}.get("default")
    if not isinstance(own, str):
        raise Misuse(
            f"the base {model.base!r} has no chat template, so prompts and answers cannot be put into one text",
            where="model.chat_template",
            fix="write a Jinja file and name it in params.yaml: model.chat_template: ./template.jinja",
        )
    return own


def check_config(path: Path) -> dict[str, Any]:
    """The base's config.json, after refusing whatever could make a library import or download code."""
    if not (path / "config.json").is_file():
        raise Misuse("the base has no config.json", where=str(path), fix="name a folder in the Hugging Face layout")
    config = read_json(path / "config.json")
    files = {"config.json": config}
    if (path / "tokenizer_config.json").is_file():
        files["tokenizer_config.json"] = read_json(path / "tokenizer_config.json")
    for name, content in files.items():
        for key in REFUSED_CONFIG:
            if key in content:
                raise Misuse(
                    f"{key} is refused: it makes a library run code that came with the model",
                    where=str(path / name),
                    fix="choose a base whose architecture transformers has built in",
                )
    if "quantization_config" in config:
        raise Misuse(
            "the base is already quantised; its full weights are needed",
            where=str(path / "config.json"),
            fix="name the unquantised base and set train.tuner: qlora",
        )
    return config


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a model folder. Raises Broken when it is none."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Broken(f"not readable as JSON: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise Broken("not a JSON object", where=str(path))
    return value


def count_tokens(texts: Sequence[str], tokenizer: Path) -> list[int]:
    """Tokens of each text by a tokenizer.json, uncut."""
    from tokenizers import Tokenizer

    counting = Tokenizer.from_file(str(tokenizer))
    counting.no_padding()
    counting.no_truncation()
    return [len(found.ids) for found in counting.encode_batch(list(texts))]


def _package_folder(name: str) -> Path:
    module, _, rest = name.removeprefix("package:").partition("/")
    if not module.isidentifier():
        raise Misuse(f"{module!r} is no name of a top-level module", where="model.base", fix="write package:MODULE/FOLDER")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise Misuse(
            f"the package {module!r}, which the base {name!r} is part of, is not installed",
            where="model.base",
            fix=f"pip install {module.replace('_', '-')}",
        )
    home = Path(next(iter(spec.submodule_search_locations))).resolve()
    folder = (home / rest).resolve()
    if not folder.is_relative_to(home):
        raise Misuse(f"{name!r} leaves the package", where="model.base")
    return folder


def _hub_folder(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES, local_files_only=offline))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise Misuse(
            f"the hub has no {name!r} at revision {revision}", where="model.base", fix="check id and revision"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if offline:
            raise Misuse(
                f"{name!r} at revision {revision} is not in the local cache, and HF_HUB_OFFLINE forbids a download",
                where="model.base",
                fix="unset HF_HUB_OFFLINE once, or name a local folder",
            ) from error
        raise TryLater(f"the hub does not answer for {name!r}: {error}", where="model.base") from error


def _weight_files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.safetensors"))
    index = path / "model.safetensors.index.json"
    if index.is_file():
        shards = set(read_json(index).get("weight_map", {}).values())
        missing = sorted(shards - {f.name for f in files})
        if missing:
            raise Broken(f"the weight file {missing[0]} is missing", where=str(path), fix="download the base again")
        return [*files, index]
    if files:
        return files
    pickles = sorted(f.name for f in path.iterdir() if f.suffix in PICKLES)
    if pickles:
        raise Misuse(
            f"the weights come as {pickles[0]} only; such files can run code when they are read, so they are refused",
            where=str(path),
            fix="convert the base to safetensors, or choose one that has it",
        )
    raise Misuse("the base has no *.safetensors weights", where=str(path))


def _digest_files(files: list[Path]) -> str:
    found = []
    for file in files:
        seen = file.stat()
        found.append([file.name, _digest_seen(file, seen.st_size, seen.st_mtime_ns)])
    return digest_value(sorted(found))


@lru_cache(maxsize=256)
def _digest_seen(file: Path, size: int, mtime_ns: int) -> str:
    """Digest of a file, once for each size and change time: one warm process describes the same large base many times."""
    return digest_file(file)
