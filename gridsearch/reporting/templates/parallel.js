"use strict";
// Every point as a line across the axes; a brush over an axis chooses points, here and in all other figures and tables.
(() => {
  const { svg, label, wide, fittedAll, linear, ticks, tickTexts, state } = report;
  const TOP = 34, HEIGHT = 330;

  // Each point's height on an axis of levels, the first at the bottom as small values are: its level's, and within it
  // the points' order, best on top.
  const middleOf = (level, gap) => TOP + HEIGHT - (level + 0.5) * gap;
  const heights = (study, axis) => {
    const count = study.axes[axis].levels.length, gap = HEIGHT / count;
    const own = Array.from({ length: count }, () => []);
    study.points.forEach((p, i) => own[p.at[axis]].push(i));
    const found = new Map();
    own.forEach((points, level) => {
      const spread = Math.min(0.62, 0.06 * points.length) * gap;
      points.forEach((p, i) => found.set(p, middleOf(level, gap) + (points.length > 1 ? i / (points.length - 1) - 0.5 : 0) * spread));
    });
    return found;
  };

  const choose = (axis, levels) => {
    if (levels.size === 0 || levels.size === axis.levels.length) state.brush.delete(axis.name);
    else state.brush.set(axis.name, levels);
    report.changed();
  };
  const toggle = (axis, name) => {
    const now = new Set(state.brush.get(axis.name) ?? []);
    now.has(name) ? now.delete(name) : now.add(name);
    choose(axis, now);
  };

  // A brush: from where the pointer goes down to where it goes up; `ended` gets the two heights, or one twice.
  const brush = (root, x, wide, ended) => {
    const area = svg("rect", { x: x - wide / 2, y: TOP - 6, width: wide, height: HEIGHT + 12, class: "brush" });
    const shown = svg("rect", { x: x - 9, width: 18, y: 0, height: 0, class: "brushed", visibility: "hidden" });
    let from = null;
    const height = (event) => {
      const box = area.getBoundingClientRect();
      return TOP - 6 + ((event.clientY - box.top) / box.height) * (HEIGHT + 12);
    };
    area.addEventListener("pointerdown", (event) => {
      from = height(event);
      area.setPointerCapture(event.pointerId);
    });
    area.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const [low, high] = [from, height(event)].sort((a, b) => a - b);
      shown.setAttribute("y", low);
      shown.setAttribute("height", high - low);
      shown.setAttribute("visibility", "visible");
    });
    area.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const ends = [from, height(event)].sort((a, b) => a - b);
      from = null;
      shown.setAttribute("visibility", "hidden");
      ended(ends[1] - ends[0] < 5 ? [ends[0], ends[0]] : ends);
    });
    area.addEventListener("pointercancel", () => (from = null));
    root.push(shown, area);
  };

  const levelAxis = (study, i, x, drawn, space) => {
    const axis = study.axes[i], gap = HEIGHT / axis.levels.length, on = state.brush.get(axis.name);
    drawn.push(svg("line", { x1: x, x2: x, y1: TOP, y2: TOP + HEIGHT, class: "spine" }));
    brush(drawn, x, 34, ([low, high]) => {
      if (low === high) return toggle(axis, axis.levels[Math.min(axis.levels.length - 1, Math.max(0, Math.floor((TOP + HEIGHT - low) / gap)))]);
      choose(axis, new Set(axis.levels.filter((_, level) => middleOf(level, gap) >= low && middleOf(level, gap) <= high)));
    });
    const every = Math.ceil(axis.levels.length / 24), short = fittedAll(axis.levels, space - 16, 11);
    axis.levels.forEach((name, level) => {
      if (level % every) return;
      const y = middleOf(level, gap), text = short[level];
      const pressed = on ? on.has(name) : false;
      const group = svg("g", { class: on && !pressed ? "level off" : "level", role: "checkbox", tabindex: 0, "aria-checked": pressed, "aria-label": `${axis.name} ${name}: only this` });
      group.append(svg("rect", { x: x + 5, y: y - 9, width: wide(text, 11) + 8, height: 18, rx: 3 }), label(x + 9, y + 4, text, { "font-size": 11 }));
      group.addEventListener("click", () => toggle(axis, name));
      group.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        toggle(axis, name);
        document.querySelector(`g.level[aria-label="${CSS.escape(`${axis.name} ${name}: only this`)}"]`)?.focus();
      });
      drawn.push(group);
    });
  };

  // The axis of results: its colours and numbers, and two ends that the arrow keys move.
  const valueAxis = (metric, x, drawn) => {
    const [low, high] = [metric.low, metric.high], at = linear(low, high, TOP + HEIGHT, TOP);
    const shade = report.shade(metric, true), steps = 60, value = linear(TOP + HEIGHT, TOP, low, high);
    for (let i = 0; i < steps; i += 1) {
      const y = TOP + (i * HEIGHT) / steps;
      drawn.push(svg("rect", { x: x - 5, y, width: 10, height: HEIGHT / steps + 0.5, fill: shade(value(y + HEIGHT / steps / 2)).fill }));
    }
    const marks = ticks(low, high, 6), texts = tickTexts(marks, metric.share);
    marks.forEach((m, i) => drawn.push(label(x + 14, at(m) + 4, texts[i], { "font-size": 11, class: "halo" })));
    const set = (ends) => {
      // an end of the scale has all that lies beyond it too
      const range = [ends[0] <= low ? -Infinity : ends[0], ends[1] >= high ? Infinity : ends[1]];
      state.range = range[0] === -Infinity && range[1] === Infinity ? null : range;
      report.changed();
    };
    brush(drawn, x, 34, ([a, b]) => set(a === b ? [low, high] : [value(Math.min(b, TOP + HEIGHT)), value(Math.max(a, TOP))]));
    const now = (state.range ?? [-Infinity, Infinity]).map((v) => Math.min(high, Math.max(low, v)));
    now.forEach((end, i) => {
      const y = at(end), words = report.show(end, metric.share, report.digitsOf(low, high));
      const handle = svg("path", {
        d: `M ${x - 8} ${y} l -8 ${i ? -8 : 8} h 32 l -8 ${i ? 8 : -8} z`, class: "handle", role: "slider", tabindex: 0, "data-end": i,
        "aria-label": `${i ? "highest" : "lowest"} ${metric.title}`, "aria-valuemin": low, "aria-valuemax": high, "aria-valuenow": end, "aria-valuetext": words, "aria-orientation": "vertical",
      });
      handle.addEventListener("keydown", (event) => {
        const step = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -1000, End: 1000 }[event.key];
        if (!step) return;
        event.preventDefault();
        const ends = [...now];
        ends[i] = Math.min(high, Math.max(low, end + (step * (high - low)) / 50));
        if (ends[0] <= ends[1]) set(ends);
        document.querySelector(`path.handle[data-end="${i}"]`)?.focus();
      });
      drawn.push(handle);
    });
  };

  report.drawers.parallel = (figure, study) => {
    const place = report.metricOf(study), metric = study.metrics[place], shade = report.shade(metric, true);
    const space = report.inside(figure), count = study.axes.length;
    const texts = tickTexts(ticks(metric.low, metric.high, 6), metric.share);
    const [left, right] = [30, 24 + Math.max(...texts.map((t) => wide(t, 11)), 30)];
    const step = Math.max(76, Math.min(320, (space - left - right) / count));
    const width = Math.max(left + step * count + right, Math.min(space, 320));
    const xs = [...study.axes.map((_, i) => left + i * step), left + count * step];
    const own = study.axes.map((_, i) => heights(study, i));
    const at = linear(metric.low, metric.high, TOP + HEIGHT, TOP), is = report.chosen(study), best = report.bestOf(study);
    const lines = [], marks = [];
    const order = report.inOrder(study, study.points.filter((p) => report.valueOf(p, place) !== null)).reverse();
    order.sort((a, b) => is(a) - is(b) || (a === best) - (b === best));
    for (const point of order) {
      const i = study.points.indexOf(point), value = report.valueOf(point, place);
      const ys = [...own.map((h) => h.get(i)), at(Math.min(metric.high, Math.max(metric.low, value)))];
      const d = ys.map((y, k) => `${k ? "L" : "M"} ${xs[k].toFixed(1)} ${y.toFixed(1)}`).join(" ");
      const group = svg("g", { class: `line${is(point) ? "" : " off"}${point === best ? " best" : ""}` },
        point === best ? svg("path", { d, class: "under" }) : null,
        svg("path", { d, stroke: point === best ? null : shade(value).fill, class: "shown" }), is(point) ? svg("path", { d, class: "hit" }) : null);
      lines.push(group);
      if (is(point)) marks.push(report.pointMark(study, point, group));
    }
    const drawn = [svg("g", { class: order.length > 400 ? "lines many" : "lines" }, ...lines)];
    const half = (text) => wide(text, 12, 600) / 2;
    const names = study.axes.map((axis) => report.fittedTitle(axis.name, step - 10));
    // the first one begins at the edge, and leaves the second one its place
    if (count > 1) names[0] = report.fittedTitle(study.axes[0].name, Math.min(step - 10, xs[1] - half(names[1]) - 14));
    const middle = (i) => Math.max(xs[i], half(names[i]) + 4);
    names.forEach((name, i) => {
      drawn.push(label(middle(i), 16, name, { "text-anchor": "middle", class: "title" }));
      levelAxis(study, i, xs[i], drawn, step);
    });
    const from = middle(count - 1) + half(names[count - 1]) + 10;  // what the last axis's name leaves
    const title = report.fittedTitle(metric.title, width - 4 - from);
    drawn.push(label(Math.min(xs[count], width - half(title) - 4), 16, title, { "text-anchor": "middle", class: "title" }));
    valueAxis(metric, xs[count], drawn);
    report.answering(marks.reverse());
    report.place(figure, drawn, { width, height: TOP + HEIGHT + 18, title: `Every point across ${study.axes.map((a) => a.name).join(", ")} and ${metric.title}` });
  };
})();
