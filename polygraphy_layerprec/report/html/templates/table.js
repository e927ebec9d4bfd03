"use strict";
// The table of layers: sorting, searching, details. `Report` is what the charts talk to.
const Report = (() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const data = page.columns;
  const body = document.querySelector("#table tbody");
  const rows = [...body.rows];
  const search = document.getElementById("search");
  const chip = document.getElementById("filter");
  const found = document.getElementById("found");
  const columnCount = document.querySelectorAll("#table thead th").length;
  const haystack = data.name.map((_, i) => page.search.map((column) => data[column][i]).join("\n").toLowerCase());
  const listeners = [];
  let order = { column: page.order, falling: false };
  let only = null;
  let selected = -1;
  let shown = rows.length;

  function error(value) {
    if (value === null) return "\u2013";
    if (value === 0) return "0";
    return value.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2");
  }

  function percent(value) { return `${(100 * value).toFixed(1)} %`; }

  // What stands in braces: a column, and after a colon how to write it.
  const written = {
    error,
    percent,
    count: (value) => value.toLocaleString("en"),
    block: (value) => value || "(top level)",
    lines: (value) => value.join("\n"),
    kept: (value) => (value ? "stays in FP32" : "may be lowered"),
  };

  function fill(form, i) {
    return form.replace(/\{(\w+)(?::(\w+))?\}/g, (_, column, how) => {
      const value = data[column][i];
      return how ? written[how](value) : value;
    });
  }

  function element(tag, text, className) {
    const made = document.createElement(tag);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function compare(column, falling) {
    const values = data[column];
    const sign = falling ? -1 : 1;
    return (a, b) => {
      const x = values[a], y = values[b];
      // What was not measured stays last in either direction.
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return (x < y ? -sign : x > y ? sign : 0) || a - b;
    };
  }

  function sort(column, falling) {
    order = { column, falling };
    const indices = rows.map((_, i) => i).sort(compare(column, falling));
    closeDetails();
    const all = document.createDocumentFragment();
    for (const i of indices) all.append(rows[i]);
    body.append(all);
    for (const head of document.querySelectorAll("#table thead th")) {
      if (head.dataset.sort === column) head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  function refilter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    closeDetails();
    shown = 0;
    rows.forEach((row, i) => {
      const fits = (!only || String(data[only.column][i]) === only.value) && words.every((word) => haystack[i].includes(word));
      if (row.hidden === fits) row.hidden = !fits;
      shown += fits;
    });
    const total = `${rows.length.toLocaleString("en")} layer${rows.length === 1 ? "" : "s"}`;
    found.textContent = shown === rows.length ? total : `${shown.toLocaleString("en")} of ${total}`;
    document.querySelector(".layers").classList.toggle("long", shown > 100);
    chip.hidden = !only;
    if (only) {
      const what = only.label;
      chip.textContent = `${what} \u00d7`;
      chip.setAttribute("aria-label", `Remove the filter ${what}`);
    }
  }

  function closeDetails() {
    const open = body.querySelector(".details");
    if (open) open.remove();
  }

  function entry(list, title, text, className) {
    list.append(element("dt", title), element("dd", text, className));
  }

  function openDetails(i) {
    closeDetails();
    const list = document.createElement("dl");
    for (const [title, form, kind] of page.details) entry(list, title, fill(form, i), kind);
    const cell = document.createElement("td");
    cell.colSpan = columnCount;
    cell.append(list);
    const row = document.createElement("tr");
    row.className = "details";
    row.append(cell);
    rows[i].after(row);
  }

  function select(i, { reveal = false, details = false, focus = false } = {}) {
    if (selected >= 0) {
      rows[selected].classList.remove("selected");
      rows[selected].tabIndex = -1;
    }
    selected = i;
    rows[i].classList.add("selected");
    rows[i].tabIndex = 0;
    if (reveal && rows[i].hidden) {
      search.value = "";
      only = null;
      refilter();
    }
    if (details) openDetails(i);
    if (focus) rows[i].focus({ preventScroll: reveal });
    if (reveal) rows[i].scrollIntoView({ block: "center", behavior: "instant" });
    for (const listener of listeners) listener(i);
  }

  function neighbour(row, step) {
    let next = row;
    do next = step > 0 ? next.nextElementSibling : next.previousElementSibling;
    while (next && (next.hidden || next.className === "details"));
    return next;
  }

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-i]");
    if (!row) return;
    const isOpen = row.nextElementSibling?.className === "details";
    select(Number(row.dataset.i), { details: !isOpen, focus: true });
    if (isOpen) closeDetails();
  });

  body.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr[data-i]");
    if (!row) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" || event.key === " ") row.click();
    else if (step) {
      const next = neighbour(row, step);
      if (next) select(Number(next.dataset.i), { focus: true });
    } else return;
    event.preventDefault();
  });

  document.querySelector("#table thead").addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head || event.target === head) return;
    const column = head.dataset.sort;
    // Errors are read from the largest, names and places from the first.
    const falls = head.classList.contains("number") && column !== "depth";
    sort(column, order.column === column ? !order.falling : falls);
  });

  let pause = 0;
  search.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(refilter, 60);
  });
  search.form.addEventListener("submit", (event) => { event.preventDefault(); refilter(); });
  chip.addEventListener("click", () => { only = null; refilter(); search.focus(); });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.filter");
    if (button) {
      only = { column: button.dataset.column, value: button.dataset.value, label: button.dataset.label };
      refilter();
      document.getElementById("layers").scrollIntoView();
    }
    const copy = event.target.closest("button.copy");
    if (copy) {
      const code = copy.parentElement.querySelector("code");
      getSelection().selectAllChildren(code);
      const done = () => { copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 1500); };
      navigator.clipboard?.writeText(code.textContent).then(done, () => document.execCommand("copy") && done());
    }
  });

  document.addEventListener("keydown", (event) => {
    const isTyping = event.target instanceof HTMLInputElement;
    if (event.key === "/" && !isTyping) { search.focus(); event.preventDefault(); }
    else if (event.key === "Escape" && (search.value || only)) { search.value = ""; only = null; refilter(); }
  });

  if (rows.length) rows[0].tabIndex = 0;
  for (const row of rows.slice(1)) row.tabIndex = -1;
  document.querySelector(".layers").classList.toggle("long", rows.length > 100);

  return {
    data, page, fill, select,
    get selected() { return selected; },
    onSelect(listener) { listeners.push(listener); },
  };
})();
