// Runs before anything is drawn: the theme that was chosen last, so that nothing flashes.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("lossforge-theme");
  } catch {
    // no storage: the system's theme it is
  }
  if (chosen === "light" || chosen === "dark") {
    document.documentElement.dataset.theme = chosen;
  }
  document.documentElement.classList.add("js");
})();
