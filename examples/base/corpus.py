"""Builds the text the base model is pretrained on: standard-library docstrings and seeded text of our own making.

Every document is a string with its special tokens already in place, and the stream depends on the seed alone.
Nothing is downloaded and no library module is imported: sources are only parsed. No support-desk row may enter.
"""

from __future__ import annotations

import ast
import functools
import json
import random
import string
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
HERE = Path(__file__).parent
DOMAINS: list[dict] = list(tomllib.loads((HERE / "domains.toml").read_text(encoding="utf-8")).values())
WORDS: dict[str, list[str]] = tomllib.loads((HERE / "words.toml").read_text(encoding="utf-8"))
THINGS = sorted({thing for domain in DOMAINS for thing in domain["things"]})
SYLLABLES = tuple(
    a + b
    for a in ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "st", "tr"]
    for b in ("a", "e", "i", "o", "u", "an", "er", "il", "on")
)


@functools.cache
def docstrings(limit: int = 700) -> tuple[str, ...]:
    """The docstrings of the standard library, cut to `limit` characters, in the order of their sorted file names."""
    root = Path(sysconfig.get_paths()["stdlib"])
    texts: dict[str, None] = {}
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests", "idle_test", "lib2to3"} & set(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = (ast.get_docstring(node) or "")[:limit]
                if len(text) > 40 and not any(token in text for token in SPECIAL_TOKENS):
                    texts[text] = None
    return tuple(texts)


def pseudo_word(rng: random.Random) -> str:
    """A word nobody has seen, so that it can only be copied."""
    return "".join(rng.choices(SYLLABLES, k=rng.choice((2, 2, 3))))


def code(rng: random.Random) -> str:
    """An identifier such as KX-4821 or B-73310."""
    letters = "".join(rng.choices(string.ascii_uppercase, k=rng.choice((1, 1, 2, 2, 3))))
    digits = "".join(rng.choices(string.digits, k=rng.choice((3, 4, 5, 5, 6))))
    return letters + rng.choice(("-", "-", "-", "", "/")) + digits


def slot(kind: str, rng: random.Random) -> str | int:
    """A random value of the given kind."""
    if kind == "code":
        return code(rng)
    if kind == "person":
        return rng.choice(WORDS["people"]) if rng.random() < 0.5 else pseudo_word(rng).capitalize()
    if kind == "place":
        return rng.choice(WORDS["places"]) if rng.random() < 0.5 else pseudo_word(rng).capitalize()
    if kind == "day":
        return rng.choice(WORDS["days"])
    if kind == "time":
        return f"{rng.randrange(24)}:{rng.choice(('00', '15', '30', '45'))}"
    if kind == "room":
        return f"{rng.choice('ABCD')}{rng.randrange(10, 400)}"
    return rng.randrange(2, 20) if kind == "count" else rng.randrange(10, 3000)


def typo(text: str, rng: random.Random) -> str:
    """The text with one pair of neighbouring letters swapped or one letter lost."""
    at = rng.randrange(1, max(2, len(text) - 2))
    if not text[at - 1 : at + 2].isalpha():
        return text
    return text[:at] + text[at + 1 :] if rng.random() < 0.5 else text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def sentences(parts: list[str], rng: random.Random) -> str:
    """Join clauses into a message, sometimes sloppily."""
    if rng.random() < 0.25:
        return rng.choice((", ", " and ", " - ")).join(parts)
    text = " ".join(part[0].upper() + part[1:] + rng.choice((".", ".", ".", "!")) for part in parts)
    return text.lower() if rng.random() < 0.05 and not any(c.isdigit() for c in text) else text


def chat(user: str, answer: str, system: str = "") -> str:
    """One exchange in the chat format."""
    head = f"<|system|>{system}<|end|>" if system else ""
    return f"<s>{head}<|user|>{user}<|end|><|assistant|>{answer}<|end|>"


