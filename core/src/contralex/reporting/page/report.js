"use strict";

function data(id) {
  const found = document.getElementById(id);
  return found ? JSON.parse(found.textContent) : {};
}

/* Curves: the values at the epoch under the pointer, as text below the chart. */
(function curves() {
  const all = data("curve-data");
  document.querySelectorAll("svg.chart").forEach((chart) => {
    const shown = (all.charts || {})[chart.dataset.chart];
    const out = chart.parentElement.querySelector(".readout");
    if (!shown || !out) return;
    const [low, high, left, right] = chart.dataset.frame.split(" ").map(Number);
    const words = (value) => (shown.percent ? (100 * value).toFixed(1) + " %" : Number(value.toPrecision(4)).toString());
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
      const epoch = low + ((at - left) / (right - left)) * (high - low);
      out.textContent = shown.series.map((series) => {
        let best = 0;
        series.x.forEach((x, index) => { if (Math.abs(x - epoch) < Math.abs(series.x[best] - epoch)) best = index; });
        const name = all.labels.length > 1 ? all.labels[series.run] + " " : "";
        return name + words(series.y[best]) + " at epoch " + Number(series.x[best].toPrecision(4));
      }).join(" · ");
    });
    chart.addEventListener("pointerleave", () => { out.textContent = ""; });
  });
})();

