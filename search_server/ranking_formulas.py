"""The formulas of the four ranking losses, for terminals and for typesetting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from losses import RankingBranch
from search_server.ranking_text import NAMES


@dataclass(frozen=True)
class RankingFormula:
    """What a ranking loss computes.

    Attributes:
        latex: lines of LaTeX that mathtext knows, the loss first.
        text: the same as plain text.
        symbols: what the symbols mean beyond :data:`SYMBOLS`.
    """

    latex: tuple[str, ...]
    text: tuple[str, ...]
    symbols: str


#: Symbols that AP, aLRP and RankSort share.
SYMBOLS = "s: scores (logits), P: positives, N: negatives"

_STEP_LATEX = r"H(d) = \min(\max(\dfrac{d}{2\,\delta} + \dfrac{1}{2},\, 0),\, 1)"
_STEP_TEXT = "H(d) = clamp(d/(2 delta) + 1/2, 0, 1)"
_RANK_LATEX = (
    r"F_i = \sum_{j \in N} H(s_j - s_i) \qquad "
    r"R_i = 1 + \sum_{j \in P,\, j \neq i} H(s_j - s_i)"
)
_RANK_TEXT = "F_i = sum_{j in N} H(s_j - s_i)   R_i = 1 + sum_{j in P, j != i} H(s_j - s_i)"

FORMULAS: Mapping[str, RankingFormula] = {
    "pap": RankingFormula(
        latex=(
            r"L = \dfrac{1}{|P|} \sum_{i \in P} \left[\, 1 - f_{I1}(u_i) + f_{I3}(u_i)\, "
            r"\dfrac{\sum_{j \in S} f_{H2}(d_{ji})\, (1 - f_{I2}(u_j))}"
            r"{\sum_{j \in S} f_{H1}(d_{ji})} \,\right]",
            r"d_{ji} = \min(\max(\dfrac{s_j - s_i}{2} + \dfrac{1}{2},\, 0),\, 1)",
        ),
        text=(
            "L = 1/|P| sum_{i in P} { 1 - I1(u_i)"
            " + I3(u_i) [sum_{j in S} H2(d_ji) (1 - I2(u_j))] / [sum_{j in S} H1(d_ji)] }",
            "d_ji = clamp((s_j - s_i)/2 + 1/2, 0, 1)",
        ),
        symbols="s: scores (logits), P: positives, S: the highest scores, u: overlap with the "
        "target in [0, 1], 0 for background; H1 passes no gradient on",
    ),
    "ap": RankingFormula(
        latex=(
            r"L = 1 - \dfrac{1}{|P|} \sum_{i \in P} \;\;\max_{k \in P,\, s_k \leq s_i}\; "
            r"\dfrac{R_k}{R_k + F_k} \qquad " + _STEP_LATEX,
            _RANK_LATEX,
        ),
        text=(
            "L = 1 - 1/|P| sum_{i in P} max_{k in P, s_k <= s_i} R_k / (R_k + F_k)",
            _RANK_TEXT,
            _STEP_TEXT,
        ),
        symbols=f"{SYMBOLS}; the gradient is the ranking error itself",
    ),
    "alrp": RankingFormula(
        latex=(
            r"L = \dfrac{1}{|P|} \sum_{i \in P} \left[\, \dfrac{F_i}{R_i + F_i} + "
            r"\lambda\, \dfrac{\sum_{k \in P,\, s_k \geq s_i}\; b_k}{R_i + F_i} \,\right] "
            r"\qquad " + _STEP_LATEX,
            _RANK_LATEX,
        ),
        text=(
            "L = 1/|P| sum_{i in P} { F_i / (R_i + F_i)"
            " + lambda [sum_{k in P, s_k >= s_i} b_k] / (R_i + F_i) }",
            _RANK_TEXT,
            _STEP_TEXT,
        ),
        symbols=f"{SYMBOLS}, b: box loss of a positive, λ: weight that balances the two parts; "
        "the gradient of the scores is the ranking error itself",
    ),
    "rank_sort": RankingFormula(
        latex=(
            r"L = \dfrac{1}{|P|} \sum_{i \in P} \left[\, \dfrac{F_i}{R_i + F_i} + "
            r"e_i(P) - e_i(\{j \in P: u_j \geq u_i\}) + \lambda\, b_i \,\right]",
            r"e_i(Q) = \dfrac{\sum_{j \in Q} H(s_j - s_i)\, (1 - u_j)}{\sum_{j \in Q} H(s_j - s_i)}"
            r" \qquad " + _STEP_LATEX,
            r"F_i = \sum_{j \in N} H(s_j - s_i) \qquad R_i = \sum_{j \in P} H(s_j - s_i)",
        ),
        text=(
            "L = 1/|P| sum_{i in P} { F_i / (R_i + F_i)"
            " + e_i(P) - e_i({j in P: u_j >= u_i}) + lambda b_i }",
            "e_i(Q) = [sum_{j in Q} H(s_j - s_i) (1 - u_j)] / [sum_{j in Q} H(s_j - s_i)]",
            "F_i = sum_{j in N} H(s_j - s_i)   R_i = sum_{j in P} H(s_j - s_i)",
            _STEP_TEXT,
        ),
        symbols=f"{SYMBOLS}, u: IoU with the target, b: box loss of a positive, weighted by its "
        "confidence, λ: weight that balances the two parts; the gradient of the scores is the "
        "ranking error itself",
    ),
}


def ranking_lines(branch: RankingBranch) -> list[str]:
    """The formula of a ranking loss as plain text, and what its symbols mean."""
    formula = FORMULAS[branch.loss]
    return [f"{NAMES[branch.loss]}: {formula.text[0]}", *formula.text[1:], formula.symbols]


def function_lines(branch: RankingBranch) -> list[str]:
    """PAP's functions, a line each: their control points, the ends included; none of another."""
    if branch.functions is None:
        return []
    lines = []
    for name, points in branch.functions.points.items():
        listed = " ".join(f"({x:.4g}, {y:.4g})" for x, y in points)
        lines.append(f"{name}: (0, 0) {listed} (1, 1)")
    return lines