def compact(value: object, rng: random.Random) -> str:
    """JSON, nearly always without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":") if rng.random() < 0.9 else None)


def message_task(domain: dict, rng: random.Random) -> str:
    """Read a message, answer with JSON: a label, what it is about, copied facts or null, and a closing sentence."""
    thing = rng.choice(domain["things"]) if rng.random() < 0.6 else rng.choice((rng.choice(THINGS), pseudo_word(rng)))
    label = rng.choice(list(domain["cues"]))
    cue = rng.choice(domain["cues"][label])
    parts = [cue.replace("{thing}", rng.choice(("", "", "", rng.choice(WORDS["adjectives"]) + " ")) + thing)]
    answer: dict[str, object] = {domain["label_key"]: label, domain["thing_key"]: thing}
    if "level_key" in domain:
        level = rng.choice(list(domain["levels"]))
        answer[domain["level_key"]] = level
        if domain["levels"][level]:
            parts.append(rng.choice(domain["levels"][level]))
    code_value = None
    for kind, fact in domain["facts"].items():
        ((key, phrases),) = fact.items()
        value = slot(kind, rng) if rng.random() < 0.7 else None
        answer[key] = value
        if kind == "code":
            code_value = value
        if value is not None:
            phrase = rng.choice(phrases)
            parts.append(phrase.replace("{}", rng.choice(("", "", "#", "no. ")) * (kind == "code") + str(value)))
    if rng.random() < 0.35:
        parts.append(rng.choice(WORDS["fillers"]).format(rng.randrange(2, 900)))
    rng.shuffle(parts)
    note = domain["notes"][label].replace("{thing}", thing)
    if "{code}" in note:
        note = note.replace("{code}", code_value) if code_value else f"Which {thing} do you mean?"
    answer[domain["note_key"]] = note
    user = sentences(parts, rng)
    if rng.random() < 0.4:
        user = rng.choice(WORDS["greetings"]) + user
    if rng.random() < 0.3:
        user += rng.choice(WORDS["closings"])
    if rng.random() < 0.2:
        user = typo(user, rng)
    system = ""
    if rng.random() < 0.3:  # a stated list of keys is followed in its own order
        keys = rng.sample(list(answer), k=rng.randrange(2, len(answer) + 1))
        answer = {key: answer[key] for key in keys}
        system = rng.choice(("Answer with JSON: ", "Keys: ", "Extract ")) + ", ".join(keys)
    return chat(user, compact(answer, rng), system)


def free_schema(rng: random.Random) -> str:
    """Named values in the text become JSON under the same names: nothing to know, everything to copy."""
    names = rng.sample(
        THINGS + WORDS["days"][:7] + WORDS["adjectives"] + [pseudo_word(rng) for _ in range(8)],
        k=rng.randrange(2, 6),
    )
    pairs = {name: slot(rng.choice(("code", "code", "person", "number", "count", "time")), rng) for name in names}
    clauses = [
        rng.choice(("the {} is {}", "{}: {}", "{} = {}", "for {} take {}", "{} is now {}")).format(*pair)
        for pair in pairs.items()
    ]
    if rng.random() < 0.5:
        wanted = rng.choice(names)
        return chat(f"{sentences(clauses, rng)} What is {wanted}?", compact({wanted: pairs[wanted]}, rng))
    return chat(sentences(clauses, rng), compact(pairs, rng))


def story(rng: random.Random) -> str:
    """A short paragraph, often with a question about it."""
    who, where = slot("person", rng), slot("place", rng)
    lines, told = [], []
    for verb in rng.sample(WORDS["verbs"], k=rng.randrange(2, 5)):
        what, how = f"{rng.choice(WORDS['adjectives'])} {rng.choice(THINGS)}", rng.choice(WORDS["reasons"])
        told.append((verb, what))
        ways = f"{who} {verb} the {what} {how}.", f"In {where} {who} {verb} a {what}."
        lines.append(rng.choice((*ways, f"{how.capitalize()}, {who} {verb} the {what}.")))
    text = " ".join(lines)
    kind = rng.random()
    if kind < 0.3:
        return f"<s>{text}</s>"
    if kind < 0.6:
        verb, what = rng.choice(told)
        return chat(f"{text} What was {verb}?", f"The {what} was {verb} by {who}.")
    if kind < 0.8:
        if where in text:
            return chat(f"{text} Where was it?", f"It was in {where}.")
        return chat(f"Who is it about? {text}", f"It is about {who}.")
    return chat(f"List the things. {text}", compact([what for _, what in told], rng))


def copying(rng: random.Random) -> str:
    """Repeat, find or pick something said before."""
    kind = rng.random()
    items = [str(slot(rng.choice(("code", "code", "person", "number")), rng)) for _ in range(rng.randrange(2, 6))]
    if kind < 0.4:
        return chat("Repeat: " + " ".join(items), " ".join(items))
    if kind < 0.7:
        wanted = code(rng)
        before, after = (rng.choice(WORDS["fillers"]).format(rng.randrange(2, most)) for most in (900, 99))
        text = sentences([before, f"the code is {wanted}", after], rng)
        return chat(f"Find the code. {text}", wanted)
    if kind < 0.85:
        return chat("Reverse: " + " ".join(items), " ".join(reversed(items)))
    return chat("As a list: " + ", ".join(items), compact(items, rng))


def documents(count: int, seed: int = 0) -> Iterator[str]:
    """Yield `count` documents of the training mix, the same ones for the same seed."""
    rng = random.Random(seed)
    library: list[str] = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.62:
            yield message_task(rng.choice(DOMAINS), rng)
        elif kind < 0.74:
            yield free_schema(rng)
        elif kind < 0.82:
            yield copying(rng)
        elif kind < 0.92:
            yield story(rng)
        else:
            if not library:  # a long run goes through them again, in another order
                library = list(docstrings())
                rng.shuffle(library)
            yield f"<s>{library.pop()}</s>"


if __name__ == "__main__":
    for document in documents(20):
        print(document)
