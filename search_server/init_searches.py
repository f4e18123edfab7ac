"""What `init` writes about the search itself, for each of the searches that there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from losses import FAMILIES, Family
from search_server.handmade_losses import usual_losses

RUNGS = (0.4, 0.6)  # of a proxy trial's steps: docs/bench.md


class Search(StrEnum):
    """The searches that `init` writes a spec for."""

    cse = "cse"
    pap = "pap"
    autoloss_zero = "autoloss-zero"
    tuning = "tuning"


@dataclass(frozen=True)
class Facts:
    """What a search is fitted to.

    Attributes:
        batch: images a step.
        steps: of a proxy trial.
        box_weight: weight that a box loss on boxes gets in this detector.
        embedded: whether the data is the embedded set, whose trials take seconds.
    """

    family: Family
    batch: int
    steps: int
    box_weight: float
    embedded: bool


_NAMED = {
    "multi_cls": ("{cls: ce-expression, bbox: giou-expression}", "cse-autoloss-a"),
    "binary_cls": (
        "{cls: focal-expression, bbox: giou-expression}",
        "cse-autoloss-b",
        "{cls: qfl-giou, bbox: giou-expression}",
    ),
}
_INPUTS = {
    "multi_cls": "X logits, Y one-hot label, Z IoU of the box",
    "binary_cls": "X logit, Q IoU of the box, PY and NY label",
}
_CENTERNESS = "iou_centerness: false          # true: the centerness target is the IoU\n"


def misfit(search: Search, family: Family) -> str | None:
    """Why a search is not for a family of detectors; None where it is."""
    if search is Search.pap and not family.ranks:
        names = ", ".join(name for name, each in FAMILIES.items() if each.ranks)
        return f"a search for a parameterized AP loss needs a head that can rank: {names}"
    return None


def search_text(search: Search, facts: Facts) -> str:
    """The lines from `branches` to `window`, with comments."""
    texts: Mapping[Search, Callable[[Facts], str]] = {
        Search.cse: _cse,
        Search.pap: _pap,
        Search.autoloss_zero: _autoloss_zero,
        Search.tuning: _tuning,
    }
    return texts[search](facts)


def _cse(facts: Facts) -> str:
    space = facts.family.cls_space
    named = "".join(f"    - {name}\n" for name in _NAMED[space])
    alpha = "    alpha: 0.25                # class balance; null: none\n"
    return f"""\
branches:                      # leave one out, and it keeps the detector's own loss
  cls:
    space: {space:<20}# {_INPUTS[space]}
{alpha if space == "binary_cls" else ""}\
  bbox:
    space: box                 # U union, I intersection, E enclosing box, in square pixels
    loss_weight: {facts.box_weight:<14g}# factor on every box loss that is found
mode: joint                    # alternate: one branch a generation, the other from the best
{_CENTERNESS if facts.family.has_centerness else ""}\
baseline: default              # the detector's own losses, or a name of the catalogue
calibrate: true                # a found loss gets the gradient norm of the baseline's

searcher:
  type: evolution
  population: 16               # candidates in a generation
  parents: 4                   # the best of them become parents,
  selection: niches            # of those that are alike only one
  named:                       # these open the first generation
{named}\
  random: 0.2
  mutation: 0.5
  crossover: 0.3

funnel:
{_proxy(facts)}
candidates: 48                 # three generations
window: 8                      # the k-th candidate sees the results of candidates up to k - 8
"""


def _proxy(facts: Facts) -> str:
    """Proxy task and confirmation, which needs a split of its own."""
    steps, seeds, confirm = facts.steps, "[0, 1]", "{top: 3, seeds: 4}"
    warm, split = "", "# lossforge data split makes a split `confirm`; then: "
    if facts.embedded:
        steps, seeds, confirm, split = 200, "[0]", "{steps: 600, top: 3, seeds: 4}", ""
        warm = "\n    warm_start: {steps: 300}   # all start from one backbone and neck"
    rungs = [max(1, round(share * steps)) for share in RUNGS]
    return f"""\
  # A short training of every candidate; what is hopeless stops at a rung.
  proxy:
    steps: {steps}
    batch_size: {facts.batch}
    seeds: {seeds}
    rungs: {rungs}{warm}
  # Two losses differ less than two seeds do: the best are trained anew, paired over fresh seeds.
  {split}confirm: {confirm}
