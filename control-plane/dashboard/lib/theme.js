// Light or dark: what the system says, unless somebody chose here. theme.js does the same before anything is drawn.

import { useEffect, useState } from "./html.js";

const KEY = "outrigger.theme";
const asked = matchMedia("(prefers-color-scheme: dark)");
const heard = new Set();

export const chosen = () => document.documentElement.dataset.theme ?? "system";

export function choose(theme) {
  if (theme === "system") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem(KEY);
  } else {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem(KEY, theme);
  }
  for (const hear of heard) hear();
}

const now = () => (chosen() === "system" ? (asked.matches ? "dark" : "light") : chosen());

/** `light` or `dark`, for what is drawn on a canvas and takes no colours of a style sheet. */
export function useTheme() {
  const [theme, set] = useState(now());
  useEffect(() => {
    const hear = () => set(now());
    heard.add(hear);
    asked.addEventListener("change", hear);
    return () => {
      heard.delete(hear);
      asked.removeEventListener("change", hear);
    };
  }, []);
  return theme;
}
