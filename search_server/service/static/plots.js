// Live plots by plotly, from the API's numbers, in the colours of the theme.

import { curves, surface } from "./candidate_plots.js";
import { front, funnel, progress } from "./job_plots.js";

const CONFIG = { displayModeBar: false, responsive: true };
const known = new Map(); // a plot's element -> its data

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
