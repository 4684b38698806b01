// Golden signals: who calls whom, and how a service does over time (docs/observability.md).

import { get } from "./api.js";

const quoted = (text) => encodeURIComponent(text);

/** Everybody, and who calls whom, over `window`. */
export const topology = (window, signal) => get(`/v1/topology?window=${quoted(window)}`, signal);

/** One service over `window`. */
export const ofService = (namespace, name, window, signal) =>
  get(`/v1/topology/${quoted(namespace)}/${quoted(name)}?window=${quoted(window)}`, signal);

/** As things are: so long is short enough to see what begins, and long enough to count something. */
export const lately = (signal) => topology("30s", signal);