"""


def _pap(facts: Facts) -> str:
    two = facts.family.two_stage
    rpn = "  rpn: {space: pap}            # and as many for the region proposals: 82 together\n"
    baseline = "pap-identity-faster-rcnn  " if two else "pap-identity"
    rounds = 10 if facts.embedded else 40
    schedule = "" if facts.embedded else ", as published"
    return f"""\
branches:
  # 41 parameters: five functions of 4 control points each, and the boxes' gradient scale
  cls: {{space: pap}}            # the loss of scores and boxes; gradient_scale: false fixes it at 1
{rpn if two else ""}\
baseline: {baseline:<19}# identity functions, gradient scale 1: what it starts from

searcher:
  type: policy
  rounds: {rounds:<21}# the policy is moved after every round{schedule}
  samples: 8                   # losses in a round; they are trained side by side
  sigma: 0.2                   # spread of the first round; it falls linearly
  learning_rate: 0.01          # of the policy's mean, in logits
  updates: 100                 # of the mean after a round
  warmup: 30
  clip: 0.1                    # of every parameter's own probability ratio

funnel:
  simulate: null               # every sample is trained: its AP is the reward
  # One seed a sample, as published: the policy averages over many. What is found has to be
  # trained over more: lossforge compare
  proxy: {{steps: {facts.steps}, batch_size: {facts.batch}, seeds: [0]}}

# rounds x samples candidates, then the final mean: {rounds * 8 + 1}
"""


def _autoloss_zero(facts: Facts) -> str:
    simulate = f"{{steps: 100, images_per_class: 1, batch_size: {min(4, facts.batch)}, keep: 4}}"
    return f"""\
search_space: autoloss_zero    # both branches, from nothing but random expressions
baseline: default              # the detector's own losses, or a name of the catalogue

searcher:
  type: evolution
  population: 20               # candidates in a generation
  parents: 4                   # the best of them become parents
  depth: {{min: 2, max: 5}}
  random: 0.3
  mutation: 0.5
  crossover: 0.2

funnel:
  verify:
    max_draws: 200000
    rejection:                 # does the loss improve predictions that are moved down it?
      steps: 80                # of descent on the predictions of five fixed samples
      learning_rate: 0.3
      threshold: 0.9           # share of the possible gain of the metric
      digits: 2                # to which gradient norms agree where losses are equivalent
  # over-fit a few images; `keep` of every generation go on
  simulate: {simulate}
  proxy: {{steps: {facts.steps}, batch_size: {facts.batch}, seeds: [0, 1]}}

candidates: 200                # ten generations
window: 20                     # the k-th candidate sees the results of candidates up to k - 20
"""


def _tuning(facts: Facts) -> str:
    cls, bbox = (", ".join(usual_losses(facts.family, branch)) for branch in ("cls", "bbox"))
    centerness = "[false, true]" if facts.family.has_centerness else "[false]"
    return f"""\
# The losses of people, with their own numbers tuned: what a discovered loss has to beat.
branches:
  cls:
    space: handmade
    losses: [{cls}]
    loss_weight: 1             # usual weight
    factor: [0.1, 10]          # range of the factor on it
  bbox:
    space: handmade
    losses: [{bbox}]
    loss_weight: {facts.box_weight:<14g}# of a loss on boxes; one on deltas has 1
    factor: [0.1, 10]
baseline: default              # the detector's own losses, or a name of the catalogue

searcher:
  type: tuning
  sampler: tpe                 # or cmaes, random: Optuna's
  startup: 10                  # random ones after the published losses
  learning_rate: [0.25, 4]     # range of the factor on the learning rate; null: not tuned
  centerness: {centerness:<17}# choices for the IoU as the target of the centerness

funnel:
  simulate: null
  # Two losses differ less than two seeds do: compare over several, paired by seed.
  proxy: {{steps: {facts.steps}, batch_size: {facts.batch}, seeds: [0, 1]}}

candidates: 72
window: 4                      # the k-th candidate sees the results of candidates up to k - 4
"""
