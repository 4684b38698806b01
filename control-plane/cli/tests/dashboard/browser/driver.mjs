// Drives one browser for the tests: a command a line on standard input, an answer a line on standard output.
//
// The browser is given no network but the one origin that is opened: every other request is refused, and told.

import fs from "node:fs";
import { createRequire } from "node:module";
import readline from "node:readline";

const [modules, chromium] = process.argv.slice(2);
const library = createRequire(`${modules}/`);
const playwright = library("playwright-core");
const axe = fs.readFileSync(library.resolve("axe-core/axe.min.js"), "utf8");

const browser = await playwright.chromium.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
});
let page = null;
let origin = "";
let seen = [];

const PATIENCE = 30000;

async function open({ url, theme = "light", width = 1280, height = 900, insecure = false }) {
  await page?.context().close();
  origin = new URL(url).origin;
  seen = [];
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, reducedMotion: "reduce", ignoreHTTPSErrors: insecure });
  await context.route("**/*", (route) => {
    const asked = route.request().url();
    if (asked.startsWith(`${origin}/`) || asked.startsWith("data:")) return route.continue();
    seen.push(`asked for ${asked}`);
    return route.abort();
  });
  page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("pageerror", (error) => seen.push(`threw ${error.stack ?? error}`));
  // That something was refused is told by the API, too; what the policy of the page forbids is told here alone.
  page.on("console", (said) => { if (said.type() === "error" && !/Failed to load resource/.test(said.text())) seen.push(`said ${said.text()}`); });
  await page.goto(url);
}

/** Waits for `holds(told())`, which is asked again until then. */
async function until(what, told, holds) {
  const end = Date.now() + PATIENCE;
  let last = "";
  do {
    last = await told().catch((error) => `(${error.message.split("\n")[0]})`);
    if (holds(last)) return last;
    await new Promise((done) => setTimeout(done, 100));
  } while (Date.now() < end);
  throw new Error(`${what}; there is:\n${last}`);
}

const place = (within) => (within ? page.getByRole("region", { name: within, exact: true }) : page.locator("body"));
const text = (within) => () => place(within).first().innerText();

const COMMANDS = {
  open,
  /** Goes to a page, as a link to it would. */
  go: ({ to }) => page.evaluate((hash) => { location.hash = hash; }, to),
  see: ({ text: wanted, within }) => until(`${JSON.stringify(wanted)} is not to be seen`, text(within), (all) => all.includes(wanted)),
  miss: ({ text: wanted, within }) => until(`${JSON.stringify(wanted)} is still to be seen`, text(within), (all) => !all.includes(wanted)),
  text: ({ within }) => text(within)(),
  click: ({ role = "button", name, within, exact = false }) => place(within).getByRole(role, { name, exact }).first().click(),
  fill: ({ label, value }) => page.getByLabel(label).first().fill(value),
  choose: ({ label, value }) => page.getByLabel(label).first().selectOption(value),
  press: async ({ keys }) => { for (const key of keys) await page.keyboard.press(key); },
  focused: () => page.evaluate(() => document.activeElement?.textContent?.trim() ?? ""),
  disabled: ({ name, within, exact = false }) => place(within).getByRole("button", { name, exact }).first().isDisabled(),
  evaluate: ({ code }) => page.evaluate(code),
  /** What the page keeps, anywhere. */
  kept: async () => page.evaluate(() => ({ url: location.href, local: { ...localStorage }, session: { ...sessionStorage }, cookies: document.cookie })),
  shot: ({ path, whole = true }) => page.screenshot({ path, fullPage: whole }),
  /** What axe-core finds wrong, and whether the page is wider than the window. */
  axe: async () => {
    const told = await page.evaluate(`${axe}; axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] })`);
    const found = told.violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)).join(" | ")}`);
    const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (wider > 0) found.push(`the page is ${wider} pixels wider than its window`);
    if (told.passes.length < 10) found.push(`only ${told.passes.length} rules looked at anything`);
    return found;
  },
  /** What the page did that it should not: errors, and requests to other places. */
  amiss: () => seen,
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { does, ...rest } = JSON.parse(line);
  let answer;
  try {
    answer = { told: (await COMMANDS[does](rest)) ?? null };
  } catch (error) {
    answer = { failed: `${does} ${JSON.stringify(rest)}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
