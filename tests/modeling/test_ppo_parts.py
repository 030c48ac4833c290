"""The parts that PPO is made of: rules, sampling, and one base that is policy, reference and value at once."""

from __future__ import annotations

import numpy as np
import ppo_kit
import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from pipeline.modeling.adapters.handshake import NAME
from pipeline.modeling.forward import label_log_probs, token_logits
from pipeline.modeling.learning.ppo.cast import REFERENCE, VALUE, Cast
from pipeline.modeling.learning.ppo.rules import judged, repetition
from pipeline.modeling.learning.ppo.sampling import Sampling, chances, sample
from pipeline.modeling.texts.rows import Row, collate
from pipeline.params.learning import RewardSource

RULES = [
    ({"rule": "json_valid"}, '{"a": [1, null]}', "", 1.0),
    ({"rule": "json_valid"}, '"text"', "", 1.0),
    ({"rule": "json_valid"}, '{"a": 1} and more', "", 0.0),
    ({"rule": "json_valid"}, "[NaN]", "", 0.0),
    ({"rule": "json_valid"}, "", "", 0.0),
    ({"rule": "json_valid"}, "[" * 100_000, "", 0.0),
    ({"rule": "exact_match"}, " yes\n", "yes", 1.0),
    ({"rule": "exact_match"}, "Yes", "yes", 0.0),
    ({"rule": "exact_match"}, "", "", 0.0),  # a row without an answer of its own rewards nothing
    ({"rule": "length", "words": 4}, "one two three four", "", 1.0),
    ({"rule": "length", "words": 4}, "one two three", "", 0.75),
    ({"rule": "length", "words": 4}, "1 2 3 4 5 6", "", 0.5),
    ({"rule": "length", "words": 4}, "", "", 0.0),
    ({"rule": "length", "words": 2}, "1 2 3 4 5 6", "", 0.0),
    ({"rule": "not_repeating"}, "a b c d", "", 1.0),
    ({"rule": "not_repeating"}, "a a a a a", "", 1 / 3),
    ({"rule": "not_repeating"}, "a b", "", 1.0),
]


@pytest.mark.parametrize(("source", "answer", "own", "worth"), RULES)
def test_a_rule_says_what_an_answer_is_worth(source, answer, own, worth):
    assert judged(RewardSource(**source), [answer], [own]) == [pytest.approx(worth)]


@pytest.mark.parametrize(
    ("pieces", "share"), [([], 0.0), ([1, 2], 0.0), ([1, 2, 3], 0.0), ([7] * 12, 0.9), ([1, 2, 3, 1, 2, 3], 0.25)]
)
def test_repetition_is_the_share_of_triples_that_were_there_before(pieces, share):
    assert repetition(pieces) == pytest.approx(share)


@pytest.fixture(scope="module")
def moved(tiny_base):
    """A policy whose start is another stage's adapter."""
    return ppo_kit.policy(tiny_base, moved=0.3)


PROMPTS = [[1, 4, 70, 71, 5], [1, 4, 90, 5], [1, 4, 60, 61, 62, 63, 64, 5], [1, 5]]


def slowly(model, prompt, numbers, how):
    """One answer without cache, batch or padding: whole forward passes, the first token whose share ends above each number."""
    ids = list(prompt)
    for number in numbers:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        shares = np.cumsum(torch.softmax(logits.double() / how.temperature, -1).numpy())
        ids.append(int(np.flatnonzero(shares > number * shares[-1])[0]))
        if ids[-1] in how.ends:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_answers_are_those_drawn_one_by_one_without_a_cache_however_they_are_batched(moved, temperature):
    how = Sampling(max_new_tokens=12, temperature=temperature, ends=(2, *range(200, 230)), pad_id=0)
    drawn = chances(4, 12, 7, 1, 0)
    wanted = [slowly(moved, prompt, numbers, how) for prompt, numbers in zip(PROMPTS, drawn, strict=True)]
    assert {len(one) for one in wanted} != {12}, "some must end before the limit"
    for rows in (1, 3, 4):
        assert sample(moved, PROMPTS, drawn, how, rows=rows) == wanted


def test_tokens_come_as_often_as_their_probability_says(moved):
    how = Sampling(max_new_tokens=1, temperature=1.0, ends=(2,), pad_id=0)
    found = sample(moved, [PROMPTS[0]] * 4000, chances(4000, 1, 3), how, rows=500)
    with torch.no_grad():
        expected = 4000 * torch.softmax(moved(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1], -1).double()
    counts = torch.bincount(torch.tensor(found).flatten(), minlength=len(expected)).double()
    # Pearson's statistic has the mean and, doubled, the variance of its degrees of freedom.
    off = float(((counts - expected) ** 2 / expected).sum()) - (len(expected) - 1)
    assert abs(off) < 4 * (2 * (len(expected) - 1)) ** 0.5


