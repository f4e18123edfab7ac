// The verdict as one types: asked for a moment after the last key; an answer that was overtaken is
// dropped.

import { part } from "./main.js";

const PAUSE = 400;
const form = document.getElementById("verify-form");
const status = document.getElementById("verify-status");
const verdict = document.getElementById("verdict");
let timer = null;
let running = null;

async function ask() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const text = form.elements.expression.value;
  if (!text.trim()) {
    status.textContent = "";
    verdict.replaceChildren();
    return;
  }
  status.textContent = "verifying";
  try {
    const body = new URLSearchParams(new FormData(form));
    const [found, help] = await part("/verify", ["verdict", "expression-field"], {
      method: "POST",
      body,
      signal,
    });
    if (!found) {
      throw new Error("the answer is another page");
    }
    verdict.replaceChildren(...found.childNodes);
    complain(help?.querySelector(".field-error")?.textContent ?? "");
    status.textContent = "";
  } catch (error) {
    if (error.name !== "AbortError") {
      status.textContent = "not verified: the service did not answer; press Verify";
    }
  }
}

// The error beside the field, without touching the field that somebody types in.
function complain(text) {
  const field = form.elements.expression;
  const place = field.closest(".field");
  let note = place.querySelector(".field-error");
  if (!text) {
    note?.remove();
    place.classList.remove("wrong");
    field.removeAttribute("aria-invalid");
    return;
  }
  if (!note) {
    note = document.createElement("p");
    note.className = "field-error";
    note.id = "expression-error";
    field.after(note);
  }
  note.textContent = text;
  place.classList.add("wrong");
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", "expression-error expression-help");
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(ask, PAUSE);
}

form.elements.expression.addEventListener("input", soon);
form.elements.space.addEventListener("change", soon);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(timer);
  ask();
});
if (form.elements.expression.value.trim() && !verdict.querySelector("section")) {
  ask();
}
