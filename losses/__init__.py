"""Torch modules for loss definitions, and where they go into an mmdet detector.

Importing this package makes mmdet importable without compiled mmcv (`losses.mmcv_ops`) and
registers the losses and heads in mmdet's ``MODELS``; import it before mmdet.
"""

# isort: off
import losses.mmcv_ops  # noqa: F401  before anything that imports mmdet

# isort: on
from losses.apply import apply_loss
from losses.branches import Branch, ExpressionBranch, StockBranch, space_role
from losses.catalog import CATALOG, load_definition
from losses.definition import BRANCHES, LossDefinition
from losses.errors import DefinitionError, LossesError, MissingOpError, UnsupportedHeadError
from losses.expression_losses import BoxExpressionLoss, SigmoidExpressionLoss, SoftmaxExpressionLoss
from losses.families import FAMILIES, Family, detector_family
from losses.head_factory import build_iou_aware_head
from losses.paths import configs_dir
from losses.ranking import PapFunctions, alrp_loss, ap_loss, pap_loss, rank_sort_loss
from losses.ranking_box_losses import ALRPRankingLoss, RankSortRankingLoss
from losses.ranking_branch import RANKING_LOSSES, RankingBranch
from losses.ranking_head_factory import build_ranking_head
from losses.ranking_losses import APRankingLoss, PAPRankingLoss

__all__ = [
    "BRANCHES",
    "CATALOG",
    "FAMILIES",
    "RANKING_LOSSES",
    "ALRPRankingLoss",
    "APRankingLoss",
    "BoxExpressionLoss",
    "Branch",
    "DefinitionError",
    "ExpressionBranch",
    "Family",
    "LossDefinition",
    "LossesError",
    "MissingOpError",
    "PAPRankingLoss",
    "PapFunctions",
    "RankSortRankingLoss",
    "RankingBranch",
    "SigmoidExpressionLoss",
    "SoftmaxExpressionLoss",
    "StockBranch",
    "UnsupportedHeadError",
    "alrp_loss",
    "ap_loss",
    "apply_loss",
    "build_iou_aware_head",
    "build_ranking_head",
    "configs_dir",
    "detector_family",
    "load_definition",
    "pap_loss",
    "rank_sort_loss",
    "space_role",
]
