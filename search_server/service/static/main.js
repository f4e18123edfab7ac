// What all pages have: the theme's button, copying, questions before what cannot be undone, forms
// that show their answer in place, lists that keep themselves up to date.

const ORDER = ["auto", "light", "dark"];

function chosen() {
  return document.documentElement.dataset.theme ?? "auto";
}

function choose(theme) {
  if (theme === "auto") {
    delete document.documentElement.dataset.theme;
  } else {
    document.documentElement.dataset.theme = theme;
  }
  try {
    localStorage.setItem("lossforge-theme", theme);
  } catch {
    // it holds for this page, then
  }
  document.dispatchEvent(new CustomEvent("themechange"));
}

function themeButton() {
  const button = document.getElementById("theme");
  const word = button.querySelector("span");
  const say = () => {
    word.textContent = chosen();
  };
  button.hidden = false;
  say();
  button.addEventListener("click", () => {
    choose(ORDER[(ORDER.indexOf(chosen()) + 1) % ORDER.length]);
    say();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    document.dispatchEvent(new CustomEvent("themechange"));
  });
}

async function copy(button, text) {
  const before = button.dataset.word ?? button.textContent;
  button.dataset.word = before;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => {
    button.textContent = before;
  }, 1500);
}

async function copyFrom(button) {
  const answer = await fetch(button.dataset.copyFrom, { headers: { Accept: "application/json" } });
  if (answer.ok) {
    await copy(button, await answer.text());
    return;
  }
  const problem = await answer.json().catch(() => ({ detail: `status ${answer.status}` }));
  button.after(document.createTextNode(` ${problem.detail}`));
  button.disabled = true;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy], button[data-copy-from]");
  if (button?.dataset.copyFrom) {
    copyFrom(button);
  } else if (button) {
    copy(button, button.parentElement.querySelector("pre").textContent);
  }
});

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) {
    event.preventDefault();
  }
});

// The part of a page with this id, as the server has it at a URL now.
export async function part(url, ids, options = {}) {
  const answer = await fetch(url, { headers: { Accept: "text/html" }, ...options });
  const type = answer.headers.get("content-type") ?? "";
  if (!type.startsWith("text/html")) {
    throw new Error(`status ${answer.status}`);
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return ids.map((id) => page.getElementById(id));
}

// Filters and orders of a table, in place; the address says what is shown.
async function showBoard(form, url) {
  const id = form.dataset.instant;
  const [rows] = await part(url, [id]);
  if (rows) {
    document.getElementById(id).replaceChildren(...rows.childNodes);
    history.replaceState(null, "", url);
  }
}

function instantForms() {
  for (const form of document.querySelectorAll("form[data-instant]")) {
    form.addEventListener("change", () => {
      const query = new URLSearchParams();
      for (const [name, value] of new FormData(form)) {
        if (value) {
          query.append(name, value);
        }
      }
      const url = `${new URL(form.action).pathname}?${query}`;
      if (form.dataset.instant) {
        showBoard(form, url).catch(() => form.submit());
      } else {
        location.assign(url);
      }
    });
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("#board-rows thead a, #board-rows .actions a");
    const form = document.querySelector("form[data-instant='board-rows']");
    if (!link || !form || event.ctrlKey || event.metaKey || event.shiftKey) {
      return;
    }
    event.preventDefault();
    const url = new URL(link.href);
    form.elements.sort.value = url.searchParams.get("sort") ?? "standing";
    showBoard(form, url.pathname + url.search).catch(() => location.assign(link.href));
  });
}

// A list that is read again now and then while somebody looks.
function refresh() {
  const list = document.querySelector("[data-refresh]");
  if (!list) {
    return;
  }
  setInterval(async () => {
    const used = list.contains(document.activeElement) && document.activeElement.tagName === "A";
    if (document.hidden || used || !list.querySelector("[data-state='running'], [data-state='created'], [data-state='cancelling']")) {
      return;
    }
    const [fresh] = await part(location.href, [list.id]).catch(() => [null]);
    if (fresh) {
      list.replaceChildren(...fresh.childNodes);
    }
  }, 1000 * Number(list.dataset.refresh));
}

themeButton();
instantForms();
refresh();
