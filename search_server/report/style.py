"""Colours and fonts of a report, safe for colour-blind readers, and small typography."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

INK = "#1d2733"
MUTED = "#66717f"
RULE = "#d5dae0"
BEST = "#d55e00"
BASELINE = "#3c4650"

#: Colour and marker by origin (Okabe and Ito's palette), so that no panel depends on colour alone.
ORIGINS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "baseline": (BASELINE, "s"),
        "named": ("#0072b2", "D"),
        "random": ("#e69f00", "o"),
        "mutation": ("#009e73", "^"),
        "crossover": ("#cc79a7", "v"),
        "refined": ("#56b4e9", "P"),
        "tuned": ("#0072b2", "o"),
        "policy": ("#0072b2", "o"),
        "mean": (BEST, "*"),
    }
)
OTHER_ORIGIN = (MUTED, "P")

RC: Mapping[str, Any] = MappingProxyType(
    {
        "font.family": "DejaVu Sans",
        "font.size": 10.0,
        "mathtext.fontset": "stix",
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.labelsize": 9.5,
        "axes.linewidth": 0.8,
        "axes.titlesize": 11.0,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }
)


def origin_style(origin: str) -> tuple[str, str]:
    """Colour and marker of an origin."""
    return ORIGINS.get(origin, OTHER_ORIGIN)


def message(axes: Axes, text: str) -> None:
    """Says in words why a panel is empty."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.text(
        0.5, 0.5, text, ha="center", va="center", color=MUTED, wrap=True,
        transform=axes.transAxes, parse_math=False,
    )  # fmt: skip


def light_grid(axes: Axes, which: str = "y") -> None:
    """A quiet grid behind the data."""
    axes.grid(axis=which, color=RULE, linewidth=0.7)  # type: ignore[arg-type]


def fitting_size(text: str, width: float, size: float, smallest: float) -> float:
    """The largest font size up to ``size`` at which plain text is at most ``width`` points wide."""
    needed, _, _ = TextToPath().get_text_width_height_descent(
        text, FontProperties(size=size), False
    )
    return size if needed <= width else max(smallest, size * width / needed)


def shortened(text: str, limit: int) -> str:
    """One printable line of at most ``limit`` characters; the rest becomes visible escapes."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return line if len(line) <= limit else line[: limit - 1] + "…"