/* The map: a canvas that is moved and zoomed, with the image of the point that is pointed at. */
(function map() {
  const found = data("map-data");
  const canvas = document.getElementById("map-canvas");
  if (!canvas || !found.count) return;
  const pen = canvas.getContext("2d");
  const tip = document.getElementById("map-tip");
  const about = document.getElementById("map-about");
  const { sprite, names, labels, classes } = found;
  const sheet = new Image();
  const layers = found.layers.map((layer) => {
    const bytes = Uint8Array.from(atob(layer.points), (sign) => sign.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const points = new Float32Array(2 * found.count);
    for (let at = 0; at < points.length; at += 1) points[at] = view.getUint16(2 * at, true) / 65535;
    return points;
  });
  let points = layers[0];
  let zoom = 1, left = 0, top = 0;      /* the unit square, in units of the canvas's shorter side */
  let width = 0, height = 0, side = 1;
  let chosen = -1;                      /* a class, or none */
  let pointed = -1;                     /* a point, or none */
  let waiting = false;

  const isDark = () => window.matchMedia("(prefers-color-scheme: dark)").matches;
  function colour(label) {
    if (label < 0) return isDark() ? "#9fb3c8" : "#52606d";
    const hue = (210 + label * (classes.length > 16 ? 137.508 : 360 / classes.length)) % 360;
    const light = (isDark() ? 70 : 42) + (label % 2 ? -8 : 0);  /* so that hues side by side differ in more than hue */
    return "hsl(" + hue + " 75% " + light + "%)";
  }
  const across = (point) => (points[2 * point] - left) * zoom * side + (width - side) / 2;
  const down = (point) => (1 - points[2 * point + 1] - top) * zoom * side + (height - side) / 2;

  function draw() {
    waiting = false;
    pen.clearRect(0, 0, width, height);
    const seen = [];
    for (let point = 0; point < found.count; point += 1) {
      const x = across(point), y = down(point);
      if (x > -40 && y > -40 && x < width + 40 && y < height + 40) seen.push([point, x, y]);
    }
    const room = Math.sqrt((width * height) / Math.max(seen.length, 1));
    const asImages = sheet.complete && sheet.naturalWidth > 0 && zoom > 1.5 && room > 34;
    const size = Math.min(64, room * 0.8);
    for (const [point, x, y] of seen) {
      const fades = chosen >= 0 && labels[point] !== chosen;
      pen.globalAlpha = fades ? 0.12 : 0.85;
      if (asImages) {
        image(pen, point, x - size / 2, y - size / 2, size);
        pen.lineWidth = 2;
        pen.strokeStyle = colour(labels[point]);
        pen.strokeRect(x - size / 2, y - size / 2, size, size);
      } else {
        pen.fillStyle = colour(labels[point]);
        pen.beginPath();
        pen.arc(x, y, Math.min(5, 2.5 + zoom / 3), 0, 7);
        pen.fill();
      }
    }
    pen.globalAlpha = 1;
    if (pointed >= 0) {
      pen.lineWidth = 2;
      pen.strokeStyle = isDark() ? "#ffffff" : "#000000";
      pen.beginPath();
      pen.arc(across(pointed), down(pointed), asImages ? size * 0.75 : 8, 0, 7);
      pen.stroke();
    }
    tell();
  }
  function image(on, point, x, y, size) {
    const row = Math.floor(point / sprite.columns), column = point % sprite.columns;
    on.drawImage(sheet, column * sprite.side, row * sprite.side, sprite.side, sprite.side, x, y, size, size);
  }
  function redraw() {
    if (!waiting) { waiting = true; requestAnimationFrame(draw); }
  }
  function tell() {
    if (pointed < 0) { tip.style.visibility = "hidden"; return; }
    if (tip.dataset.point !== String(pointed)) {
      tip.dataset.point = pointed;
      tip.replaceChildren();
      const small = document.createElement("canvas");
      small.width = small.height = 2 * sprite.side;
      small.setAttribute("role", "img");
      small.setAttribute("aria-label", names[pointed]);
      image(small.getContext("2d"), pointed, 0, 0, 2 * sprite.side);
      const text = document.createElement("div");
      text.textContent = (labels[pointed] >= 0 ? classes[labels[pointed]] + ": " : "") + names[pointed];
      tip.append(small, text);
    }
    const x = across(pointed), y = down(pointed);
    const over = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 14, width - over.width - 4)) + "px";
    tip.style.top = Math.max(4, y + 14 + over.height > height ? y - over.height - 14 : y + 14) + "px";
    tip.style.visibility = "visible";
  }
  function nearest(x, y) {
    let best = -1, least = 20 * 20;
    for (let point = 0; point < found.count; point += 1) {
      if (chosen >= 0 && labels[point] !== chosen) continue;
      const distance = (across(point) - x) ** 2 + (down(point) - y) ** 2;
      if (distance < least) { best = point; least = distance; }
    }
    return best;
  }
  function zoomAt(factor, x, y) {
    const next = Math.min(60, Math.max(1, zoom * factor));
    left += (x - (width - side) / 2) / side * (1 / zoom - 1 / next);
    top += (y - (height - side) / 2) / side * (1 / zoom - 1 / next);
    zoom = next;
    if (zoom === 1) { left = 0; top = 0; }
    redraw();
  }
  function move(x, y) {
    left -= x / (zoom * side);
    top -= y / (zoom * side);
    redraw();
  }
  function reset() { zoom = 1; left = 0; top = 0; pointed = -1; redraw(); }
  function resize() {
    const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    width = box.width; height = box.height; side = Math.min(width, height) * 0.94;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    redraw();
  }

  const fingers = new Map();
  let travelled = 0;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    travelled = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = place(event), before = fingers.get(event.pointerId);
    if (!before) { pointed = nearest(x, y); redraw(); return; }
    if (fingers.size === 2) {
      const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
      const gap = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]);
      zoomAt(gap([x, y]) / Math.max(gap(before), 1), (x + other[0]) / 2, (y + other[1]) / 2);
    } else {
      move(x - before[0], y - before[1]);
    }
    travelled += Math.hypot(x - before[0], y - before[1]);
    fingers.set(event.pointerId, [x, y]);
  });
  const lift = (event) => {
    if (fingers.delete(event.pointerId) && travelled < 8 && event.type === "pointerup") {
      pointed = nearest(...place(event));
      redraw();
    }
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") { pointed = -1; redraw(); }
  });
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;  /* the page scrolls until the map is clicked */
    event.preventDefault();
    zoomAt(Math.exp(-event.deltaY / 400), ...place(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const keys = {
      "+": () => zoomAt(1.4, width / 2, height / 2), "=": () => zoomAt(1.4, width / 2, height / 2),
      "-": () => zoomAt(1 / 1.4, width / 2, height / 2), "0": reset,
      ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
      Enter: () => { pointed = nearest(width / 2, height / 2); redraw(); },
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  document.getElementById("map-in").addEventListener("click", () => zoomAt(1.6, width / 2, height / 2));
  document.getElementById("map-out").addEventListener("click", () => zoomAt(1 / 1.6, width / 2, height / 2));
  document.getElementById("map-reset").addEventListener("click", reset);
  const layer = document.getElementById("map-layer");
  function choose() {
    const shown = found.layers[layer.value];
    points = layers[layer.value];
    const parts = shown.explained && shown.explained.map((part) => (100 * part).toFixed(1) + " %");
    about.textContent = parts
      ? "The two components explain " + parts.join(" and ") + " of the variance."
      : "UMAP keeps neighbours near; distances between groups say little.";
    reset();
  }
  layer.addEventListener("change", choose);
  const buttons = document.querySelectorAll("#map-classes button");
  function paint() {
    buttons.forEach((button) => { button.style.borderLeftColor = colour(Number(button.dataset.class)); });
    redraw();
  }
  buttons.forEach((button) => button.addEventListener("click", () => {
    const own = Number(button.dataset.class);
    chosen = chosen === own ? -1 : own;
    buttons.forEach((each) => each.setAttribute("aria-pressed", String(Number(each.dataset.class) === chosen)));
    redraw();
  }));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  window.addEventListener("resize", resize);
  sheet.onload = redraw;
  sheet.src = sprite.uri;
  resize(); paint(); choose();
  canvas.dataset.ready = "true";
})();
