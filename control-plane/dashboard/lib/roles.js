// What a role may, to show a button as disabled with why. The API decides; this only spares people a refusal.

import { createContext, useContext } from "./html.js";

const RANK = ["viewer", "editor", "operator", "admin"];

/** Who looks, as `/v1/whoami` told it. */
export const Who = createContext(null);

const reaches = (who, role) => RANK.indexOf(who?.role) >= RANK.indexOf(role);

/** Why `who` may not change objects of `namespace`; null when he may. */
export function notWriter(who, namespace) {
  if (!reaches(who, "editor")) return `This needs the role editor of ${namespace}; yours is ${who?.role}.`;
  if (namespace === "outrigger" && !reaches(who, "operator")) return "What is in outrigger needs the role operator.";
  if (who.namespaces && !who.namespaces.includes(namespace)) {
    return `Your role editor is for ${who.namespaces.join(", ")}, not for ${namespace}.`;
  }
  return null;
}

/** Why `who` may not do what takes this role; null when he may. */
export const notRole = (who, role) => (reaches(who, role) ? null : `This needs the role ${role}; yours is ${who?.role}.`);

export const useWho = () => useContext(Who);
