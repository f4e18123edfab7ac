// The plots of a candidate: data of the API -> traces and layout of plotly.

import { axis, color, faint, layout, points } from "./plot_style.js";

const DASHES = { simulate: "dot", proxy: "solid", confirm: "dash", test: "dashdot" };

export function curves(data, element) {
  const name = element.dataset.curve ?? data.names[0];
  const seen = new Set();
  const traces = [];
  const ordered = [...data.series].sort((a, b) => Number(b.baseline) - Number(a.baseline));
  for (const each of ordered) {
    const kind = `${each.baseline ? "baseline" : "candidate"}, ${each.stage}`;
    const line = {
      color: color(each.baseline ? "--base" : "--accent"),
      dash: DASHES[each.stage] ?? "solid",
      width: 1.5,
    };
    const common = { type: "scatter", name: kind, legendgroup: kind, line, opacity: 0.75 };
    const hover = `${kind}, seed ${each.seed}<br>step %{x}: %{y:.4g}<extra></extra>`;
    if (name) {
      traces.push({
        ...common,
        mode: "lines",
        x: each.x,
        y: each.curves[name] ?? [],
        showlegend: !seen.has(kind),
        hovertemplate: hover,
      });
    }
    const steps = Object.keys(each.rungs).map(Number).sort((a, b) => a - b);
    traces.push({
      ...common,
      mode: "lines+markers",
      x: steps,
      y: steps.map((step) => points(each.rungs[step])),
      marker: { size: 6 },
      xaxis: "x2",
      yaxis: "y2",
      showlegend: !name && !seen.has(kind),
      hovertemplate: hover,
    });
    seen.add(kind);
  }
  const narrow = element.clientWidth < 620;
  element.style.height = narrow ? "36rem" : "";
  const places = narrow ? [[0, 1], [0.6, 1], [0, 1], [0, 0.42]] : [[0, 0.46], [0, 1], [0.56, 1], [0, 1]];
  return [
    traces,
    layout({
      xaxis: axis("training step", { domain: places[0], anchor: "y", rangemode: "tozero" }),
      yaxis: axis(name ?? "", { domain: places[1], anchor: "x" }),
      xaxis2: axis("training step", { domain: places[2], anchor: "y2", rangemode: "tozero" }),
      yaxis2: axis("AP", { domain: places[3], anchor: "x2" }),
      ...(narrow ? { legend: { orientation: "h", y: -0.14, yanchor: "top", font: { size: 11 } } } : {}),
    }),
  ];
}

function quantile(rows, share) {
  const values = rows.flat().filter((value) => value !== null).sort((a, b) => a - b);
  return values.length ? values[Math.round(share * (values.length - 1))] : 0;
}

function diverging() {
  return [
    [0, color("--series-1")],
    [0.5, color("--low")],
    [1, color("--bad")],
  ];
}

// A row of two panels for each expression, the loss and its derivative; then PAP's functions.
export function surface(data, element) {
  const traces = [];
  const more = {};
  const annotations = [];
  const functions = Object.entries(data.functions);
  const narrow = element.clientWidth < 720;
  const across = narrow ? 1 : 2;
  const panels = data.surfaces.flatMap((each) => [
    [each, "value", `${each.branch}: loss`],
    [each, "gradient", `${each.branch}: d loss / d ${each.by}`],
  ]);
  const rows = Math.ceil(panels.length / across) + functions.length * (narrow ? 5 : 1);
  element.style.height = `${Math.max(1, rows) * 19}rem`;
  const domain = (row) => {
    const tall = 1 / rows;
    return [1 - (row + 1) * tall + 0.2 * tall, 1 - row * tall - 0.1 * tall];
  };
  const place = (id, left, right, row, title, x, y, extra = {}) => {
    const [low, high] = domain(row);
    const key = id === 1 ? "" : id;
    more[`xaxis${key}`] = axis(x, { domain: [left, right], anchor: `y${key}`, ...extra });
    more[`yaxis${key}`] = axis(y, { domain: [low, high], anchor: `x${key}`, ...extra });
    annotations.push({
      text: title,
      x: left,
      y: high,
      xref: "paper",
      yref: "paper",
      xanchor: "left",
      yanchor: "bottom",
      showarrow: false,
      font: { size: 12.5, color: color("--ink") },
    });
    return { xaxis: `x${key}`, yaxis: `y${key}` };
  };
  panels.forEach(([each, what, title], number) => {
    const row = Math.floor(number / across);
    const [left, right] = narrow ? [0, 0.84] : number % 2 ? [0.56, 0.93] : [0, 0.37];
    const [low, high] = domain(row);
    const rising = what === "value";
    let [least, most] = [quantile(each[what], 0.01), quantile(each[what], 0.99)];
    if (!rising) {
      // One that hardly varies is told by a middling colour, not by the loudest.
      const flat = most - least < 0.05 * Math.max(Math.abs(least), Math.abs(most));
      most = (flat ? 2.5 : 1) * Math.max(Math.abs(least), Math.abs(most)) || 1;
      least = -most;
    }
    const where = place(number + 1, left, right, row, title, each.x.name, each.y.name, {
      showgrid: false,
    });
    traces.push({
      ...where,
      type: "contour",
      x: each.x.values,
      y: each.y.values,
      z: each[what],
      zmin: least,
      zmax: most,
      zauto: false,
      autocontour: false,
      contours: { coloring: "heatmap", start: least, end: most, size: (most - least) / 12 || 1 },
      line: { width: 0.6, color: faint("--ink", 0.35) },
      colorscale: rising ? [[0, color("--low")], [1, color("--high")]] : diverging(),
      colorbar: {
        x: right + 0.01,
        y: (low + high) / 2,
        len: high - low,
        thickness: 10,
        outlinewidth: 0,
        tickfont: { size: 10 },
        nticks: 6,
      },
      hovertemplate: `${each.x.name} %{x:.2f}<br>${each.y.name} %{y:.2f}<br>%{z:.4g}<extra></extra>`,
    });
  });
  let id = panels.length;
  functions.forEach(([branch, own], block) => {
    Object.entries(own).forEach(([name, line], number) => {
      id += 1;
      const row = Math.ceil(panels.length / across) + block * (narrow ? 5 : 1) + (narrow ? number : 0);
      const [left, right] = narrow ? [0, 0.84] : [number * 0.205, number * 0.205 + 0.16];
      const where = place(id, left, right, row, `${branch} ${name}`, "", "", { range: [0, 1] });
      const both = { ...where, type: "scatter", showlegend: false };
      traces.push({ ...both, mode: "lines", x: [0, 1], y: [0, 1], line: { dash: "dot", color: color("--base"), width: 1 }, hoverinfo: "skip" });
      traces.push({ ...both, mode: "lines+markers", x: line.map((p) => p[0]), y: line.map((p) => p[1]), line: { color: color("--accent"), width: 2 } });
    });
  });
  return [traces, layout({ ...more, annotations, margin: { l: 48, r: 30, t: 14, b: 24 }, showlegend: false })];
}
