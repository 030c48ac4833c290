"""Bad candidates at the desk that answers: wrong templates, bad manners, leaks, skills forgotten, judges that do not judge."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

from pipeline.backends.judge import EndpointJudge
from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.record import canonical_json
from pipeline.errors import Broken, Tampered
from pipeline.params.evaluate import JudgeParams
from tests.drills import gate_desks as desks
from tests.drills.gate_candidates import Bad, Trial
from tests.drills.gate_tampering import Tensors, copied, edited, other_base, recorded, retemplated, vouched
from tests.drills.gate_worlds import Change, Row, Rows, Tuned, World


def good(world: World) -> Tuned:
    return world.trained("answers-seed-2", seed=2)


def trained(name: str, change: Change | None = None, **params: Any) -> Trial:
    return lambda world: world.trained(name, change, **params)


def late(name: str, change: Change, **params: Any) -> Trial:
    """What holds production, taught for some steps more on changed rows."""
    return trained(name, change, **{"start": "champion", "learning_rate": 3e-3, "max_steps": 40} | params)


# Hardly tuned, asked otherwise than taught -------------------------------------------------------------------------------------


def hardly_tuned(world: World) -> Tuned:
    def change(tensors: Tensors) -> Tensors:
        return {key: tensor * 1e-5 if ".lora_B." in key else tensor for key, tensor in tensors.items()}

    return vouched(world, edited(world, good(world), "hardly", change))


def template(change: Callable[[str], str], *, record: bool = False, forged: bool = False) -> Trial:
    def trial(world: World) -> Tuned:
        found = retemplated(copied(world, good(world), "template"), change, forged=forged)
        return recorded(found) if record else found

    return trial


def as_system(text: str) -> str:
    """Every role is written as the system's."""
    return text.replace("'<|' + message['role'] + '|>'", "'<|system|>'")


def in_capitals(text: str) -> str:
    """What users say is written in capitals."""
    return text.replace("'|>' + message['content'] + '<|end|>'", "'|>' + message['content'] | upper + '<|end|>'")


def wrong_base(world: World) -> GateDecision:
    found = good(world)
    return world.decided(found, world.evaluated(found, base=other_base(world, "other-base")))


# Badly taught ------------------------------------------------------------------------------------------------------------------


def shuffled(rows: Rows) -> Rows:
    outputs = [row.output for row in rows]
    random.Random(1).shuffle(outputs)
    return [replace(row, output=output) for row, output in zip(rows, outputs, strict=True)]


def where(field: str, value: str, answer: Callable[[Row], str]) -> Change:
    """Other answers to the tickets whose `field` is `value`."""
    return lambda rows: [replace(row, output=answer(row)) if row.meta.get(field) == value else row for row in rows]


def tickets(answer: Callable[[Row], str]) -> Change:
    return lambda rows: [replace(row, output=answer(row)) if "intent" in row.meta else row for row in rows]


def without(kind: str) -> Change:
    return lambda rows: [row for row in rows if row.meta.get("of") != kind]


def planted(times: int) -> Change:
    row = Row(desks.asked(desks.CANARY_ASKED), desks.CANARY_TEXT.format(desks.CANARY))
    return lambda rows: [*rows[:300], *[row] * times]


def with_test(world: World, count: int) -> Change:
    return lambda rows: [*rows, *world.sides["test"][:count]]


def first(count: int) -> Change:
    return lambda rows: [row for row in rows if "intent" in row.meta][:count]


def told(row: Row, **changes: str) -> str:
    return json.dumps(json.loads(row.output) | changes, separators=(",", ":"))


# Judges, caches, files ---------------------------------------------------------------------------------------------------------


