// Where one is: the part of the address behind #. It never leaves the browser, so no log has it.

import { useEffect, useState } from "./html.js";

/** `#/services/shop/cart?window=5m` as its parts and what stands behind the question mark. */
export function here() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { parts: path.split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query) };
}

export const link = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

export function useRoute() {
  const [route, set] = useState(here());
  useEffect(() => {
    const moved = () => set(here());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return route;
}
