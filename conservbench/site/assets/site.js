// Sorting and filtering of tables, drawing of pictures in the colours of the theme, commands to copy. No network.
"use strict";

const page = document.documentElement;
const darkPreferred = window.matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return page.dataset.theme ? page.dataset.theme === "dark" : darkPreferred.matches;
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// ---- theme

function setUpTheme() {
  const button = document.getElementById("theme");
  const name = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  button.addEventListener("click", () => {
    page.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("theme", page.dataset.theme); } catch { /* a page from disk may have no storage */ }
    name();
    redrawAll();
  });
  darkPreferred.addEventListener("change", () => { name(); redrawAll(); });
  button.hidden = false;
  name();
}

// ---- tables

function setUpTables() {
  // a cell without a value comes last, whichever way the column is sorted
  const last = (order) => (a, b) => (a === null) - (b === null) || (a === null ? 0 : order * (a - b));
  DataTable.type("measured", {
    order: { pre: (text) => (text === "" || Number.isNaN(Number(text)) ? null : Number(text)), asc: last(1), desc: last(-1) },
  });
  for (const table of document.querySelectorAll("table.sortable")) {
    const columns = [...table.querySelectorAll("thead th")].map((head) => {
      if (head.dataset.kind === "measured") return { type: "measured" };
      return head.dataset.kind === "fixed" ? { orderable: false } : { type: "string" };
    });
    const many = table.tBodies[0].rows.length > 5;
    new DataTable(table, {
      columns,
      order: [],
      paging: false,
      autoWidth: false,
      // words that a reader types are one phrase
      search: { smart: false },
      layout: { topStart: many ? "search" : null, topEnd: many ? "info" : null, bottomStart: null, bottomEnd: null },
      language: {
        search: "Filter rows:",
        info: "_TOTAL_ rows",
        infoFiltered: "of _MAX_",
        infoEmpty: "no rows",
        zeroRecords: "No row holds this text.",
      },
    });
    // what is above a wide table must not scroll away with it
    const scroll = table.closest(".scroll");
    const above = scroll.querySelector(".dt-layout-row:not(.dt-layout-table)");
    if (above && above.querySelector(".dt-search, .dt-info")) scroll.before(above);
  }
}

// ---- pictures

const figures = JSON.parse(document.getElementById("figures").textContent);
const drawn = new Map();

function colour(name) {
  return getComputedStyle(page).getPropertyValue(name).trim();
}

function isShown(trace, figure) {
  const chosen = [...document.querySelectorAll(".filter input")];
  const line = figure.querySelector(".controls select");
  const { slot, model, line: own } = trace.meta;
  if (slot === null && !model) return true;
  if (model && chosen.length && !chosen.some((box) => box.checked && box.value === model)) {
    if (!figure.dataset.orphan) return false;
  }
  return slot === null || !line || line.value === "all" || line.value === `=${own}`;
}

// Plotly reads tags and entities
function literal(text) {
  const names = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  return text.replace(/[&<>]/g, (letter) => names[letter]);
}

function themed(trace, figure) {
  const { slot, band } = trace.meta;
  const own = colour(slot === null ? "--reference" : `--line-${slot}`);
  const line = figure.querySelector(".controls select");
  // where one line is shown, the name of the model says all
  const short = slot !== null && trace.meta.model && line && line.value !== "all";
  return {
    ...trace,
    name: short ? literal(trace.meta.model) : trace.name,
    visible: isShown(trace, figure),
    line: { ...trace.line, color: own },
    marker: { ...trace.marker, color: own },
    ...(band ? { fillcolor: own, opacity: 0.18 } : {}),
    ...(trace.error_y ? { error_y: { ...trace.error_y, color: own } } : {}),
  };
}

function layoutOf(figure, traces, width) {
  const named = traces.filter((trace) => trace.visible && trace.showlegend !== false);
  // the legend gets the rows that it needs below the picture
  let rows = 1, used = 0;
  for (const trace of named) {
    const wide = 60 + 7 * trace.name.length;
    if (used && used + wide > width) { rows += 1; used = 0; }
    used += wide;
  }
  const text = colour("--text"), grid = colour("--grid");
  const axis = { gridcolor: grid, linecolor: grid, zerolinecolor: grid, tickcolor: grid, automargin: true, exponentformat: "power" };
  const single = named.length < 2;
  return {
    height: 330 + (single ? 0 : 24 * rows),
    margin: { l: 64, r: 14, t: 10, b: single ? 50 : 58 + 24 * rows },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: text },
    hoverlabel: { bgcolor: colour("--raised"), bordercolor: grid, font: { color: text } },
    hovermode: "closest",
    showlegend: !single,
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, xanchor: "left" },
    xaxis: { ...axis, ...titled(figure.layout.xaxis) },
    yaxis: { ...axis, ...titled(figure.layout.yaxis) },
  };
}

