"""The policy searcher's numbers: densities, PPO, rounds, and what a resumed one asks."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from scipy.stats import kstest, truncnorm

from losses import CATALOG, LossDefinition
from search_server.searchers import (
    Observation,
    PapSpace,
    Parameters,
    PolicySearcher,
    Problem,
    generator,
)
from search_server.searchers.ppo import PPO, objective, updated
from search_server.searchers.truncated_normal import log_density, sample
from search_server.spec import PolicySearcher as Settings

MEANS = (1e-9, 0.02, 0.2, 0.5, 0.93, 1 - 1e-9)
SIGMAS = (0.005, 0.2, 1.5, 10.0)


def cut(mean: Any, sigma: float) -> Any:
    """scipy's truncated normal, our oracle."""
    return truncnorm((0 - mean) / sigma, (1 - mean) / sigma, loc=mean, scale=sigma)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_density_is_scipys(sigma: float) -> None:
    mean = np.array(MEANS)
    x = np.clip(mean + sigma * np.linspace(-3, 3, 7)[:, None], 0, 1)
    found = log_density(torch.from_numpy(x), torch.from_numpy(mean), sigma).numpy()
    np.testing.assert_allclose(found, cut(mean, sigma).logpdf(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_samples_are_of_that_distribution(mean: float, sigma: float) -> None:
    drawn = sample(np.full(4000, mean), sigma, np.random.default_rng(5))
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert kstest(drawn, cut(mean, sigma).cdf).pvalue > 1e-3


def test_every_dimension_is_clipped_before_the_product() -> None:
    rng = np.random.default_rng(3)
    for clip in (0.03, 0.1, 0.5):
        log_ratio = rng.normal(0, 0.15, (9, 6))
        advantage = rng.normal(0, 1, 9)
        terms = []
        for row, gain in zip(log_ratio, advantage, strict=True):
            plain = held = 1.0
            for value in row:
                plain *= math.exp(value)
                held *= min(max(math.exp(value), 1 - clip), 1 + clip)
            terms.append(min(plain * gain, held * gain))
        found = objective(torch.from_numpy(log_ratio), torch.from_numpy(advantage), clip)
        assert found.item() == pytest.approx(sum(terms) / 9, rel=1e-12)
        whole = np.minimum(  # the usual PPO, which clips the product: another number
            np.exp(log_ratio.sum(1)) * advantage,
            np.clip(np.exp(log_ratio.sum(1)), 1 - clip, 1 + clip) * advantage,
        ).mean()
        assert abs(whole - found.item()) > 1e-3


def adam_by_hand(
    mu: Any, sigma: float, new: float, thetas: Any, rewards: Any, settings: PPO
) -> Any:
    """The whole update again: derivatives by central differences, Adam as in its paper."""
    advantage = rewards - rewards.mean()
    before = cut(expit(mu), sigma).logpdf(thetas)

    def value(logits: Any) -> float:
        log_ratio = cut(expit(logits), new).logpdf(thetas) - before
        held = np.clip(log_ratio, math.log(1 - settings.clip), math.log(1 + settings.clip))
        ratios = np.exp(log_ratio.sum(1)), np.exp(held.sum(1))
        return float(np.minimum(ratios[0] * advantage, ratios[1] * advantage).mean())

    first, second, h = np.zeros_like(mu), np.zeros_like(mu), 1e-6
    for step in range(settings.updates):
        slope = np.array(
            [(value(mu + h * e) - value(mu - h * e)) / (2 * h) for e in np.eye(len(mu))]
        )
        rate = settings.learning_rate * (
            step / settings.warmup
            if step < settings.warmup
            else 1 - (step - settings.warmup) / (settings.updates - settings.warmup)
        )
        first, second = 0.9 * first - 0.1 * slope, 0.999 * second + 0.001 * slope**2
        ahead = first / (1 - 0.9 ** (step + 1))
        mu = mu - rate * ahead / (np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8)
    return mu


def test_the_update_is_adams_on_the_clipped_objective() -> None:
    rng = np.random.default_rng(8)
    mu, settings = logit(np.array([0.2, 0.5, 0.7])), PPO(0.02, 12, 4, 0.1)
    thetas = np.array([sample(expit(mu), 0.2, rng) for _ in range(5)])
    rewards = rng.random(5)
    kept = mu.copy()
    found = updated(mu, 0.2, 0.15, thetas, rewards, settings)
    np.testing.assert_array_equal(mu, kept)  # it is not changed in place
    wanted = adam_by_hand(mu, 0.2, 0.15, thetas, rewards, settings)
    assert np.abs(wanted - mu).max() > 0.01
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_rewards_that_tell_nothing_move_nothing() -> None:
    mu, settings = np.zeros(3), PPO(0.01, 10, 3, 0.1)
    thetas = np.full((4, 3), 0.4)
    for rewards in (np.zeros(4), np.full(4, 0.3)):
        np.testing.assert_array_equal(updated(mu, 0.2, 0.1, thetas, rewards, settings), mu)
    one = updated(mu, 0.2, 0.1, thetas[:1], np.array([0.7]), settings)
    np.testing.assert_array_equal(one, mu)


def test_the_learning_rate_rises_and_falls() -> None:
    papers = PPO(0.01, 100, 30, 0.1)
    steps = (0, 15, 30, 65, 99)
    assert [papers.factor(step) for step in steps] == pytest.approx([0, 0.5, 1, 0.5, 1 / 70])
    assert PPO(0.01, 4, 0, 0.1).factor(0) == 1
    assert PPO(0.01, 4, 4, 0.1).factor(3) == 0.75


def problem(seed: int = 3, **spaces: Any) -> Problem:
    parameters = Parameters(spaces or {"cls": PapSpace()})
    return Problem({}, LossDefinition("template"), {}, seed=seed, parameters=parameters)


SMALL = Settings(type="policy", rounds=3, samples=4, updates=15, warmup=5)


def asked(searcher: PolicySearcher, index: int) -> LossDefinition:
    (proposal,) = searcher.ask(index, generator(3, index))
    assert dict(proposal.draws) == {}
    assert proposal.origin == ("mean" if index == 13 else "policy")
    return proposal.start


def seen(index: int, definition: LossDefinition) -> Observation:
    """Some diverge, some fail, the others have a fitness."""
    fitness: float | None = {5: 0.0, 7: None}.get(index, (index * 37 % 11) / 11)
    return Observation(index, definition, {}, fitness, None)


def run(known: dict[int, LossDefinition], upto: int) -> None:
    """A new searcher goes on from the known candidates, as the controller has it do."""
    searcher, told = PolicySearcher(SMALL, problem()), 0
    for index in range(len(known), upto + 1):
        while told <= searcher.sees(index):
            searcher.tell(seen(told, LossDefinition.from_json(known[told].to_json())))
            told += 1
        known[index] = asked(searcher, index)


def test_rounds_are_barriers() -> None:
    searcher = PolicySearcher(SMALL, problem())
    assert [searcher.sees(index) for index in (1, 4, 5, 8, 9, 12, 13)] == [-1, -1, 4, 4, 8, 8, 12]


def test_the_spread_falls_and_the_last_round_keeps_it() -> None:
    searcher = PolicySearcher(SMALL, problem())
    assert [searcher.sigma(k) for k in range(4)] == pytest.approx([0.2, 0.4 / 3, 0.2 / 3, 0.2 / 3])
    release, sigma = [], 0.2
    for t in range(40):
        release.append(sigma)
        sigma *= (40 - t - 1) / (40 - t)
    paper = PolicySearcher(Settings(type="policy"), problem())
    assert [paper.sigma(k) for k in range(40)] == pytest.approx(release)


@pytest.mark.parametrize("stopped", range(1, 14))
def test_a_resumed_searcher_asks_bit_for_bit_the_same(stopped: int) -> None:
    whole, parts = {0: CATALOG["pap-identity"]}, {0: CATALOG["pap-identity"]}
    run(whole, 13)
    run(parts, stopped - 1)
    run(parts, 13)
    assert {k: v.to_json() for k, v in parts.items()} == {k: v.to_json() for k, v in whole.items()}
    assert len({v.key for v in whole.values()}) == 14


def test_a_failed_candidate_is_left_out_of_its_round() -> None:
    searcher = PolicySearcher(SMALL, problem())
    definitions = {index: asked(searcher, index) for index in range(1, 5)}
    thetas = np.array([sample(searcher.mean, 0.2, generator(3, k)) for k in range(1, 5)])
    start = logit(searcher.mean)
    rewards = {1: 0.2, 2: None, 3: 0.0, 4: 0.4}
    for index, reward in rewards.items():
        searcher.tell(Observation(index, definitions[index], {}, reward, None))
    left = updated(
        start, 0.2, 0.4 / 3, thetas[[0, 2, 3]], np.array([0.2, 0.0, 0.4]), PPO(0.01, 15, 5, 0.1)
    )
    np.testing.assert_allclose(searcher.mean, expit(left), rtol=1e-12)


def test_the_seed_and_the_index_choose_the_sample() -> None:
    one, other = PolicySearcher(SMALL, problem(3)), PolicySearcher(SMALL, problem(4))
    keys = {asked(searcher, index).key for searcher in (one, other) for index in (1, 2, 3)}
    assert len(keys) == 6


def test_sizes_are_the_papers() -> None:
    assert Parameters({"cls": PapSpace()}).size == 41
    assert Parameters({"cls": PapSpace(), "rpn": PapSpace()}).size == 82
    assert Parameters({"cls": PapSpace(functions=())}).size == 1
    assert Parameters({"cls": PapSpace(functions=("I1",), points=2, scale=False)}).size == 4


@pytest.mark.parametrize(
    ("spaces", "name"),
    [
        ({"cls": PapSpace()}, "pap-identity"),
        ({"cls": PapSpace(functions=())}, "pap-identity"),
        ({"cls": PapSpace(scale=False)}, "pap-identity"),
        ({"cls": PapSpace(), "rpn": PapSpace()}, "pap-identity-faster-rcnn"),
    ],
)
def test_a_search_starts_at_the_identity(spaces: dict[str, PapSpace], name: str) -> None:
    parameters = Parameters(spaces)
    assert parameters.definition(parameters.start(), "x").key == CATALOG[name].key


def test_parameters_reach_the_functions_they_are_for() -> None:
    parameters = Parameters({"cls": PapSpace(functions=("H2", "I1"), points=2), "rpn": PapSpace()})
    theta = parameters.start()
    theta[:4] = (0.1, 0.2, 0.5, 0.25)  # H2: x, y of its two points
    theta[4:8] = (0.3, 0.6, 1.0, 0.0)  # I1
    theta[8] = 1.0  # gradient scale 10
    theta[-1] = 0.0  # of the rpn: 0.1
    made = parameters.definition(theta, "made").to_json()
    assert made["cls"]["functions"]["H2"] == [[0.1, 0.2], pytest.approx([0.55, 0.4])]
    assert made["cls"]["functions"]["I1"] == [[0.3, 0.6], [1.0, 0.6]]
    third = pytest.approx([1 / 3, 1 / 3])
    for name in ("I2", "I3", "H1"):
        assert made["cls"]["functions"][name][0] == third
    assert made["cls"]["box_gradient_scale"] == pytest.approx(10)
    assert made["rpn"]["box_gradient_scale"] == pytest.approx(0.1)
    assert made["rpn"]["functions"] == CATALOG["pap-identity"].to_json()["cls"]["functions"]
