// The one place that names the libraries for drawing.
export {
  createContext, h, html, render, useCallback, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState,
} from "../vendor/htm-preact.js";
