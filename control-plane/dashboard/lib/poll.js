// State by asking again: every few seconds, not while the tab is hidden, and at once when somebody comes back to it.

import { useCallback, useEffect, useRef, useState } from "./html.js";

/**
 * Asks `load` now and every `every` milliseconds. Gives `data` (the last good answer), `error` (of the last try) and `again`,
 * which asks at once. `key` says what is asked for: another key is another question, and forgets the answer.
 */
export function usePoll(load, key, every = 3000) {
  const [state, set] = useState({ data: null, error: null, key });
  const ask = useRef(() => {});
  useEffect(() => {
    const ended = new AbortController();
    let timer = null;
    let running = false;
    const look = async () => {
      clearTimeout(timer);
      if (running || ended.signal.aborted) return;
      running = true;
      try {
        const data = await load(ended.signal);
        if (!ended.signal.aborted) set({ data, error: null, key });
      } catch (error) {
        if (!ended.signal.aborted) set((old) => ({ data: old.key === key ? old.data : null, error, key }));
      }
      running = false;
      if (!ended.signal.aborted && !document.hidden) timer = setTimeout(look, every);
    };
    const seen = () => (document.hidden ? clearTimeout(timer) : look());
    ask.current = look;
    document.addEventListener("visibilitychange", seen);
    look();
    return () => {
      ended.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [key, every]);
  const again = useCallback(() => ask.current(), []);
  return state.key === key ? { ...state, again } : { data: null, error: null, again };
}
