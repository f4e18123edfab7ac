// Live plots by plotly, from the API's numbers, in the colours of the theme.

const FONT = getComputedStyle(document.body).fontFamily;
const CONFIG = { displayModeBar: false, responsive: true };
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
const DASHES = { simulate: "dot", proxy: "solid", confirm: "dash", test: "dashdot" };
const known = new Map(); // a plot's element -> its data
const points = (value) => (value === null ? null : 100 * value);

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function faint(name, share) {
  const hex = color(name).slice(1);
  const parts = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${parts.join(",")},${share})`;
}

function axis(title, more = {}) {
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

function layout(more) {
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

function progress(data) {
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
  const x = axis("candidate", { rangemode: "tozero" });
  return [traces, layout({ shapes, xaxis: x, yaxis: axis("proxy AP", { range: heights(all) }) })];
}

function front(data) {
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
  return [traces, layout({ xaxis: axis("nodes of its expressions", { rangemode: "tozero" }), yaxis: y })];
}

function funnel(data, element) {
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

function curves(data, element) {
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
function surface(data, element) {
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

const KINDS = { progress, front, funnel, curves, surface };

function empty(kind, data) {
  if (kind === "progress") {
    return data.dots.length || data.baseline ? "" : "Nothing was trained to the end yet.";
  }
  if (kind === "front") {
    return data.dots.length ? "" : "Nothing was trained to the end yet.";
  }
  if (kind === "funnel") {
    return Object.values(data.stages).some(Boolean) ? "" : "Nothing was drawn yet.";
  }
  if (kind === "curves") {
    return data.series.length ? "" : "There are no curves.";
  }
  return data.surfaces.length || Object.keys(data.functions).length ? "" : "There is nothing to draw.";
}

// Which of the curves is shown, where there are several.
function chooseCurve(element, data) {
  if (element.dataset.plot !== "curves" || data.names.length < 2 || element.dataset.ready) {
    return;
  }
  element.dataset.ready = "1";
  const label = document.createElement("label");
  label.className = "muted small";
  label.textContent = "curve ";
  const select = document.createElement("select");
  select.style.width = "auto";
  for (const name of data.names) {
    select.add(new Option(name, name));
  }
  label.append(select);
  element.before(label);
  select.addEventListener("change", () => {
    element.dataset.curve = select.value;
    draw(element);
  });
}

function draw(element) {
  const data = known.get(element);
  const kind = element.dataset.plot;
  const why = empty(kind, data);
  if (why) {
    window.Plotly.purge(element);
    element.textContent = why;
    element.classList.add("muted");
    element.style.height = "auto";
    element.removeAttribute("role");
    return;
  }
  if (!element.classList.contains("js-plotly-plot")) {
    element.replaceChildren();
    element.style.height = "";
    element.classList.remove("muted");
  }
  const [traces, form] = KINDS[kind](data, element);
  chooseCurve(element, data);
  window.Plotly.react(element, traces, form, CONFIG);
  if (!element.dataset.linked && element.on) {
    element.dataset.linked = "1";
    element.on("plotly_click", (event) => {
      const index = event.points[0]?.customdata;
      const page = document.querySelector("[data-page]")?.dataset.page;
      if (index !== undefined && page) {
        location.assign(`${page}/candidates/${index}`);
      }
    });
  }
}

// Where plotly did not load: the picture that browsers without scripts see.
function picture(element) {
  const source = element.dataset.source.replace("/api/v1", "");
  const image = new Image();
  image.className = "plot-image";
  image.alt = element.getAttribute("aria-label");
  image.src = `${source}.svg`;
  element.style.height = "auto";
  element.replaceChildren(image);
}

async function load(element) {
  if (!window.Plotly) {
    picture(element);
    return;
  }
  const answer = await fetch(element.dataset.source, { headers: { Accept: "application/json" } });
  if (!answer.ok) {
    if (!known.has(element)) {
      element.textContent = `This plot could not be read (status ${answer.status}).`;
    }
    return;
  }
  known.set(element, await answer.json());
  draw(element);
}

// Read all plots anew.
export function redraw() {
  for (const element of document.querySelectorAll("[data-plot]")) {
    load(element).catch(() => {});
  }
}

document.addEventListener("themechange", () => known.forEach((_, element) => draw(element)));
redraw();
