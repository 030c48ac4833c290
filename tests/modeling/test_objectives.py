"""Losses as tables: what each is at numbers that can be checked by hand."""

from __future__ import annotations

import math

import pytest


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


@pytest.mark.parametrize(
    ("smoothing", "expected"),
    [(0.0, -math.log(0.7) - math.log(0.1)), (0.3, -0.7 * math.log(0.7 * 0.1) - 0.1 * 2 * math.log(0.7 * 0.2 * 0.1))],
)
def test_token_and_label_loss_is_the_sum_of_surprise_smoothed_over_all(smoothing, expected):
    import torch

    from pipeline.modeling.objectives.classes import label_loss, labels_right
    from pipeline.modeling.objectives.likelihood import token_loss, tokens_right

    logits, right = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]).log(), torch.tensor([0, 2])
    for loss in (token_loss, label_loss):
        assert loss(logits, right, smoothing=smoothing).item() == pytest.approx(expected, abs=1e-6)
    assert tokens_right(logits, right).item() == labels_right(logits, right).item() == 1


@pytest.mark.parametrize(
    ("better", "worse", "centre", "expected"),
    [
        (1.0, 1.0, 0.0, math.log(2)),
        (2.0, 0.0, 0.0, -log_sigmoid(2.0)),
        (0.0, 2.0, 0.0, -log_sigmoid(-2.0)),
        (2.0, 1.0, 0.1, -log_sigmoid(1.0) + 0.9),
        (2.0, -2.0, 0.1, -log_sigmoid(4.0)),
    ],
)
def test_reward_loss(better, worse, centre, expected):
    import torch

    from pipeline.modeling.objectives.preference import reward_loss

    assert reward_loss(torch.tensor([better]), torch.tensor([worse]), centre=centre).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "smoothing", "expected"),
    [
        ("sigmoid", 0.0, -log_sigmoid(0.5 * 3.0)),
        ("sigmoid", 0.2, -0.8 * log_sigmoid(1.5) - 0.2 * log_sigmoid(-1.5)),
        ("hinge", 0.0, 0.0),
        ("ipo", 0.0, (2.0 / 4 - -1.0 / 2 - 1.0) ** 2),
    ],
)
def test_dpo_loss(kind, smoothing, expected):
    import torch

    from pipeline.modeling.objectives.preference import dpo_loss

    tokens = (torch.tensor([4]), torch.tensor([2]))
    given = {"beta": 0.5, "kind": kind, "smoothing": smoothing, "tokens": tokens}
    assert dpo_loss(torch.tensor([2.0]), torch.tensor([-1.0]), **given).item() == pytest.approx(expected, abs=1e-6)


def test_dpo_hinge_asks_for_a_margin_of_one_and_ipo_for_tokens():
    import torch

    from pipeline.modeling.objectives.preference import dpo_loss

    assert dpo_loss(torch.tensor([1.0]), torch.tensor([0.5]), beta=1.0, kind="hinge").item() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="tokens"):
        dpo_loss(torch.tensor([1.0]), torch.tensor([0.5]), beta=1.0, kind="ipo")


@pytest.mark.parametrize(
    ("ratio", "good", "divergence", "expected"),
    [
        (0.0, True, 0.0, 0.5),
        (0.0, False, 0.0, 0.5),
        (3.0, True, 1.0, 2 * (1 - 1 / (1 + math.exp(-1.0)))),
        (3.0, False, 1.0, 3 * (1 - 1 / (1 + math.exp(1.0)))),
    ],
)
def test_kto_loss(ratio, good, divergence, expected):
    import torch

    from pipeline.modeling.objectives.preference import kto_loss

    weights = {"desirable_weight": 2.0, "undesirable_weight": 3.0} if ratio else {}
    found = kto_loss(torch.tensor([ratio]), torch.tensor([good]), divergence, beta=0.5, **weights)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_kto_divergence_is_a_mean_and_never_below_nothing():
    import torch

    from pipeline.modeling.objectives.preference import kto_divergence

    assert kto_divergence(torch.tensor([1.0, 3.0])) == 2.0
    assert kto_divergence(torch.tensor([1.0, -3.0])) == 0.0
    assert kto_divergence(torch.zeros(0)) == 0.0


@pytest.mark.parametrize(("p", "q"), [(0.9, 0.5), (0.5, 0.5), (1e-4, 0.999), (0.2, 0.8)])
def test_log_odds(p, q):
    import torch

    from pipeline.modeling.objectives.preference import log_odds, odds_loss

    better, worse = torch.tensor([p]).log(), torch.tensor([q]).log()
    expected = math.log(p / (1 - p)) - math.log(q / (1 - q))
    assert log_odds(better, worse).item() == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert odds_loss(better, worse).item() == pytest.approx(-log_sigmoid(expected), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("log_prob", [0.0, -1e-30, -1e-8, -math.log(2), -40.0, -400.0])
def test_odds_have_a_finite_slope_even_where_a_model_is_sure(log_prob):
    import torch

    from pipeline.modeling.objectives.preference import odds_loss

    better, worse = (torch.tensor([value], requires_grad=True) for value in (log_prob, -1.0))
    for loss in (odds_loss(better, worse), odds_loss(worse, better)):
        assert torch.isfinite(loss).all()
        slopes = torch.autograd.grad(loss.sum(), (better, worse))
        assert all(torch.isfinite(slope).all() for slope in slopes)
