// Before anything is drawn: whether somebody chose light or dark here. Nothing chosen means what the system says.
"use strict";
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("outrigger.theme");
  } catch {
    // A browser that keeps nothing shows what the system says.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
