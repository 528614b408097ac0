// Drives Chromium for tests/page.rs: run.mjs STORY URL PID [FLEET]. Prints what it measured; the first thing that is not as promised ends it.

import { createRequire } from "node:module";
import { mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import assert from "node:assert/strict";

const [story, base, pid, fleetName] = process.argv.slice(2);
/** The name of another fleet of the story: with the mark of its own, which is of this run alone. */
const own = (name) => name + fleetName.slice(fleetName.indexOf("-"));
const modules = process.env.PAGE_TESTS;
const require = createRequire(path.join(modules, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const shots = path.join(modules, "shots");
mkdirSync(shots, { recursive: true });

const DESKTOP = { width: 1280, height: 800 };
/** A small phone, a phone, a tablet, a laptop, a large screen. */
const SIZES = [["320", { width: 320, height: 640 }], ["phone", { width: 390, height: 844 }], ["768", { width: 768, height: 1024 }], ["desktop", DESKTOP], ["1920", { width: 1920, height: 1080 }]];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const errors = [];

/** A page that fails the story where the console has an error, or anything is loaded from elsewhere. */
async function open(where, { viewport = DESKTOP, colorScheme = "light", expect = 200, context, ...more } = {}) {
  context ??= await browser.newContext({ viewport, colorScheme, ...more });
  const page = await context.newPage();
  page.setDefaultTimeout(60000);
  page.on("console", (message) => { if (message.type() === "error" && !page.tolerant) errors.push(`${where}: ${message.text()}`); });
  page.on("pageerror", (error) => errors.push(`${where}: ${error}`));
  page.on("request", (request) => { if (!page.guarded && !request.url().startsWith(base)) errors.push(`${where} asks for ${request.url()}`); });
  page.tolerant = expect !== 200;
  const answer = await page.goto(base + where);
  assert.equal(answer.status(), expect, where);
  return page;
}

async function isAccessible(page, what) {
  // Injected through the debugger: the page's own policy admits no script that it does not serve.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const grave = violations.filter((v) => v.impact !== "minor");
  assert.deepEqual(grave.map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 160)).join(" | ")}`), [], `axe: ${what}`);
}

async function fits(page, what) {
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(content <= window, `${what} is ${content} wide in a window of ${window}`);
  // Nothing is cut or drawn over its neighbour: what is wider than its place scrolls there, or breaks.
  const cut = await page.evaluate(() => {
    const kept = (element) => element.closest(".scroll, pre, .unseen, .skip, .filter label, .u-over, .u-under, thead, svg, canvas, .uplot");
    const wide = [...document.querySelectorAll("body *")].filter((element) => {
      if (kept(element) || element.getClientRects().length === 0) return false;
      const box = element.getBoundingClientRect();
      return box.right > innerWidth + 1 || box.left < -1 || (getComputedStyle(element).display !== "inline" && element.clientWidth > 0 && element.scrollWidth > element.clientWidth + 1);
    });
    return wide.slice(0, 5).map((element) => `${element.outerHTML.slice(0, 140)} (${element.scrollWidth} in ${element.clientWidth})`);
  });
  assert.deepEqual(cut, [], what);
}

/** Looks at a page in every width, light and dark. */
async function look(where, name, { expect = 200, ready } = {}) {
  const page = await open(where, { expect });
  if (ready) await ready(page);
  for (const [size, viewport] of SIZES) {
    await page.setViewportSize(viewport);
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await isAccessible(page, `${name}, ${size}, ${colorScheme}`);
      await fits(page, `${name}, ${size}`);
      await page.screenshot({ path: path.join(shots, `${name}-${size}-${colorScheme}.png`), fullPage: true });
    }
  }
  await page.context().close();
}

const live = (page) => page.locator("#updated.live").waitFor();
const drawn = async (page) => { await live(page); await page.locator(".plot canvas").first().waitFor(); };
const post = async (lines) => assert.equal((await fetch(`${base}/api/v1/metrics`, { method: "POST", headers: { "content-type": "application/x-ndjson" }, body: lines })).status, 200);
/** How many wait: told twice a second, as a producer does. */
let depth = 38;
function produce() {
  const sample = () => post(`{"target":"local/ProcessFleet/${fleetName}","metric":"queue_depth","kind":"Gauge","value":${depth}}\n`).catch(() => {});
  return setInterval(sample, 500);
}

const SLEEPERS = `/targets/local/ProcessFleet/${fleetName}`;

const stories = {
  async fleet() {
    const producer = produce();
    await look("/", "fleet", { ready: live });
    const opened = async (page) => { await drawn(page); await page.locator("details.decision").first().locator("summary").click(); };
    await look(SLEEPERS, "target", { ready: opened });
    await look(`/targets/local/ProcessFleet/${own("unfed")}`, "blind", { ready: drawn });
    await look(`/targets/local/ProcessFleet/${own("missing")}`, "missing", { ready: live });
    const missing = await open(`/targets/local/ProcessFleet/${own("missing")}`);
    await live(missing);
    assert.match(await missing.locator("#no-charts").innerText(), /never been seen/);
    assert.equal(await missing.locator(".plot canvas").count(), 0, "no empty chart is drawn");
    await look("/?show=bogus", "bogus", { expect: 400 });
    await look(`/targets/shop/ProcessFleet/${own("frozen")}`, "frozen", { ready: live });
    await look(`${SLEEPERS}/signals`, "signals");
    await look("/targets/local/ProcessFleet/sleeper", "unknown", { expect: 404 });

    // Every row says what it does, and what a person should know.
    const fleet = await open("/");
    await live(fleet);
    const row = (name) => fleet.locator(`tr[id="row:${name}"]`);
    assert.match(await row(`shop/ProcessFleet/${own("frozen")}`).innerText(), /^[^]*frozen[^]*Frozen by .*freeze\.shop/);
    assert.match(await row(`local/ProcessFleet/${own("unfed")}`).innerText(), /blind[^]*queue_depth has no data/);
    assert.match(await row(`local/ProcessFleet/${own("missing")}`).innerText(), /TargetNotSeen/);
    assert.match(await row(`local/ProcessFleet/${fleetName}`).innerText(), /queue_depth/);
    await Promise.all([fleet.waitForURL("**/?show=attention"), fleet.getByRole("link", { name: "Attention" }).click()]);
    await live(fleet);
    assert.equal(await row(`local/ProcessFleet/${fleetName}`).count(), 0, "what is well needs no attention");
    assert.equal(await fleet.locator("#rows tr").count(), 3);

    // It stays up to date by itself, and what is open stays open.
    const target = await open(SLEEPERS);
    await drawn(target);
    const newest = target.locator("details.decision").first();
    await newest.locator("summary").click();
    const id = await newest.getAttribute("id");
    await target.evaluate(() => { window.sameDocument = true; });
    depth = 58;
    await target.waitForFunction(() => document.querySelector("#now .big").textContent === "6");
    await target.waitForFunction((id) => document.querySelector("details.decision").id !== id, id);
    assert.equal(await target.evaluate(() => window.sameDocument), true, "it was not loaded again");
    assert.equal(await target.locator(`#${id}`).evaluate((d) => d.open), true, "what was open stays open");
    assert.match(await target.locator(`#${id} .waterfall tr.bound`).innerText(), /bound/);
    await target.waitForFunction(() => document.querySelector('[data-chart="replicas"] .u-legend').innerText.includes("6"));
    const said = await target.locator('[data-chart="queue_depth"] .u-legend').innerText();
    assert.match(said, /value[^]*\d[^]*target[^]*10/, "the chart's legend has values");

    // What is selected stays so until it no longer is; then what came meanwhile is there.
    await target.evaluate(() => getSelection().selectAllChildren(document.querySelector("#now .measures")));
    const selected = await target.evaluate(() => getSelection().toString());
    const measured = await target.evaluate(() => document.querySelector("#now .measures").textContent);
    assert.match(selected, /queue_depth/);
    depth = 48;
    await target.waitForFunction(() => /^selected, as of \d\d:\d\d:\d\d UTC$/.test(document.querySelector("#updated").innerText));
    assert.equal(await target.evaluate(() => getSelection().toString()), selected);
    await target.evaluate(() => getSelection().removeAllRanges());
    await live(target);
    await target.waitForFunction((was) => document.querySelector("#now .measures").textContent !== was, measured);
    depth = 58;

    // The keyboard alone: skip link, filter, a target, a chart, a decision.
    const keys = await open("/");
    await live(keys);
    await keys.keyboard.press("Tab");
    assert.equal(await keys.evaluate(() => document.activeElement.className), "skip");
    await keys.keyboard.press("/");
    await keys.keyboard.type(fleetName);
    await keys.waitForFunction(() => document.querySelectorAll("#rows tr").length === 1);
    assert.equal(await keys.evaluate(() => document.activeElement.id), "filter", "the filter keeps the focus");
    await live(keys);
    const tabTo = async (page, there) => {
      for (let i = 0; i < 60; i++) {
        await page.keyboard.press("Tab");
        if (await page.evaluate(there)) return;
      }
      assert.fail(`the keyboard does not reach ${there}`);
    };
    await tabTo(keys, () => document.activeElement.closest("#rows") !== null);
    const outline = await keys.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(outline, "solid", "what has the focus is seen to have it");
    await keys.keyboard.press("Enter");
    await keys.waitForURL(`**${SLEEPERS}`);
    await drawn(keys);
    await tabTo(keys, () => document.activeElement.classList.contains("plot"));
    const before = await keys.locator('[data-chart="replicas"] .u-legend .u-value').first().innerText();
    await keys.keyboard.press("Home");
    await keys.waitForFunction((before) => document.querySelector('[data-chart="replicas"] .u-legend .u-value').innerText !== before, before);
    await tabTo(keys, () => document.activeElement.closest(".decision > summary") !== null);
    await keys.keyboard.press("Enter");
    assert.equal(await keys.evaluate(() => document.activeElement.parentElement.open), true);

    // Amounts read as the server writes them.
    const amounts = [[0.84, "Ratio", "84 %"], [12.5, "Ratio", "1,250 %"], [0.32, "Seconds", "320 ms"], [0, "Seconds", "0 s"], [1.25, "Seconds", "1.25 s"], [536870912, "Bytes", "512 MiB"], [1023, "Bytes", "1,023 B"], [0.84, "Cores", "0.84 cores"], [1, "Cores", "1 core"], [1240, "Count", "1,240"], [-1234567.8916, "Count", "-1,234,567.892"], [1e-9, "Count", "1.0e-9"]];
    for (const [value, unit, words] of amounts) assert.equal(await keys.evaluate(([v, u]) => window.loadline.amount(v, u), [value, unit]), words);

    // A script or style in the markup does nothing.
    const guarded = await open("/");
    // What is put into it is refused, aloud; nothing of that is the page's.
    guarded.tolerant = guarded.guarded = true;
    const stopped = await guarded.evaluate(async () => {
      const heard = [];
      document.addEventListener("securitypolicyviolation", (event) => heard.push(event.effectiveDirective));
      const script = document.createElement("script");
      script.textContent = "window.injected = true";
      const style = document.createElement("style");
      style.textContent = "body { color: red }";
      const image = document.createElement("img");
      image.src = "https://example.com/x.png";
      document.body.append(script, style, image);
      while (heard.length < 3) await new Promise((next) => setTimeout(next, 20));
      return [window.injected ?? null, heard.map((h) => h.split("-")[0]).sort()];
    });
    assert.deepEqual(stopped, [null, ["img", "script", "style"]]);
    for (const where of ["/", SLEEPERS, "/assets/page.js", "/api/v1/status", "/nothing"]) {
      const { headers } = await fetch(base + where);
      assert.match(headers.get("content-security-policy"), /default-src 'none'.*frame-ancestors 'none'/, where);
      assert.ok(!/unsafe|\*|https?:/.test(headers.get("content-security-policy")), where);
      assert.deepEqual([headers.get("x-content-type-options"), headers.get("x-frame-options")], ["nosniff", "DENY"], where);
    }
    const crossing = await fetch(`${base}/api/v1/targets/local/ProcessFleet/${fleetName}/scale`, { method: "POST", headers: { "sec-fetch-site": "cross-site" }, body: '{"replicas":1,"actor":"x"}' });
    assert.equal(crossing.status, 403, "another site's page scales nothing");

    // Without a script the page is whole, as of when it was made.
    const plain = await open(SLEEPERS, { javaScriptEnabled: false });
    assert.match(await plain.locator("#updated").innerText(), /^as of \d\d:\d\d:\d\d$/);
    await plain.locator("#figures > summary").click();
    assert.ok((await plain.locator("#figures tbody tr").count()) > 3, "the charts' figures are a table");
    await plain.locator("details.decision > summary").first().click();
    assert.ok(await plain.locator(".waterfall").first().isVisible());
    await plain.goto(`${base}/?filter=${own("unfed")}`);
    assert.equal(await plain.locator("#rows tr").count(), 1);

    // What is no longer so is told, where the process stands still; and that it goes on.
    for (const page of [fleet, target, keys, guarded]) page.tolerant = true;
    clearInterval(producer);
    process.kill(Number(pid), "SIGSTOP");
    await target.locator("#lost:not([hidden])").waitFor();
    assert.match(await target.locator("#lost").innerText(), /Connection lost: what is shown is from \d\d:\d\d:\d\d UTC/);
    assert.match(await target.locator("#updated").innerText(), /^not live, as of/);
    await isAccessible(target, "lost");
    await target.screenshot({ path: path.join(shots, "lost-desktop-light.png") });
    process.kill(Number(pid), "SIGCONT");
    await live(target);
    await target.locator("#lost").waitFor({ state: "hidden" });
  },

  async long() {
    const name = "checkout-payment-settlement-reconciliation-and-notification-workers-of-the-european-region-blue";
    const [page, dark] = [name, name.replace("blue", "dark")].map((n) => `/targets/local/ProcessFleet/${n}`);
    await look("/", "long-fleet", { ready: live });
    const opened = async (at) => { await drawn(at); await at.evaluate(() => document.querySelectorAll("details").forEach((d) => { d.open = true; })); };
    await look(page, "long-target", { ready: opened });
    await look(dark, "long-reason", { ready: opened });
    await look(`${page}/signals`, "long-signals");

    const target = await open(page);
    await drawn(target);
    const row = (metric) => target.locator("#now .measures tr", { hasText: metric }).first();
    assert.match(await row("http_requests").innerText(), /\d\/s\s+100\/s/, "a rate says that it is one");
    assert.match(await row("response_time").innerText(), /450 ms\s+above 300 ms[^]*it has to stay so until (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d UTC/, "which limit, and what is waited for");
    const flags = await target.locator("#now .flags").innerText();
    assert.match(flags, /backlog_of_a_partner_that_seldom_tells: the other metrics decide without it/);
    assert.match(flags, /errors_that_are_only_looked_at: observed only/);
    assert.doesNotMatch(flags, /nothing is removed/);
    const axis = await target.evaluate(() => window.loadline.ticks("resident_memory_of_the_settlement_workers_bytes"));
    assert.ok(axis.length > 1 && axis.every((label) => /^(0 B|\d+ (B|KiB|MiB|GiB))$/.test(label)), `whole steps of bytes: ${axis}`);
    const fleet = await open("/");
    await live(fleet);
    assert.match(await fleet.locator('tr[id="row:local/ProcessFleet/advised"] .does').innerText(), /advises/);

    // On a phone the steps of a decision have their bars.
    const phone = await open(page, { viewport: { width: 390, height: 844 } });
    await drawn(phone);
    await phone.locator("details.decision > summary").first().click();
    assert.ok(await phone.locator(".waterfall .bar-of-step").first().isVisible());
    const bar = await phone.locator(".waterfall .bar-of-step").first().boundingBox();
    assert.ok(bar.width > 200 && bar.height >= 6, `a bar of ${bar.width} × ${bar.height}`);
  },

  async end() {
    const [target, fleet] = [await open(SLEEPERS), await open("/")];
    await drawn(target);
    await live(fleet);
    target.tolerant = fleet.tolerant = true;
    // tests/page.rs ends the server, and starts another on the same port.
    console.log("ask: end");
    for (const page of [target, fleet]) {
      await page.locator("#lost:not([hidden])").waitFor();
      assert.match(await page.locator("#lost").innerText(), /^Connection lost: what is shown is from \d\d:\d\d:\d\d UTC\. Trying again\.$/);
      assert.match(await page.locator("#updated").innerText(), /^not live, as of/);
    }
    // What is chosen meanwhile is asked for when it can be.
    const tried = fleet.waitForEvent("requestfailed", (request) => request.url().includes("filter="));
    await fleet.locator("#filter").fill("no-such-name");
    await tried;
    console.log("ask: return");
    for (const page of [target, fleet]) {
      await page.locator("#updated.live").waitFor();
      await page.locator("#lost").waitFor({ state: "hidden" });
    }
    await fleet.waitForFunction(() => document.querySelector("#rows").innerText.includes("No target here is named like"));
    assert.equal(new URL(fleet.url()).search, "?filter=no-such-name");
    assert.equal(await target.locator(".plot canvas").count() > 0, true);
  },

  async tabs() {
    // More windows than the browser has connections to a server: all load, and all are told what changes.
    const producer = produce();
    const context = await browser.newContext({ viewport: DESKTOP });
    const pages = [];
    for (let i = 0; i < 8; i++) {
      const page = await open(i % 2 ? SLEEPERS : "/", { context });
      page.streams = new Set();
      const of = (request) => request.url().includes("/live");
      page.on("request", (request) => { if (of(request)) page.streams.add(request); });
      for (const ended of ["requestfinished", "requestfailed"]) page.on(ended, (request) => page.streams.delete(request));
      await live(page);
      pages.push(page);
    }
    const later = async (page) => {
      const was = await page.locator("#updated").innerText();
      await page.waitForFunction((was) => document.querySelector("#updated.live") && document.querySelector("#updated").innerText !== was, was);
    };
    await Promise.all(pages.map(later));
    assert.equal(await pages.at(-1).locator(".plot canvas").first().isVisible(), true, "the last one has its charts");
    await pages.at(-2).locator("#filter").fill("no-such-name");
    await pages.at(-2).waitForFunction(() => document.querySelector("#rows").innerText.includes("No target here is named like"));
    await later(pages.at(-2));
    assert.deepEqual(await Promise.all(pages.map((page) => page.locator("#lost").isVisible())), pages.map(() => false));

    // What nobody sees takes no connection; seen again, it is fresh.
    const see = (page, hidden) => page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
    const target = pages[1];
    await see(target, true);
    while (target.streams.size > 0) await target.waitForEvent("requestfailed");
    assert.match(await target.locator("#updated").innerText(), /^as of \d\d:\d\d:\d\d UTC$/, "it does not say that it is live");
    depth = 58;
    const replicas = () => document.querySelector("#now .big").textContent === "6";
    await pages[3].waitForFunction(replicas);
    assert.equal(await target.evaluate(replicas), false);
    await see(target, false);
    await live(target);
    await target.waitForFunction(replicas);

    // Where the server refuses a stream, the page says so and why.
    const refused = await browser.newContext({ viewport: DESKTOP });
    const problem = { title: "64 pages follow already", mend: "close some; reload to see what is new", status: 503 };
    await refused.route("**/live", (route) => route.fulfill({ status: 503, contentType: "application/problem+json", body: JSON.stringify(problem) }));
    const page = await open("/", { context: refused });
    page.tolerant = true;
    await page.locator("#lost:not([hidden])").waitFor();
    assert.match(await page.locator("#lost").innerText(), /^Not live: 64 pages follow already; close some[^]*What is shown is from \d\d:\d\d:\d\d UTC\. Trying again\./);
    await isAccessible(page, "refused");
    errors.splice(0, errors.length, ...errors.filter((error) => !error.includes("503")));
    await refused.unroute("**/live");
    await live(page);

    // Nor is anything else waited for without an end: it is told until it is answered, and all else goes on.
    await refused.route("**/?filter=*", () => {});
    await page.locator("#filter").fill("no-such-name");
    const told = page.getByText("No answer for the filter. Asking again.");
    await told.waitFor();
    await later(page);
    assert.equal(await told.isVisible(), true, "it is told no more, and not answered");
    await refused.unroute("**/?filter=*");
    await told.waitFor({ state: "hidden" });
    await page.waitForFunction(() => document.querySelector("#rows").innerText.includes("No target here is named like"));
    clearInterval(producer);
  },

  async empty() {
    await look("/", "empty", { ready: live });
    const page = await open("/");
    assert.match(await page.locator("#rows").innerText(), /No target yet[^]*kind: ScalingPolicy/);
  },

  async thousand() {
    const html = Buffer.byteLength(await (await fetch(base)).text());
    assert.ok(html < 150000, `${html} bytes of a page`);
    const page = await open("/");
    await live(page);
    assert.equal(await page.locator("#rows tr").count(), 50);
    assert.match(await page.locator("#tabs").innerText(), /All 1000/);
    await Promise.all([page.waitForURL("**/?page=2"), page.getByRole("link", { name: "Next" }).click()]);
    await live(page);
    assert.match(await page.locator("#rows tr").first().innerText(), /service-0050/);
    await page.locator("#filter").fill("0777");
    await page.waitForFunction(() => document.querySelectorAll("#rows tr").length === 1);
    assert.match(await page.locator("#rows").innerText(), /service-0777[^]*(against|between)/);
    await look("/", "thousand", { ready: live });
  },

  // No test: benches/page.rs makes a row of it.
  async paints() {
    for (let i = 0; i < 20; i++) {
      const page = await open("/");
      await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length > 0);
      console.log(await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime));
      await page.context().close();
    }
  },
};

try {
  await stories[story]();
  assert.deepEqual(errors, [], "the console has errors");
} finally {
  await browser.close();
}
process.exit(0);
