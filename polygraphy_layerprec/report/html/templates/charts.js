"use strict";
// The charts: colours from the style sheet, hovering, clicking, walking, printing.
(async () => {
  const { data, page, fill } = Report;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const tip = document.getElementById("tip");
  const walk = document.getElementById("walk");
  const reading = document.getElementById("reading");
  const unzoom = document.getElementById("unzoom");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const axes = figures.axes; // of each chart of layers: the columns along and up
  const [views] = await Bokeh.embed.embed_items(figures.docs, figures.items);
  const document_ = views.roots[0].model.document;
  const charts = Object.fromEntries(document_.roots().map((chart) => [chart.name, chart]));
  const source = document_.get_model_by_name("layers");
  const along = document_.get_model_by_name("along");
  const whole = { start: along.start, end: along.end };
  const inOrder = [...data.name.keys()].sort((a, b) => data[page.walk][a] - data[page.walk][b]);

  function paint() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    for (const model of document_.all_models ?? []) {
      for (const tag of model.tags ?? []) {
        const [property, names] = String(tag).split("=");
        if (!names?.startsWith("--")) continue;
        const colors = names.split(",").map(color);
        const before = model[property];
        if (property === "palette") model.palette = colors;
        else model[property] = before !== null && typeof before === "object" ? { value: colors[0] } : colors[0];
      }
    }
    document.documentElement.dataset.painted = dark.matches ? "dark" : "light";
  }

  function describe(i) { return page.tip.map((form) => fill(form, i)); }

  function short(text, most) {
    return text.length <= most ? text : `${text.slice(0, most / 2)}\u2026${text.slice(-most / 2)}`;
  }

  // The nearest dot in pixels: dots lie on top of each other where there are thousands.
  function nearest(chart, event) {
    const { x, y, weight } = axes[chart.name];
    const across = ruler(chart.x_scale, chart.x_range, chart.inner_width);
    const up = ruler(chart.y_scale, chart.y_range, chart.inner_height);
    const [atX, atY] = [across(event.x), up(event.y)];
    const xs = source.data[x];
    let best = -1, least = Infinity;
    for (const column of y) {
      const ys = source.data[column];
      for (let i = 0; i < xs.length; i++) {
        const dx = across(xs[i]) - atX, dy = up(ys[i]) - atY;
        const distance = dx * dx + weight * dy * dy;
        if (distance < least) { least = distance; best = i; }
      }
    }
    return best;
  }

  function ruler(scale, range, pixels) {
    const place = scale.type === "LogScale" ? Math.log10 : (value) => value;
    const perUnit = pixels / (place(range.end) - place(range.start));
    return (value) => place(value) * perUnit;
  }

  function point(i) {
    for (const name of Object.keys(axes)) {
      for (const line of charts[name].select("here")) line.location = i < 0 ? null : source.data[axes[name].x][i];
    }
  }

  function hover(chart, event) {
    const i = nearest(chart, event);
    if (i < 0) return;
    point(i);
    tip.replaceChildren();
    const title = document.createElement("b");
    title.textContent = short(data.name[i], 160);
    tip.append(title, ...describe(i).map((line) => {
      const made = document.createElement("span");
      made.textContent = short(line, 240);
      return made;
    }));
    tip.hidden = false;
  }

  function follow(event) {
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 16 + box.width > innerWidth ? event.clientX - 16 - box.width : event.clientX + 16;
    const top = event.clientY + 16 + box.height > innerHeight ? event.clientY - 16 - box.height : event.clientY + 16;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, top)}px`;
  }

  function leave() {
    tip.hidden = true;
    point(Report.selected);
  }

  for (const name of Object.keys(axes)) {
    const chart = charts[name];
    chart.on_event("mousemove", (event) => hover(chart, event));
    chart.on_event("mouseleave", leave);
    chart.on_event("tap", (event) => {
      const i = nearest(chart, event);
      if (i >= 0) Report.select(i, { reveal: true, details: true, focus: true });
    });
    document.getElementById(`chart-${name}`).addEventListener("mousemove", follow);
  }
  walk.addEventListener("mouseleave", leave);

  walk.addEventListener("keydown", (event) => {
    const at = Report.selected < 0 ? -1 : inOrder.indexOf(Report.selected);
    const last = inOrder.length - 1;
    const to = { ArrowRight: Math.min(at + 1, last), ArrowLeft: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
    if (to !== undefined) Report.select(inOrder[to]);
    else if (event.key === "Enter" && at >= 0) Report.select(inOrder[at], { reveal: true, details: true, focus: true });
    else return;
    event.preventDefault();
  });

  Report.onSelect((i) => {
    point(i);
    reading.textContent = [short(data.name[i], 160), ...describe(i)].join(" \u00b7 ");
  });

  function showZoom() { unzoom.hidden = along.start <= whole.start && along.end >= whole.end; }
  along.change.connect(showZoom);
  unzoom.addEventListener("click", () => { along.start = whole.start; along.end = whole.end; });

  function snapshot(view) {
    const layers = [view.canvas_view.primary.canvas, view.canvas_view.overlays.canvas];
    const canvas = document.createElement("canvas");
    canvas.width = layers[0].width;
    canvas.height = layers[0].height;
    for (const layer of layers) canvas.getContext("2d").drawImage(layer, 0, 0);
    return canvas;
  }

  // Canvases keep their size and colours on paper, so pictures of them take their places.
  addEventListener("beforeprint", () => {
    for (const view of views.roots.filter((view) => view.model.name in charts)) {
      const box = document.getElementById(`chart-${view.model.name}`);
      const picture = new Image();
      picture.className = document.documentElement.dataset.painted;
      picture.alt = "";
      picture.src = snapshot(view).toDataURL();
      for (const child of box.children) child.style.display = "none";
      box.append(picture);
    }
  });
  addEventListener("afterprint", () => {
    for (const picture of document.querySelectorAll(".chart img")) {
      for (const child of picture.parentElement.children) child.style.display = "";
      picture.remove();
    }
  });

  paint();
  dark.addEventListener("change", paint);
  document.documentElement.dataset.ready = "yes";
})();
