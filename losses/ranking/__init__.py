"""Ranking losses over all positives and negatives: AP, aLRP, parameterized AP and RankSort loss.

Pure functions of tensors, in O((N + P) log N) time and O(N + P) memory for N logits and P
positives.
"""

from losses.ranking.alrp import alrp_loss
from losses.ranking.ap import ap_loss
from losses.ranking.functions import FUNCTIONS, PapFunctions, gradient_scale, identity_theta
from losses.ranking.pap import pap_loss
from losses.ranking.rank_sort import rank_sort_loss

__all__ = [
    "FUNCTIONS",
    "PapFunctions",
    "alrp_loss",
    "ap_loss",
    "gradient_scale",
    "identity_theta",
    "pap_loss",
    "rank_sort_loss",
]
