// How plots look: the theme's colours, axes, margins.

const FONT = getComputedStyle(document.body).fontFamily;

export const points = (value) => (value === null ? null : 100 * value);

export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export function faint(name, share) {
  const hex = color(name).slice(1);
  const parts = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${parts.join(",")},${share})`;
}

export function axis(title, more = {}) {
  return {
    title: { text: title, standoff: 8, font: { size: 12 } },
    gridcolor: color("--rule"),
    linecolor: color("--edge"),
    zeroline: false,
    tickfont: { size: 11 },
    automargin: true,
    ...more,
  };
}

export function layout(more) {
  return {
    font: { family: FONT, color: color("--muted"), size: 12 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 48, r: 12, t: 8, b: 40 },
    hoverlabel: {
      bgcolor: color("--sheet"),
      bordercolor: color("--edge"),
      font: { family: FONT, color: color("--ink") },
    },
    legend: { orientation: "h", y: -0.24, yanchor: "top", x: 0, font: { size: 11 } },
    hovermode: "closest",
    ...more,
  };
}