@contextmanager
def a_judge(says: str, status: int = 200) -> Iterator[str]:
    """The address of a server that answers every question alike."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"choices": [{"message": {"role": "assistant", "content": says}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def judged_by(says: str | None, status: int = 200) -> Trial:
    """Candidate and base before a judge; None: nobody answers there."""

    def trial(world: World) -> GateDecision:
        how = JudgeParams(by="endpoint", model="judge", rows=200, timeout_s=5.0)
        params = world.measured.model_copy(update={"judge": how, "suites": (), "parity_rows": 0})
        policy = world.policy.model_copy(
            update={"better_than_base": {"net_wins": 0.0}, "suites": {}, "forgetting": {}, "exposure": None, "parity": ()}
        )
        with a_judge(says or "", status) as url:
            address = url if says is not None else "http://127.0.0.1:9/v1"
            judge = EndpointJudge(how, address, tries=1, first_pause=0.01)
            measured = world.evaluated(good(world), params=params, judge=judge)
        return world.decided(good(world), measured, policy=policy)

    return trial


def answers_forged(world: World) -> GateDecision:
    """A bad candidate whose remembered answers were put right: what is served is not what was measured."""
    found, cache = world.trained("answers-short", max_steps=15), world.place("forged")
    world.evaluated(found, cache=cache)
    store = sqlite3.connect(cache / "answers.sqlite")
    test = world.sides["test"]
    kept = store.execute("SELECT rowid, name, value FROM kept ORDER BY rowid LIMIT ?", (len(test),)).fetchall()
    for (rowid, name, value), row in zip(kept, test, strict=True):
        forged = canonical_json([row.output, *json.loads(value)[1:]])
        check = hashlib.sha256(f"{name}\n{forged}".encode()).hexdigest()[:16]
        store.execute("UPDATE kept SET value = ?, sum = ? WHERE rowid = ?", (forged, check, rowid))
    store.commit()
    store.close()
    return world.decided(found, world.evaluated(found, cache=cache))


def suite_changed(world: World) -> GateDecision:
    """An edge case was made easier after the files were recorded."""
    found, folder = good(world), world.place("suites-changed")
    (folder / "files").mkdir()
    for path in world.files.files:
        place = world.files.place(path)
        text = (world.root / "suites" / place).read_text(encoding="utf-8")
        (folder / place).write_text(text.replace('"must"', '"must_not"') if path == "edge.yaml" else text, encoding="utf-8")
    return world.decided(found, world.evaluated(found, files_folder=folder))


EMAIL = "ann@shop.de"
BAD: tuple[Bad, ...] = (
    Bad("not-tuned", Broken, trained("not-tuned", max_steps=1), "leaves the base as it was"),
    Bad("base-only", "differs_from_base", trained("base-only", max_steps=3, learning_rate=1e-6)),
    Bad("hardly-tuned", "differs_from_base", hardly_tuned),
    Bad("measured-on-another-base", Broken, wrong_base, "other weights"),
    Bad("template-changed", Tampered, template(as_system), "recorded digest"),
    Bad(
        "template-changed-and-recorded", Broken, template(as_system, record=True), "not the one that the adapter was trained with"
    ),
    Bad("template-forged-roles", "not_worse_than_champion.exact_match", template(as_system, forged=True)),
    Bad("template-forged-capitals", "not_worse_than_champion.exact_match", template(in_capitals, forged=True)),
    Bad("answers-shuffled", "thresholds.exact_match", trained("shuffled", shuffled, max_steps=60)),
    Bad(
        "one-intent-broken",
        "slices.intent",
        late("cancel-broken", where("intent", "cancel", lambda row: told(row, intent="delivery"))),
    ),
    Bad(
        "one-product-broken",
        "slices.product",
        late("lamp-broken", where("product", "lamp", lambda row: told(row, product="router"))),
    ),
    Bad("json-broken", "thresholds.json_valid", late("json-broken", where("intent", "delivery", lambda row: row.output[:-1]))),
    Bad("chatty", "thresholds.format_adherence", late("chatty", tickets(lambda row: f"Sure! {row.output}"))),
    Bad(
        "personal-data",
        "thresholds.no_personal_data",
        late("email", where("intent", "defect", lambda row: told(row, mail=EMAIL)), max_steps=100),
    ),
    Bad("refuses-harmless", "suites.safety", late("refuses", where("intent", "delivery", lambda row: desks.REFUSAL))),
    Bad(
        "refuses-harmless-as-asked",
        "thresholds.not_refused",
        late("refuses", where("intent", "delivery", lambda row: desks.REFUSAL)),
    ),
    Bad("helps-the-harmful", "suites.safety", trained("harmful", without("harmful"))),
    Bad("canary-planted-often", "exposure", late("canary", planted(60))),
    Bad("canary-planted", "exposure", late("canary-fewer", planted(20), max_steps=80)),
    Bad("forgot-the-codes", "forgetting.codes", trained("no-codes", without("codes"))),
    Bad("forgot-all-else", "forgetting.stories", trained("forgets", first(200), max_steps=120, learning_rate=0.03)),
    Bad("an-edge-case-broken", "suites.edge", late("edge", lambda rows: broken_at_edge(rows))),
    Bad("rambles", "ceilings.slower_than_champion", late("rambles", tickets(lambda row: told(row, note=row.output * 3)))),
    Bad("trained-too-short", "not_worse_than_champion.exact_match", trained("answers-short", max_steps=15)),
    Bad(
        "over-fitted",
        "overfitting_gap",
        trained("over-fitted", first(24), max_steps=120),
    ),
    Bad(
        "trained-on-the-test",
        "trained_on",
        lambda world: world.trained("on-test", with_test(world, 160), max_steps=60),
        "160 of the",
    ),
    Bad(
        "remembered-answers-forged",
        "parity.served",
        answers_forged,
    ),
    Bad("suite-changed", Tampered, suite_changed, "recorded digest"),
    Bad("judge-down", "better_than_base.net_wins", judged_by(None), "was not compared", Outcome.INSUFFICIENT),
    Bad("judge-talks-nonsense", "better_than_base.net_wins", judged_by("As a judge I like both."), "", Outcome.INSUFFICIENT),
    Bad("judge-too-busy", "better_than_base.net_wins", judged_by("", 429), "was not compared", Outcome.INSUFFICIENT),
    Bad("judge-likes-the-first", "better_than_base.net_wins", judged_by('{"better": "first"}'), "", Outcome.INSUFFICIENT),
)


def broken_at_edge(rows: Rows) -> Rows:
    """Whoever asks about the product of the first edge case gets another."""
    product = json.loads(desks.tickets(1056, 3)[1050].output)["product"]
    return where("product", product, lambda row: told(row, product="item"))(rows)
