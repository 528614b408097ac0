// Keeps a page up to date, tells when the connection is lost, filters as one types, and draws the charts.
// Without it the pages are complete as of when they were made.
"use strict";
(() => {
  const main = document.getElementById("main");
  const updated = document.getElementById("updated");
  const lost = document.getElementById("lost");
  document.documentElement.classList.add("js");

  // The server's time less ours: ages are counted on its clock.
  let ahead = Number(updated.dataset.at) - Date.now();
  const now = () => Date.now() + ahead;
  const two = (n) => String(n).padStart(2, "0");
  const ofDay = (ms) => { const t = new Date(ms); return `${two(t.getUTCHours())}:${two(t.getUTCMinutes())}:${two(t.getUTCSeconds())}`; };

  // Whether a part of it is selected: to be copied, or read aloud. It would be lost with what it lies in.
  function isSelected(element) {
    const selection = getSelection();
    return !selection.isCollapsed && selection.containsNode(element, true);
  }

  // ---- Ages

  function age(ms) {
    const s = Math.max(0, Math.floor(ms / 1000));
    if (s < 120) return `${s} s`;
    if (s < 7200) return `${Math.floor(s / 60)} min`;
    if (s < 172800) return `${Math.floor(s / 3600)} h`;
    return `${Math.floor(s / 86400)} d`;
  }
  function ages() {
    for (const element of document.querySelectorAll("[data-age]")) {
      if (isSelected(element)) continue;
      const text = age(now() - Number(element.dataset.age));
      if (element.textContent !== text) element.textContent = text;
    }
  }

  // ---- Live

  // A message comes every second; after this long without one the connection counts as lost.
  const SILENCE = 5000;
  // How long anything that is asked for once may take: as long as a lost stream is waited for.
  const DEADLINE = SILENCE;
  const AGAIN = 2000;
  // A browser keeps six connections to a server, for all its tabs together: once they are taken, no further page even loads. Four of a
  // browser's pages keep their stream; any further one takes a message every two seconds and lets go.
  const SEATS = 4;
  let following = null;
  let heard = Date.now();
  let shownAt = Number(updated.dataset.at);
  // Why what is shown is not live; empty where it is.
  let loss = "";
  // What was asked for and not answered, by its name: asks for it again. It is told until it is answered.
  const unanswered = new Map();

  // What did not change since something in it was selected, and when that was.
  const kept = new Set();
  let keptAt = 0;
  // What one looks at stays as it is: what is open stays open, what has the focus keeps it, and what is selected waits.
  function replace(id, text, asked = false) {
    const old = document.getElementById(id);
    if (!old) return;
    if (!asked && isSelected(old)) {
      if (kept.size === 0) keptAt = shownAt;
      kept.add(id);
      return;
    }
    const template = document.createElement("template");
    template.innerHTML = text;
    const fresh = template.content.firstElementChild;
    const open = [...old.querySelectorAll("details[open]"), ...(old.matches("details[open]") ? [old] : [])].map((d) => d.id).filter(Boolean);
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    const index = focused ? focusable(old).indexOf(focused) : -1;
    const keeper = focused && focused.closest("[id]");
    for (const d of fresh.querySelectorAll("details[id]")) d.open = open.includes(d.id);
    if (fresh.matches("details")) fresh.open = open.includes(fresh.id);
    const scrolled = [...old.querySelectorAll(".scroll")].map((s) => s.scrollLeft);
    old.replaceWith(fresh);
    [...fresh.querySelectorAll(".scroll")].forEach((s, i) => { s.scrollLeft = scrolled[i] || 0; });
    if (focused) {
      const same = focused.href ? fresh.querySelector(`a[href="${CSS.escape(focused.getAttribute("href"))}"]`) : null;
      const kept = keeper && keeper !== old ? document.getElementById(keeper.id) : null;
      const inKept = kept && focused.tagName === "SUMMARY" ? kept.querySelector("summary") : null;
      const again = inKept || same || focusable(fresh)[index];
      if (again) again.focus({ preventScroll: true });
    }
  }
  function focusable(element) {
    return [...element.querySelectorAll("a[href], summary, input, button, [tabindex]")];
  }

  // Asks once; what is not answered is told, and asked for by `again` with the next message of the stream.
  async function ask(name, url, again, asked = new AbortController()) {
    const timer = setTimeout(() => asked.abort(new DOMException("no answer in time", "TimeoutError")), DEADLINE);
    try {
      const answer = await fetch(url, { signal: asked.signal });
      const text = await answer.text();
      unanswered.delete(name);
      notice();
      return { ok: answer.ok, text };
    } catch (error) {
      if (error.name !== "AbortError") unanswered.set(name, again);
      notice();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  // What gives a seat back; null where none is free, or cannot be told to be (browsers have locks on this machine and over HTTPS alone).
  async function seat() {
    if (!navigator.locks) return null;
    for (let i = 0; i < SEATS; i++) {
      const free = await new Promise((taken) => {
        const hold = (lock) => (lock ? new Promise((free) => { taken(free); }) : taken(null));
        navigator.locks.request(`loadline stream ${i}`, { ifAvailable: true }, hold).catch(() => taken(null));
      });
      if (free) return free;
    }
    return null;
  }

  // An answer that is no stream, and what it says: so many follow already, or there is no such target any more.
  class Refused extends Error {}
  async function refusal(answer) {
    try {
      const { title, mend } = await answer.json();
      return new Refused(`${title}; ${mend}`);
    } catch {
      return new Refused(`the server answers ${answer.status}`);
    }
  }

  // Takes the messages of a stream to its end, or the first one only. Ends by an error in any case but that.
  async function listen(url, signal, firstOnly) {
    const answer = await fetch(url, { signal });
    if (!answer.ok) throw await refusal(answer);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the stream has ended");
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        if (signal.aborted) return;
        const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
        if (!data) continue;
        take(JSON.parse(data));
        if (firstOnly) return reader.cancel();
      }
    }
  }

  // Until it is aborted; what ends or is refused is tried anew.
  async function follow(url, signal) {
    while (!signal.aborted) {
      const free = await seat();
      try {
        if (!signal.aborted) await listen(url, signal, !free);
      } catch (error) {
        if (!signal.aborted) lose(error instanceof Refused ? error.message : undefined);
      } finally {
        if (free) free();
      }
      await new Promise((next) => { setTimeout(next, AGAIN); });
    }
  }
  function disconnect() {
    if (following) following.abort();
    following = null;
  }
  // A page that nobody sees takes no connection from those that are seen.
  function connect() {
    disconnect();
    if (!main.dataset.live || document.hidden) return;
    following = new AbortController();
    follow(main.dataset.live, following.signal);
  }
  function take(message) {
    heard = Date.now();
    ahead = message.at - heard;
    for (const [id, text] of Object.entries(message.blocks)) replace(id, text);
    shownAt = message.at;
    if (loss) found();
    for (const again of [...unanswered.values()]) again();
    if (message.series) charts.add(message.series);
    tell();
    ages();
  }
  // A new stream begins with all there is: also with what was kept back.
  document.addEventListener("selectionchange", () => {
    if (kept.size === 0 || [...kept].some((id) => document.getElementById(id) && isSelected(document.getElementById(id)))) return;
    kept.clear();
    connect();
  });
  function tell() {
    if (kept.size > 0) {
      updated.className = "updated";
      updated.textContent = `selected, as of ${ofDay(keptAt)} UTC`;
      return;
    }
    updated.className = "updated live";
    updated.textContent = `live, updated ${ofDay(shownAt)} UTC`;
  }
  function lose(why) {
    if (document.hidden) return;
    if (loss && !why) return;
    const said = why ? `Not live: ${why}. What` : "Connection lost: what";
    loss = `${said} is shown is from ${ofDay(shownAt)} UTC. Trying again.`;
    updated.className = "updated lost-now";
    updated.textContent = `not live, as of ${ofDay(shownAt)} UTC`;
    notice();
  }
  function found() {
    loss = "";
    notice();
    charts.load();
  }
  // The loss of all, or of what was asked for alone.
  function notice() {
    const names = [...unanswered.keys()].join(" and ");
    const text = loss || (names && `No answer for ${names}. Asking again.`);
    // The same words again would be read aloud again.
    if (lost.textContent !== text) lost.textContent = text;
    lost.hidden = !text;
  }
  setInterval(() => {
    ages();
    charts.tick();
    if (following && Date.now() - heard > SILENCE) {
      lose();
      // Silent for long: the stream may be dead without an error.
      if (Date.now() - heard > 4 * SILENCE) { heard = Date.now(); connect(); }
    }
  }, 1000);
  function rest() {
    disconnect();
    if (loss || !main.dataset.live) return;
    updated.className = "updated";
    updated.textContent = `as of ${ofDay(shownAt)} UTC`;
  }
  function resume() {
    heard = Date.now();
    connect();
    charts.load();
  }
  document.addEventListener("visibilitychange", () => { if (document.hidden) rest(); else resume(); });
  window.addEventListener("pagehide", rest);
  window.addEventListener("pageshow", (event) => { if (event.persisted) resume(); });

  // ---- Filter

  const filter = document.getElementById("filter");
  if (filter) {
    let asked = null;
    let soon = null;
    const chooseAgain = () => { if (!asked) choose(); };
    const choose = async () => {
      const query = new URLSearchParams(new FormData(filter.form));
      for (const [key, value] of [...query]) if (value === "") query.delete(key);
      const url = query.size > 0 ? `/?${query}` : "/";
      if (asked) asked.abort();
      const own = new AbortController();
      asked = own;
      try {
        const { text } = await ask("the filter", url, chooseAgain, own);
        const page = new DOMParser().parseFromString(text, "text/html");
        for (const id of ["tabs", "alerts", "rows", "pager"]) {
          const part = page.getElementById(id);
          if (part) replace(id, part.outerHTML, true);
        }
        main.dataset.live = page.getElementById("main").dataset.live;
        history.replaceState(null, "", url);
        connect();
      } catch {
        // What is not answered is told, and asked for again; an older choice gives way to a newer one.
      } finally {
        if (asked === own) asked = null;
      }
    };
    filter.addEventListener("input", () => { clearTimeout(soon); soon = setTimeout(choose, 150); });
    filter.form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(soon); choose(); });
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && document.activeElement !== filter) {
        event.preventDefault();
        filter.focus();
      }
    });
  }

  // ---- Amounts: as the server writes them

  function decimal(value, places) {
    const text = Math.abs(value).toFixed(places);
    if (Number(text) === 0 && value !== 0) return value.toExponential(1).replace("e+", "e");
    const [whole, fraction = ""] = text.split(".");
    const digits = fraction.replace(/0+$/, "");
    return (value < 0 ? "-" : "") + whole.replace(/\B(?=(\d{3})+$)/g, ",") + (digits ? `.${digits}` : "");
  }
  function amount(value, unit, perSecond) {
    if (perSecond && value !== null && value !== undefined) return `${amount(value, unit)}/s`;
    if (value === null || value === undefined) return "–";
    switch (unit) {
      case "Ratio": return `${decimal(value * 100, 2)} %`;
      case "Seconds": return value !== 0 && Math.abs(value) < 1 ? `${decimal(value * 1000, 3)} ms` : `${decimal(value, 3)} s`;
      case "Bytes": {
        let [scale, name] = [1, "B"];
        for (const next of ["KiB", "MiB", "GiB", "TiB", "PiB"]) {
          if (Math.abs(value) < scale * 1024) break;
          [scale, name] = [scale * 1024, next];
        }
        return `${decimal(value / scale, 2)} ${name}`;
      }
      case "Cores": return value === 1 ? "1 core" : `${decimal(value, 3)} cores`;
      default: return decimal(value, 3);
    }
  }
  // For tests, which hold both against the same table.
  window.loadline = { amount, age };

  // ---- Charts

  const charts = (() => {
    const root = document.getElementById("charts");
    if (!root || !window.uPlot) return { add() {}, load() {}, tick() {} };
    const span = Number(root.dataset.range);
    let series = null;
    let plots = [];
    let loading = false;
    const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

    async function load() {
      if (loading) return;
      loading = true;
      try {
        const answer = await ask("the charts", root.dataset.series, load);
        if (answer.ok) { series = JSON.parse(answer.text); draw(); }
      } catch { /* it is told, and asked for again */ } finally { loading = false; }
    }

    // New rows at the end; what is older than the span goes.
    function add(more) {
      if (!series) return;
      const names = (s) => s.metrics.map((m) => `${m.name} ${m.rule} ${m.perSecond}`).join();
      if (names(more) !== names(series)) { load(); return; }
      const last = series.times[series.times.length - 1] ?? -Infinity;
      const from = more.times.findIndex((t) => t > last);
      if (from < 0) return;
      const push = (to, column) => { for (let i = from; i < more.times.length; i++) to.push(column[i]); };
      const first = series.times.length === 0;
      push(series.times, more.times);
      for (const key of Object.keys(series.replicas)) push(series.replicas[key], more.replicas[key]);
      series.metrics.forEach((metric, i) => { for (const key of ["value", "target", "scaleInBelow", "status"]) push(metric[key], more.metrics[i][key]); });
      const old = series.times.findIndex((t) => t >= now() - span - 60000);
      if (old > 60) {
        series.times.splice(0, old);
        for (const key of Object.keys(series.replicas)) series.replicas[key].splice(0, old);
        for (const metric of series.metrics) for (const key of ["value", "target", "scaleInBelow", "status"]) metric[key].splice(0, old);
      }
      const came = series.metrics.some((m) => !isEmpty(m.name) && !plots.some(({ name }) => name === m.name));
      if (first || came) draw(); else show();
    }

    const timeLabels = (u, splits) => splits.map((s) => ofDay(s * 1000)).map((text) => (splits.length > 1 && splits[1] - splits[0] < 60 ? text : text.slice(0, 5)));
    // Values that stand alone between gaps would be lines without length: they are dots.
    const alone = (u, index) => {
      const column = u.data[index];
      const found = [];
      for (let i = 0; i < column.length; i++) if (column[i] != null && column[i - 1] == null && column[i + 1] == null) found.push(i);
      return found;
    };
    const points = () => ({ show: true, size: 5, filter: alone });
    const step = window.uPlot.paths.stepped({ align: 1 });
    const line = (label, stroke, format, more = {}) => ({ label, stroke, width: 1.5, points: { ...points(), fill: stroke }, value: (u, v) => format(v), ...more });

    // The steps of an axis of bytes: 1, 2, 4 … 512 of each unit, so that its labels are whole.
    const BINARY = Array.from({ length: 60 }, (_, power) => 2 ** power);
    function parts(name) {
      if (name === "replicas") {
        const whole = (v) => (v === null || v === undefined ? "–" : String(v));
        const r = () => series.replicas;
        return {
          unit: "Count",
          data: () => [r().max, r().min, r().ready, r().current, r().desired],
          lines: [
            // Drawn in this order, so that the band lies under all; the style sheet tells what comes first in the legend.
            line("max", color("--bound"), whole, { dash: [2, 3], width: 1, paths: step }),
            line("min", color("--bound"), whole, { dash: [2, 3], width: 1, paths: step }),
            line("ready", color("--ready"), whole, { width: 1.25, dash: [6, 3], paths: step }),
            line("current", color("--current"), whole, { width: 2.5, paths: step }),
            line("desired", color("--desired"), whole, { paths: step }),
          ],
          bands: [{ series: [1, 2], fill: color("--band") }],
          axis: { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] },
        };
      }
      const metric = () => series.metrics.find((m) => m.name === name);
      const { unit, rule, perSecond } = metric();
      const format = (v) => amount(v, unit, perSecond);
      const lines = [line("value", color("--current"), format, { width: 1.75 })];
      const data = ["value"];
      if (metric().target.some((v) => v !== null)) {
        lines.push(line(rule === "Threshold" ? "out above" : "target", color("--desired"), format, { dash: [6, 4], paths: step }));
        data.push("target");
      }
      if (metric().scaleInBelow.some((v) => v !== null)) {
        lines.push(line("in below", color("--in"), format, { dash: [2, 3], paths: step }));
        data.push("scaleInBelow");
      }
      return { unit, perSecond, data: () => data.map((key) => metric()[key]), lines, bands: [], axis: unit === "Bytes" ? { incrs: BINARY } : {} };
    }

    // What is young is not drawn in a corner: the chart begins where something is known, two minutes back at least.
    const begin = () => Math.max(now() - span, Math.min(series.times[0] ?? 0, now() - 120000));
    const rows = (data) => [series.times.map((t) => t / 1000), ...data()];
    const isEmpty = (name) => name !== "replicas" && series.metrics.find((m) => m.name === name).value.every((v) => v === null);
    function draw() {
      // Until there is an evaluation the page says why there is none.
      root.hidden = series.times.length === 0;
      if (root.hidden) return;
      const why = document.getElementById("no-charts");
      if (why) why.remove();
      plots.forEach(({ plot }) => plot.destroy());
      plots = [];
      // A metric may be new since the page was made.
      for (const metric of series.metrics) {
        if ([...root.children].some((f) => f.dataset.chart === metric.name)) continue;
        const figure = document.createElement("figure");
        figure.dataset.chart = metric.name;
        const caption = document.createElement("figcaption");
        caption.textContent = metric.name;
        const place = document.createElement("div");
        place.className = "plot";
        figure.append(caption, place);
        root.append(figure);
      }
      for (const figure of root.children) {
        const name = figure.dataset.chart;
        const known = name === "replicas" || series.metrics.some((m) => m.name === name);
        figure.hidden = !known;
        if (!known) continue;
        const place = figure.querySelector(".plot");
        // Axes without a line say nothing.
        const empty = isEmpty(name);
        place.classList.toggle("none", empty);
        if (empty) { place.textContent = "No value in this time."; continue; }
        place.textContent = "";
        const { unit, perSecond, data, lines, bands, axis } = parts(name);
        const axes = { stroke: color("--dim"), grid: { stroke: color("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
        const plot = new window.uPlot({
          width: Math.max(200, place.clientWidth),
          height: name === "replicas" ? 220 : 180,
          padding: [10, 26, 0, 0],
          tzDate: (ts) => window.uPlot.tzDate(new Date(ts * 1000), "Etc/UTC"),
          cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
          legend: { live: true, isolate: false, markers: { width: 2, dash: (u, i) => (u.series[i].dash ? "dashed" : "solid") } },
          scales: {
            x: { time: true, range: () => [begin() / 1000, now() / 1000] },
            y: { range: (u, low, high) => [Math.min(0, low ?? 0), Math.max((high ?? 1) * 1.08, unit === "Count" && name === "replicas" ? 1.2 : 1e-9)] },
          },
          axes: [
            { ...axes, size: 28, values: timeLabels, space: 64, incrs: [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600] },
            { ...axes, ...axis, size: (u, values) => 14 + 7 * Math.max(1, ...(values || []).map((v) => String(v).length)), values: (u, splits) => splits.map((v) => (name === "replicas" ? String(v) : amount(unit === "Bytes" ? v : Number(v.toPrecision(4)), unit, perSecond))) },
          ],
          series: [{ label: "at", value: (u, v) => (v === null || v === undefined ? "–" : `${ofDay(v * 1000)} UTC`) }, ...lines],
          bands,
          hooks: { setCursor: [(u) => { if (u.cursor.left === undefined || u.cursor.left < 0) u.setLegend({ idx: newest(u) }); }] },
        }, rows(data), place);
        place.tabIndex = 0;
        place.setAttribute("role", "group");
        place.setAttribute("aria-label", `Chart of ${name} over time; the arrow keys move along it, its figures are in the table below`);
        place.onkeydown = (event) => walk(event, plot);
        place.onblur = () => plot.setCursor({ left: -10, top: -10 });
        plots.push({ name, plot, place, data });
        plot.setLegend({ idx: newest(plot) });
      }
    }
    function newest(u) {
      const column = u.data[u.data.length - 1];
      for (let i = u.data[0].length - 1; i >= 0; i--) if (u.data.slice(1).some((c) => c[i] != null)) return i;
      return column.length - 1;
    }
    function walk(event, u) {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -Infinity, End: Infinity }[event.key];
      if (by === undefined || u.data[0].length === 0) return;
      event.preventDefault();
      const begin = u.cursor.left >= 0 && u.cursor.idx !== null ? u.cursor.idx : u.data[0].length - (by < 0 ? 0 : 1);
      const first = Math.max(0, u.data[0].findIndex((t) => t >= u.scales.x.min));
      const next = Math.min(u.data[0].length - 1, Math.max(first, begin + by));
      u.setCursor({ left: u.valToPos(u.data[0][next], "x"), top: u.over.clientHeight / 2 });
    }
    function show() {
      for (const { plot, data } of plots) {
        plot.setData(rows(data));
        if (plot.cursor.left === undefined || plot.cursor.left < 0) plot.setLegend({ idx: newest(plot) });
      }
    }
    let ticks = 0;
    function tick() {
      // Time goes on, also where nothing comes: a gap grows at the right.
      if (series && ++ticks % 5 === 0) show();
    }
    new ResizeObserver(() => {
      for (const { plot, place } of plots) if (Math.abs(plot.width - place.clientWidth) > 1) plot.setSize({ width: Math.max(200, place.clientWidth), height: plot.height });
    }).observe(root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (series) draw(); });
    // For tests: the labels of a chart's vertical axis.
    window.loadline.ticks = (name) => {
      const { plot } = plots.find(({ place }) => place.parentElement.dataset.chart === name);
      return plot.axes[1]._values.filter((label) => label !== null && label !== "");
    };
    load();
    return { add, load, tick };
  })();

  ages();
  connect();
})();