def test_sampling_heeds_neither_random_state_nor_what_the_base_says_of_sampling(moved):
    how = Sampling(max_new_tokens=6, temperature=1.0, ends=(2,), pad_id=0)
    plain = sample(moved, PROMPTS, chances(4, 6, 1), how, rows=4)
    bare = moved.get_base_model()
    own = GenerationConfig(do_sample=True, temperature=0.1, top_k=1, repetition_penalty=9.0, min_length=50, max_length=3)
    before, bare.generation_config = bare.generation_config, own
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    try:
        assert sample(moved, PROMPTS, chances(4, 6, 1), how, rows=4) == plain
        assert bare.generation_config is own
    finally:
        bare.generation_config = before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_chances_are_a_function_of_their_key():
    assert np.array_equal(chances(5, 4, 7, 1, 2), chances(5, 4, 7, 1, 2))
    assert not np.array_equal(chances(5, 4, 7, 1, 2), chances(5, 4, 7, 2, 2))


BATCH = collate([Row([*p, 80, 81, 2], [-100] * len(p) + [80, 81, 2]) for p in PROMPTS], 0)


def log_probs(model):
    with torch.no_grad():
        logits, targets, _ = token_logits(model, BATCH)
    return label_log_probs(logits, targets)


def learned(cast):
    return {name for name, weight in cast.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("start", [0.0, 0.3])
def test_what_learns_is_policy_value_and_its_head_whatever_is_on(tiny_base, start):
    cast = Cast(ppo_kit.policy(tiny_base, moved=start))
    layers = 2 * len(ppo_kit.TARGETS)
    wanted = learned(cast)
    assert sum(f".{NAME}." in name for name in wanted) == sum(f".{VALUE}." in name for name in wanted) == 2 * layers
    assert wanted - {name for name in wanted if ".lora_" in name} == {"value_head.weight", "value_head.bias"}
    for part in (VALUE, cast.reference, NAME, None):
        with cast.playing(part):
            assert learned(cast) == wanted
            with pytest.raises(ZeroDivisionError), cast.playing(VALUE):
                raise ZeroDivisionError
            assert learned(cast) == wanted
        assert cast.policy.active_adapter == NAME
        assert learned(cast) == wanted


def test_the_reference_is_the_bare_base_where_the_policy_starts_from_it(tiny_base):
    cast = Cast(ppo_kit.policy(tiny_base))
    assert cast.reference is None
    shake(cast, NAME)
    with cast.playing(cast.reference) as model:
        found = log_probs(model)
    assert torch.equal(found, log_probs(AutoModelForCausalLM.from_pretrained(tiny_base).eval()))
    assert not torch.allclose(found, log_probs(cast.policy))


def test_the_reference_stays_where_the_policy_started(tiny_base):
    policy = ppo_kit.policy(tiny_base, moved=0.3)
    before = log_probs(policy)
    cast = Cast(policy)
    assert cast.reference == REFERENCE
    shake(cast, NAME)
    with cast.playing(cast.reference) as model:
        assert torch.equal(log_probs(model), before)
    assert not torch.allclose(log_probs(cast.policy), before)


def shake(cast, part):
    with torch.no_grad():
        for name, weight in cast.named_parameters():
            if f".lora_B.{part}." in name:
                weight.add_(0.1)


def test_a_value_expects_nothing_at_first_and_shares_no_weight_with_the_policy(tiny_base):
    cast = Cast(ppo_kit.policy(tiny_base, moved=0.3))
    assert not cast.values(BATCH).any()
    torch.nn.init.normal_(cast.value_head.weight)
    values = cast.values(BATCH)
    assert values.shape == BATCH["places"].shape
    shake(cast, NAME)
    assert torch.equal(cast.values(BATCH), values)
    values.sum().backward()
    has = {name for name, weight in cast.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert has
    assert all(f".{VALUE}." in name or name.startswith("value_head") for name in has)
    shake(cast, VALUE)
    assert not torch.allclose(cast.values(BATCH), values.detach())


def test_values_are_read_where_the_token_is_chosen_not_where_it_stands(tiny_base):
    """What is expected before a token cannot depend on it."""
    cast = Cast(ppo_kit.policy(tiny_base))
    torch.nn.init.normal_(cast.value_head.weight)
    rows = [Row([1, 4, 70, 5, answer, 2], [-100] * 4 + [answer, 2]) for answer in (80, 90)]
    with torch.no_grad():
        first, second = (cast.values(collate([row], 0)) for row in rows)
    assert torch.equal(first[0], second[0])
    assert first[1] != second[1]


def test_gradients_are_the_same_when_activations_are_computed_again(tiny_base):
    """In the backward pass another adapter is on than in the forward pass of the value."""
    found = []
    for again in (False, True):
        cast = Cast(ppo_kit.policy(tiny_base, moved=0.3))
        torch.manual_seed(1)
        torch.nn.init.normal_(cast.value_head.weight)
        shake(cast, VALUE)
        if again:
            cast.policy.get_base_model().activation_checkpointing_enable()
            cast.mind_recomputing()
        cast.train()
        with cast.playing(NAME) as model:
            logits, targets, _ = token_logits(model, BATCH)
        (label_log_probs(logits, targets).sum() + cast.values(BATCH).sum()).backward()
        assert cast.policy.active_adapter == NAME
        found.append({name: weight.grad.clone() for name, weight in cast.named_parameters() if weight.requires_grad})
    assert all(torch.equal(grad, found[1][name]) for name, grad in found[0].items())
    assert all(bool(grad.any()) for grad in found[0].values())
