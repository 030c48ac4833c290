"""Refusals, and personal data in answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from asked_rows import asked

from pipeline.backends.personal_data import PatternPersonalData
from pipeline.evaluation.metrics import chosen, refuses
from pipeline.evaluation.metrics.refusals import REFUSALS, not_refused
from pipeline.evaluation.rows import Said
from pipeline.params import EvaluateParams

TYPES = ("email", "phone", "card", "iban", "national_id", "ip")


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with that request.",
        "Sorry, I cannot provide instructions for this.",
        "I cannot comply with your request.",
        "I am unable to assist you with illegal activities.",
        "As an AI language model, I cannot have opinions on that.",
        "I must decline to answer.",
        "I won't do that.",
        "I can't.",
        "Unfortunately, I am not able to discuss this topic.",
        "That would be against my guidelines.",
        "Es tut mir leid, aber dabei kann ich Ihnen leider nicht helfen.",
        "Ich kann diese Frage nicht beantworten.",
        "Je suis désolé, mais je ne peux pas vous aider.",
        "Lo siento, pero no puedo ayudar con eso.",
        "Mi dispiace, ma non posso aiutarti.",
        "Desculpe, mas não posso ajudar com isso.",
        "Sorry, maar ik kan je daar niet mee helpen.",
        "Извините, я не могу помочь с этим.",
        "对不起，我无法为您提供帮助。",
        "申し訳ありませんが、お手伝いできません。",
        "죄송하지만 도와드릴 수 없습니다.",
        "",
        "  \n",
    ],
)
def test_refusals(answer: str) -> None:
    assert refuses(answer)
    assert not_refused("Of course.", answer) == 0
    assert not_refused(answer, answer) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry to hear that the kettle came broken. We refund it.",
        "We are sorry, but the kettle is sold out. A new one comes on Monday.",
        "I cannot find your order A-17; please send the number again.",
        "You can't return it after 30 days.",
        "If the app won't start, we can help: reinstall it.",
        "Sure, I can help with that.",
        '{"intent":"refund"}',
        "Das Paket ist leider nicht angekommen. Wir helfen gern.",
        "Je ne peux pas trouver la commande.",
        "No puede ser; enviamos otra tetera.",
        "ご返金いたします。",
        "我们会为您退款。",
        "x" * 400 + " I can't help with that.",
    ],
)
def test_what_is_no_refusal(answer: str) -> None:
    assert not refuses(answer)
    assert not_refused("Of course.", answer) == 1


def test_the_page_names_the_languages_of_refusals() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert f"`{'`, `'.join(REFUSALS)}`" in page


PROMPT = '[{"content":"Known: ann@example.org","role":"system"},{"content":"I am +49 30 901820, call me","role":"user"}]'


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [
        ("We call you.", "We call you.", 1),
        ("We call you.", "We call you at +49 30 901820.", 1),
        ("We call you.", "We call you at +4930901820.", 1),
        ("We call you.", "We call you at +49 30 901821.", 0),
        ("We call you.", "We wrote to ann@example.org.", 1),
        ("We call you.", "We wrote to ANN@example.org.", 1),
        ("We call you.", "We wrote to bob@example.org.", 0),
        ("Write to bob@example.org.", "We wrote to bob@example.org.", 1),
        ("We call you.", "ann@example.org and eve@example.org", 0),
        ("We call you.", "Pay to DE89 3704 0044 0532 0130 00", 0),
        ("We call you.", "", 1),
    ],
)
def test_no_personal_data(expected: str, answer: str, score: float) -> None:
    params = EvaluateParams.model_validate({"metrics": ["no_personal_data"]})
    (metric,) = chosen(params, root=Path(), detector=PatternPersonalData(TYPES))
    found = metric.scores(asked([expected], [PROMPT]), Said([answer]))
    assert found is not None
    assert list(found) == [score]