function titled(axis) {
  return { ...axis, title: { ...axis.title, font: { size: 13 }, standoff: 8 }, hoverformat: ".4g" };
}

function draw(element) {
  const figure = figures[element.id];
  const canvas = element.querySelector(".canvas");
  // a picture that none of the models chosen has shows those that have it
  const chosen = [...document.querySelectorAll(".filter input:checked")].map((box) => box.value);
  const orphan = chosen.length > 0 && !figure.data.some((trace) => chosen.includes(trace.meta.model));
  element.dataset.orphan = orphan ? "yes" : "";
  const traces = figure.data.map((trace) => themed(trace, element));
  const settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  drawn.set(element.id, element);
  return Plotly.react(canvas, traces, layoutOf(figure, traces, canvas.clientWidth), settings)
    .then(() => {
      // the words of a drawing, read one by one, say nothing: its label, note and numbers do
      for (const drawing of canvas.querySelectorAll("svg.main-svg")) drawing.setAttribute("aria-hidden", "true");
      element.dataset.drawn = "yes";
    });
}

function redrawAll() {
  for (const element of drawn.values()) {
    draw(element);
    const numbers = element.querySelector("details.numbers");
    if (numbers.open) showNumbers(element);
  }
}

function showNumbers(element) {
  const { data, layout } = figures[element.id];
  const body = make("tbody");
  for (const trace of data) {
    if (trace.meta.band || !isShown(trace, element)) continue;
    const name = new DOMParser().parseFromString(trace.name, "text/html").documentElement.textContent;
    trace.x.forEach((x, place) => {
      const [low, high] = trace.customdata ? trace.customdata[place] : [null, null];
      const row = [x, trace.y[place], low, high].map((value) => make("td", { class: "number" }, value === null ? "–" : String(value)));
      body.append(make("tr", {}, make("th", { scope: "row" }, name), ...row));
    });
  }
  const text = (axis) => new DOMParser().parseFromString(axis.title.text, "text/html").documentElement.textContent;
  const heads = ["line", text(layout.xaxis), text(layout.yaxis), "low", "high"];
  const table = make("table", {},
    make("caption", {}, `Numbers of “${element.dataset.title}”; low and high are the edges of the band`),
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))), body);
  const region = make("div", { class: "scroll tall", role: "group", tabindex: "0", "aria-label": `Numbers of ${element.dataset.title}` }, table);
  const details = element.querySelector("details.numbers");
  details.querySelector(".scroll")?.remove();
  details.append(region);
}

function setUpFigures() {
  const several = document.querySelector(".filter");
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      observer.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "400px" });
  for (const element of document.querySelectorAll("figure.plot")) {
    if (several) chooseLine(element);
    element.querySelector("details.numbers").addEventListener("toggle", (event) => {
      if (event.target.open) showNumbers(element);
    });
    observer.observe(element);
  }
  if (!several) return;
  several.hidden = false;
  several.addEventListener("change", redrawAll);
  for (const [words, on] of [["All", true], ["None", false]]) {
    const button = make("button", { type: "button" }, words);
    button.addEventListener("click", () => {
      for (const box of several.querySelectorAll("input")) box.checked = on;
      redrawAll();
    });
    several.append(button);
  }
}

function chooseLine(element) {
  const lines = new Set();
  for (const { meta } of figures[element.id].data) {
    if (meta.slot !== null) lines.add(meta.line);
  }
  if (lines.size < 2) return;
  const id = `${element.id}-line`;
  const select = make("select", { id }, make("option", { value: "all" }, "all"));
  for (const line of lines) select.append(make("option", { value: `=${line}` }, line || "unnamed"));
  const { opens } = figures[element.id];
  select.value = opens === null ? "all" : `=${opens}`;
  select.addEventListener("change", () => {
    draw(element);
    if (element.querySelector("details.numbers").open) showNumbers(element);
  });
  const controls = element.querySelector(".controls");
  controls.append(make("label", { for: id }, "Line:"), select);
  controls.hidden = false;
}

// ---- commands

function setUpCommands() {
  for (const command of document.querySelectorAll(".command")) {
    const button = make("button", { type: "button" }, "Copy");
    const code = command.querySelector("code");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    command.append(button);
  }
}

setUpTheme();
setUpTables();
setUpFigures();
setUpCommands();
