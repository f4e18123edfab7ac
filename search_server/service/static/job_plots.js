// The plots of a job: data of the API -> traces and layout of plotly.

import { axis, color, faint, layout, points } from "./plot_style.js";

const MARKS = {
  named: ["--series-1", "diamond"],
  random: ["--series-4", "circle"],
  mutation: ["--series-2", "triangle-up"],
  crossover: ["--series-3", "triangle-down"],
  refined: ["--series-5", "cross"],
  tuned: ["--series-1", "circle"],
  policy: ["--series-1", "circle"],
  mean: ["--accent", "star"],
  rival: ["--muted", "x"],
};

// Candidates as marks, an origin each, so that the legend tells them apart.
function dots(data, x) {
  const origins = [...new Set(data.map((dot) => dot.origin))];
  return origins.map((origin) => {
    const own = data.filter((dot) => dot.origin === origin);
    const [name, symbol] = MARKS[origin] ?? ["--muted", "circle"];
    return {
      type: "scatter",
      mode: "markers",
      name: origin,
      x: own.map((dot) => dot[x]),
      y: own.map((dot) => points(dot.fitness)),
      customdata: own.map((dot) => dot.candidate),
      marker: { color: color(name), symbol, size: 7, opacity: 0.8 },
      hovertemplate: `candidate %{customdata}, ${origin}<br>AP %{y:.1f}<extra></extra>`,
    };
  });
}

// Failures have AP 0 and would press all others into a stripe: what is far below is cut off.
function heights(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  if (!sorted.length) {
    return undefined;
  }
  const quarter = sorted[Math.floor(sorted.length / 4)];
  const most = sorted[sorted.length - 1];
  const least = Math.max(sorted[0], quarter - 2.5 * (most - quarter) - 2);
  const room = 0.06 * (most - least) + 0.3;
  return [Math.max(-1, least - room), most + room];
}

// Whole marks at both ends of an axis that begins at 0.
function along(most) {
  return [-0.02 * most - 0.3, 1.03 * most + 0.3];
}

export function progress(data) {
  const traces = dots(data.dots, "candidate");
  const shapes = [];
  const last = Math.max(1, ...data.dots.map((dot) => dot.candidate));
  const all = data.dots.map((dot) => points(dot.fitness));
  if (data.baseline) {
    const { mean, deviation } = data.baseline;
    const middle = points(mean);
    const half = points(deviation ?? 0);
    all.push(middle - half, middle + half);
    shapes.push({
      type: "rect",
      xref: "paper",
      x0: 0,
      x1: 1,
      y0: middle - half,
      y1: middle + half,
      fillcolor: faint("--base", 0.14),
      line: { width: 0 },
      layer: "below",
    });
    traces.push({
      type: "scatter",
      mode: "lines",
      name: deviation === null ? "baseline" : "baseline ± sd",
      x: [0, last],
      y: [middle, middle],
      line: { color: color("--base"), dash: "dash", width: 1.5 },
      hovertemplate: `baseline ${middle.toFixed(1)}${half ? ` ± ${half.toFixed(1)}` : ""}<extra></extra>`,
    });
  }
  if (data.best.length) {
    const x = data.best.map((dot) => dot.candidate);
    const y = data.best.map((dot) => points(dot.fitness));
    traces.push({
      type: "scatter",
      mode: "lines",
      name: "best so far",
      x: [...x, last],
      y: [...y, y[y.length - 1]],
      line: { color: color("--accent"), width: 2.5, shape: "hv" },
      hovertemplate: "best so far %{y:.1f}<extra></extra>",
    });
  }
  const x = axis("candidate", { range: along(last) });
  return [traces, layout({ shapes, xaxis: x, yaxis: axis("proxy AP", { range: heights(all) }) })];
}

export function front(data) {
  const traces = dots(data.dots, "size");
  const largest = Math.max(1, ...data.dots.map((dot) => dot.size));
  if (data.front.length) {
    const y = data.front.map((dot) => points(dot.fitness));
    traces.push({
      type: "scatter",
      mode: "lines",
      name: "front",
      x: [...data.front.map((dot) => dot.size), largest],
      y: [...y, y[y.length - 1]],
      line: { color: color("--accent"), width: 2.5, shape: "hv" },
      hoverinfo: "skip",
    });
  }
  const rings = data.confirmed.filter((dot) => dot.fitness !== null);
  if (rings.length) {
    traces.push({
      type: "scatter",
      mode: "markers",
      name: "confirmed",
      x: rings.map((dot) => dot.size),
      y: rings.map((dot) => points(dot.fitness)),
      customdata: rings.map((dot) => dot.candidate),
      text: rings.map((dot) => `${dot.gain < 0 ? "" : "+"}${points(dot.gain).toFixed(1)}`),
      marker: { color: color("--ink"), symbol: "circle-open", size: 13, line: { width: 1.5 } },
      hovertemplate: "candidate %{customdata}<br>%{text} AP on confirm<extra></extra>",
    });
  }
  const y = axis("proxy AP", { range: heights(data.dots.map((dot) => points(dot.fitness))) });
  const x = axis("nodes of its expressions", { range: along(largest) });
  return [traces, layout({ xaxis: x, yaxis: y })];
}

export function funnel(data, element) {
  const names = Object.keys(data.stages);
  const counts = Object.values(data.stages);
  const most = Math.max(1, ...counts);
  const why = Object.entries(data.rejections)
    .slice(0, 8)
    .map(([reason, count]) => `${reason}: ${count.toLocaleString("en")}`)
    .join("<br>");
  const traces = [
    {
      type: "bar",
      orientation: "h",
      y: names,
      x: counts.map((count) => Math.max(count, 0.5)),
      text: counts.map((count) => count.toLocaleString("en")),
      textposition: "outside",
      textfont: { color: color("--ink") },
      cliponaxis: false,
      marker: { color: color("--accent"), opacity: 0.85 },
      hovertext: names.map((name) => (name === "drawn" && why ? `rejected:<br>${why}` : "")),
      hovertemplate: "%{y}: %{text}<br>%{hovertext}<extra></extra>",
    },
  ];
  const x = axis("candidates (logarithmic)", {
    type: "log",
    range: [Math.log10(0.5), Math.log10(most * (element.clientWidth < 420 ? 60 : 6))],
    dtick: 1,
  });
  const y = axis("", { autorange: "reversed", showgrid: false, ticklabelstandoff: 6 });
  return [traces, layout({ xaxis: x, yaxis: y, bargap: 0.3, showlegend: false })];
}
