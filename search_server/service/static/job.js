// A job while one watches: numbers at every event, tables and plots a few seconds apart.

import { part } from "./main.js";
import { redraw } from "./plots.js";

const FINAL = ["done", "failed", "cancelled"];
const APART = 5000;
const AGAIN = 10000;
const job = document.getElementById("job");
const link = document.getElementById("live-link");
let last = null;
let due = null;
let drawnAt = Date.now();

const points = (value) => (value === null ? "-" : (100 * value).toFixed(1));
const signed = (value) => (value < 0 ? "" : "+") + (100 * value).toFixed(1);

function span(seconds) {
  if (seconds === null) {
    return "-";
  }
  if (seconds < 60) {
    return `${Math.max(0, seconds).toFixed(0)} s`;
  }
  if (seconds < 5400) {
    return `${(seconds / 60).toFixed(0)} min`;
  }
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} d`;
}

function say(name, text) {
  const place = job.querySelector(`[data-live="${name}"]`);
  if (place && place.textContent !== text) {
    place.textContent = text;
  }
}

function show(told) {
  const known = told.best !== null && told.baseline !== null;
  let ended = 0;
  let running = 0;
  for (const states of Object.values(told.trials)) {
    for (const [state, count] of Object.entries(states)) {
      running += state === "running" ? count : 0;
      ended += state === "running" || state === "paused" ? 0 : count;
    }
  }
  say("best", points(told.best));
  say("baseline", points(told.baseline));
  say("gain", known ? signed(told.best - told.baseline) : "-");
  say("ended", ended.toLocaleString("en"));
  say("running", running.toLocaleString("en"));
  say("left", span(told.seconds_left));
  for (const [stage, count] of Object.entries(told.funnel)) {
    const place = job.querySelector(`[data-funnel="${CSS.escape(stage)}"]`);
    if (place) {
      place.textContent = count.toLocaleString("en");
    }
  }
}

// What is more than a number comes from the page itself.
async function renew() {
  due = null;
  drawnAt = Date.now();
  if (document.hidden) {
    return;
  }
  redraw();
  const ids = ["live-state", "live-reason", "live-note", "live-trials", "board-rows"];
  const fresh = await part(location.pathname + location.search, ids).catch(() => []);
  fresh.forEach((found, place) => {
    const here = document.getElementById(ids[place]);
    const ticked = here?.querySelector("input:checked");
    const used = here?.contains(document.activeElement);
    if (found && here && !ticked && !used) {
      here.replaceChildren(...found.childNodes);
      here.hidden = found.hidden;
    }
  });
}

function listen() {
  const source = new EventSource(job.dataset.events);
  source.addEventListener("open", () => {
    link.textContent = "live";
  });
  source.addEventListener("progress", (event) => {
    const told = JSON.parse(event.data);
    show(told);
    const news = last !== null && last !== event.data;
    last = event.data;
    if (news && due === null) {
      due = setTimeout(renew, Math.max(0, drawnAt + APART - Date.now()));
    }
    if (FINAL.includes(told.state)) {
      source.close();
      link.textContent = "";
      clearTimeout(due);
      if (job.dataset.state !== told.state) {
        location.reload(); // buttons, and what may be done now, are others
      }
    }
  });
  source.addEventListener("error", () => {
    link.textContent = "connecting again";
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(listen, AGAIN);
    }
  });
  addEventListener("pagehide", () => source.close(), { once: true });
}

if (!FINAL.includes(job.dataset.state)) {
  listen();
}
