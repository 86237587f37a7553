"use strict";
// The study over two of its axes, a panel for each value of others; and the scale of its colours.
(() => {
  const { svg, label, wide, fittedAll, linear, colour, ticks, tickTexts } = report;
  const CELL = { high: 34, narrow: 30, words: 54 };
  const SLANT = { across: 0.77, apart: 18 }; // of a text by 40 degrees: its share to the left, and pixels to the next

  // The colour of a value; what lies beyond an end has the end's.  Lines leave out the end that the ground hides.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => report.draw());
  const shade = (metric, lines = false) => {
    const [from, to] = !lines ? [0, 1] : dark.matches ? [0.22, 1] : [0, 0.92];
    const place = metric.better < 0 ? linear(metric.low, metric.high, to, from) : linear(metric.low, metric.high, from, to);
    return (value) => colour(Math.min(to, Math.max(from, place(value))));
  };

  // Patterns for what has no value: each reason its own, none a colour.
  const patterns = (id) =>
    svg("defs", {},
      svg("pattern", { id: `${id}-lost`, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, svg("rect", { width: 1.5, height: 6, class: "hatch" })),
      svg("pattern", { id: `${id}-open`, width: 8, height: 8, patternUnits: "userSpaceOnUse", patternTransform: "rotate(-45)" }, svg("rect", { width: 1, height: 8, class: "hatch" })),
      svg("pattern", { id: `${id}-none`, width: 7, height: 7, patternUnits: "userSpaceOnUse" }, svg("circle", { cx: 2, cy: 2, r: 0.9, class: "hatch" })),
    );

  const colourBar = (metric, x, y, width) => {
    const steps = 48, cell = width / steps, place = shade(metric);
    const at = linear(metric.low, metric.high, x, x + width);
    let marks, texts, places, crowded, count = Math.max(2, width / 70);
    do {
      marks = ticks(metric.low, metric.high, count);
      texts = tickTexts(marks, metric.share);
      const half = texts.map((t) => wide(t) / 2);
      places = marks.map((m, i) => Math.min(Math.max(at(m), x + half[i]), x + width - half[i]));
      crowded = places.some((p, i) => i > 0 && p - half[i] < places[i - 1] + half[i - 1] + 8);
      count -= 0.5;
    } while (crowded && count >= 1);
    const beyond = metric.clipped === "min" ? "\u2264 " : metric.clipped === "max" ? "\u2265 " : "";
    const end = { min: marks[0], max: marks[marks.length - 1] }[metric.clipped];
    return svg("g", { class: "axis" },
      ...Array.from({ length: steps }, (_, i) => {
        const value = metric.low / 1 + ((i + 0.5) / steps) * (metric.high - metric.low);
        return svg("rect", { x: x + i * cell, y, width: cell + 0.5, height: 9, fill: place(value).fill });
      }),
      ...marks.map((m, i) => label(places[i], y + 24, (m === end ? beyond : "") + texts[i], { "text-anchor": "middle" })),
    );
  };

  // Value and spread of a cell: "93.71" above "± 0.12", or above how many of its seeds were pruned.
  const cellWords = (text) => {
    const [value, ...more] = text.replace(" %", "").split(/ (?=[±(])/);
    return [value, ...more.slice(-1)];
  };

  // The point that stands for each cell: of several, the best of those that are chosen.
  const cellsOf = (study, { x, y, facets }, is) => {
    const panels = new Map();
    for (const point of study.points) {
      const facet = facets.map((f) => point.at[f]).join(",");
      const panel = panels.get(facet) ?? panels.set(facet, { at: facets.map((f) => point.at[f]), cells: new Map() }).get(facet);
      const key = `${point.at[x]},${point.at[y]}`;
      panel.cells.set(key, [...(panel.cells.get(key) ?? []), point]);
    }
    const metric = report.metricOf(study);
    for (const { cells } of panels.values()) {
      for (const [key, points] of cells) {
        const some = points.filter(is), pool = report.inOrder(study, some.length ? some : points);
        cells.set(key, { point: pool.find((p) => report.valueOf(p, metric) !== null) ?? pool[0], on: some.length > 0, of: points.length });
      }
    }
    return [...panels.values()].sort((a, b) => compareAt(a.at, b.at));
  };
  const compareAt = (a, b) => {
    const i = a.findIndex((v, place) => v !== b[place]);
    return i < 0 ? 0 : a[i] - b[i];
  };

  const panel = (study, { columns, rows }, { cells, at }, { left, top, cell, id, best, titles, first }) => {
    const metric = report.metricOf(study), drawn = [], marks = [];
    const place = shade(study.metrics[metric]);
    for (let row = 0; row < rows.length; row += 1) {
      for (let column = 0; column < columns.length; column += 1) {
        const [x, y] = [left + column * cell.wide, top + row * cell.high];
        const box = { x: x + 0.5, y: y + 0.5, width: cell.wide - 1, height: cell.high - 1 };
        const found = cells.get(`${column},${row}`);
        if (!found) {
          drawn.push(svg("rect", { ...box, fill: `url(#${id}-none)` }));
          continue;
        }
        const { point, on, of } = found, value = point.values[metric];
        const group = svg("g", { class: on ? "cell" : "cell off" });
        if (value) {
          const { fill, ink } = place(value[0]);
          const words = cellWords(value[3]), fits = words.every((w) => wide(w, 11) < cell.wide - 4);
          group.append(svg("rect", { ...box, fill }));
          if (fits) words.forEach((w, i) => group.append(label(x + cell.wide / 2, y + cell.high / 2 + 4 + (i - (words.length - 1) / 2) * 13, w, { "text-anchor": "middle", "font-size": 11, fill: ink })));
        } else {
          const open = /^(waiting|running)/.test(point.lost);
          const word = /^(out of range|no value|\S*)/.exec(point.lost)[0];
          group.append(svg("rect", { ...box, class: "lost" }), svg("rect", { ...box, fill: `url(#${id}-${open ? "open" : "lost"})` }));
          if (wide(word, 10) < cell.wide - 4) group.append(label(x + cell.wide / 2, y + cell.high / 2 + 4, word, { "text-anchor": "middle", "font-size": 10, class: "halo" }));
        }
        if (point === best) group.append(svg("rect", { ...box, class: "best-edge outer" }), svg("rect", { ...box, class: "best-edge" }));
        drawn.push(group);
        const mark = report.pointMark(study, point, group);
        marks.push({ ...mark, lines: () => [...mark.lines(), of > 1 ? `the best of ${of} points here` : null] });
      }
    }
    drawn.push(...columns.map((name, i) => {
      if (cell.slant && i % Math.ceil(SLANT.apart / cell.wide)) return null;
      const [x, y] = [left + (i + 0.5) * cell.wide, top + rows.length * cell.high + (cell.slant ? 12 : 16)];
      return cell.slant ? label(x, y, name, { "text-anchor": "end", transform: `rotate(-40 ${x} ${y})` }) : label(x, y, name, { "text-anchor": "middle" });
    }));
    if (first) drawn.push(...rows.map((name, i) => label(left - 7, top + (i + 0.5) * cell.high + 4, name, { "text-anchor": "end" })));
    if (titles) drawn.push(label(left, top - 7, titles(at), { class: "title" }));
    return { drawn, marks };
  };

  report.drawers.heatmap = (figure, study) => {
    if (!study.layout) return report.drawers.marginals(figure, study);
    const { layout } = study, metric = study.metrics[report.metricOf(study)];
    const space = report.inside(figure), columns = fittedAll(study.axes[layout.x].levels, Math.min(130, 0.3 * space)), rows = fittedAll(study.axes[layout.y].levels, 110);
    const is = report.chosen(study), panels = cellsOf(study, layout, is), best = report.bestOf(study);
    const values = study.points.flatMap((p) => (p.values[report.metricOf(study)] ? cellWords(p.values[report.metricOf(study)][3]) : []));
    const text = Math.max(CELL.narrow, ...values.map((w) => wide(w, 11) + 8));
    // as many panels side by side as there is space for with their numbers; a cell without space has its colour alone
    const least = text * columns.length + 18;
    const widest = Math.max(...columns.map((n) => wide(n)));
    const cell = { high: rows.length > 30 ? 12 : CELL.high };
    let levelsLeft = Math.max(...rows.map((n) => wide(n))) + 12, across;
    const fit = () => {
      across = Math.max(1, Math.min(panels.length, Math.floor((space - levelsLeft) / least)));
      const free = (space - levelsLeft) / across - 18;
      cell.wide = Math.min(Math.max(free / columns.length, columns.length > 30 ? 9 : CELL.narrow), 110);
      cell.slant = widest > cell.wide - 6;
    };
    fit();
    if (cell.slant) { // the first of them reach to the left of the cells
      levelsLeft = Math.max(levelsLeft, ...columns.map((n, i) => SLANT.across * wide(n) - (i + 0.5) * Math.min(cell.wide, CELL.narrow) + 8));
      fit();
    }
    const below = cell.slant ? widest * 0.65 + 22 : 26;
    const above = layout.facets.length ? 26 : 8;
    const [stepX, stepY] = [cell.wide * columns.length + 18, cell.high * rows.length + above + below];
    const titleRoom = stepX - 6;
    const titles = layout.facets.length ? (at) => report.fittedTitle(layout.facets.map((f, i) => `${study.axes[f].name} ${study.axes[f].levels[at[i]]}`).join(", "), titleRoom) : null;
    const id = `hatch-${figure.dataset.study || 0}`, all = [], drawn = [patterns(id)];
    panels.forEach((one, i) => {
      const column = i % across;
      const made = panel(study, { columns, rows }, one, { left: levelsLeft + column * stepX, top: above + Math.floor(i / across) * stepY, cell, id, best, titles, first: column === 0 });
      drawn.push(...made.drawn);
      all.push(...made.marks);
    });
    const down = Math.ceil(panels.length / across), bottom = down * stepY + 12;
    const width = Math.max(levelsLeft + across * stepX, Math.min(space, 300));
    drawn.push(colourBar(metric, levelsLeft, bottom, Math.min(360, width - levelsLeft - 18)));
    report.answering(all);
    report.place(figure, drawn, { width, height: bottom + 32, title: `${metric.title} over ${study.axes[layout.y].name} and ${study.axes[layout.x].name}`, note: `${metric.title} by ${study.axes[layout.y].name} (down) and ${study.axes[layout.x].name} (across).${values.some((w) => w.startsWith("±")) ? " ±: standard deviation over the trials of a point." : ""} Red frame: best point.` });
  };
  Object.assign(report, { colourBar, shade });
})();
