"""Pictures as SVG by matplotlib, without its global state of figures."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_settings = threading.Lock()  # matplotlib's are of the whole process


def drawn(draw: Callable[[Axes], None], wide: float, high: float) -> bytes:
    """A picture of one panel; `wide` and `high` are in inches."""
    return drawn_figure(lambda figure: draw(figure.add_subplot()), wide, high)


def drawn_figure(draw: Callable[[Figure], None], wide: float, high: float) -> bytes:
    """A picture of any panels."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    from search_server.report.style import RC

    given = {**RC, "svg.hashsalt": "lossforge", "figure.constrained_layout.use": True}
    with _settings, mpl.rc_context(given):
        figure = Figure(figsize=(wide, high))
        FigureCanvasSVG(figure)
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
