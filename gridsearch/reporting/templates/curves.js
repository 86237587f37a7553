"use strict";
// Learning curves of the points that are chosen: the best five in colours, the others faint behind them.
(() => {
  const { svg, label, wide, fitted, linear, ticks, tickTexts, PALETTE } = report;
  const MOST_FAINT = 80, FEW = 5, MINIMUM = 300;
  let serial = 0; // of the panels, whose clip paths have names

  // The curves that are drawn: of the best points all seeds, of the others the first.
  const linesOf = (study) => {
    const is = report.chosen(study), { trials } = study.curves;
    const points = report.inOrder(study, study.points.filter((p) => is(p) && p.trials.some((t) => trials[t])));
    const bright = points.slice(0, FEW).flatMap((point, place) => point.trials.filter((t) => trials[t]).map((t) => ({ study, point, trial: t, place })));
    const faint = points.slice(FEW, FEW + MOST_FAINT).map((point) => ({ study, point, trial: point.trials.find((t) => trials[t]), place: null }));
    return { bright, faint, points };
  };

  const extent = (values) => {
    let [low, high] = [Infinity, -Infinity];
    for (const v of values) {
      if (v < low) low = v;
      if (v > high) high = v;
    }
    return low === high ? [low - Math.abs(low) * 0.01 - 0.005, high + Math.abs(high) * 0.01 + 0.005] : [low, high];
  };

  // A path through the values that there are; one value by itself is a dot.
  const path = (values, x, y) => {
    let d = "", pen = false;
    values.forEach((v, i) => {
      if (v === null) return void (pen = false);
      d += `${pen ? "L" : "M"}${x(i + 1).toFixed(1)} ${y(v).toFixed(1)}${pen ? "" : " h.01"}`;
      pen = true;
    });
    return d;
  };

  // What a line shows of a panel, which each study has in a place of its own: [{ name, values }, ...].
  const shownOf = ({ study, trial }, title) => {
    const { panels, trials } = study.curves;
    const before = panels.findIndex((p) => p.title === title), first = panels.slice(0, before).reduce((n, p) => n + p.lines.length, 0);
    return before < 0 ? [] : panels[before].lines.map((name, k) => ({ name, values: trials[trial]?.[first + k] ?? [] }));
  };

  // The axis of a panel's values: its ends, its ticks with their texts; null where no curve has any.
  const valuesOf = (found, lines) => {
    const used = (found.bright.length ? found.bright : found.faint).flatMap((l) => shownOf(l, lines.title).flatMap((c) => c.values.filter((v) => v !== null)));
    if (!used.length) return null;
    const [low, high] = extent(used), margin = 0.05 * (high - low);
    const marks = ticks(low - margin, high + margin, 5), texts = tickTexts(marks, lines.share);
    return { low, high, margin, marks, texts, room: Math.max(50, ...texts.map((t) => wide(t, 11) + 10)) };
  };

  const panel = (found, lines, values, frame, id) => {
    const drawn = [], marks = [], { unit } = (found.bright[0] ?? found.faint[0]).study;
    const of = (line) => shownOf(line, lines.title);
    if (!values) return { drawn, marks };
    const { low, high, margin, marks: marksY, texts } = values, digits = report.digitsOf(low, high);
    const y = linear(low - margin, high + margin, frame.top + frame.height, frame.top);
    const longest = Math.max(2, ...[...found.bright, ...found.faint].flatMap((l) => of(l).map((c) => c.values.length)));
    const x = linear(1, longest, frame.left + 6, frame.right - 6);
    marksY.forEach((m, i) => drawn.push(svg("line", { x1: frame.left, x2: frame.right, y1: y(m), y2: y(m), class: "grid" }), label(frame.left - 6, y(m) + 4, texts[i], { "text-anchor": "end", "font-size": 11 })));
    ticks(1, longest, Math.max(2, (frame.right - frame.left) / 70)).filter((e) => Number.isInteger(e) && e >= 1).forEach((e) => drawn.push(label(x(e), frame.top + frame.height + 16, e, { "text-anchor": "middle", "font-size": 11 })));
    drawn.push(label((frame.left + frame.right) / 2, frame.top + frame.height + 34, unit, { "text-anchor": "middle", class: "faint" }), label(frame.left, frame.top - 9, report.fittedTitle(lines.title, frame.right - frame.left), { class: "title" }));
    const clip = `clip-${id}`;
    drawn.push(svg("defs", {}, svg("clipPath", { id: clip }, svg("rect", { x: frame.left, y: frame.top, width: frame.right - frame.left, height: frame.height }))));
    const group = svg("g", { "clip-path": `url(#${clip})` });
    const add = (line) => {
      const all = of(line), { study } = line, faint = line.place === null;
      if (!all.length) return;
      const own = svg("g", { class: faint ? "curve faint" : "curve" });
      // of a faint one the first curve alone: what is held out
      for (const [k, { values }] of (faint ? all.slice(0, 1) : all).entries()) {
        const d = path(values, x, y);
        own.append(svg("path", { d, class: k ? "shown train" : "shown", stroke: faint ? null : PALETTE[line.place] }), svg("path", { d, class: "hit" }));
      }
      group.append(own);
      const mark = report.pointMark(study, line.point, own);
      const seed = study.trials[line.trial]?.[0];
      marks.push({
        ...mark,
        go: report.goTo(study, line.trial),
        lines: (event) => {
          const box = own.ownerSVGElement?.getBoundingClientRect();
          const across = event && box ? ((event.clientX - box.left) / box.width) * own.ownerSVGElement.viewBox.baseVal.width : frame.right;
          const epoch = Math.min(Math.max(1, all[0].values.length), Math.max(1, Math.round(linear(frame.left + 6, frame.right - 6, 1, longest)(across))));
          return [`#${line.trial} ${line.point.words}`, `seed ${seed}, ${unit} ${epoch}`, ...all.map(({ name, values }) => (values.length ? `${name} ${lines.title}: ${report.show(values[epoch - 1], lines.share, digits)}` : null))];
        },
      });
    };
    [...found.faint].reverse().forEach(add);
    [...found.bright].reverse().forEach(add);
    drawn.push(group);
    return { drawn, marks: marks.reverse() };
  };

  // The curves of some lines, a panel for each quantity, with names of the colours below.
  const curvesOf = (figure, found, { title, names = [], notes = [] }) => {
    const lines = [...found.bright, ...found.faint], space = report.inside(figure);
    if (!lines.length) return;
    const panels = [...new Map(lines.flatMap((l) => l.study.curves.panels.map((p) => [p.title, p]))).values()];
    const across = Math.max(1, Math.min(panels.length, Math.floor(space / MINIMUM), 2)), step = space / across, height = 230;
    const drawn = [], marks = [];
    panels.forEach((one, k) => {
      const column = k % across, row = Math.floor(k / across);
      const values = valuesOf(found, one);
      const frame = { left: column * step + 6 + (values?.room ?? 50), right: (column + 1) * step - 10, top: 28 + row * (height + 62), height };
      serial += 1;
      const made = panel(found, one, values, frame, serial);
      drawn.push(...made.drawn);
      marks.push(...made.marks);
    });
    let y = 28 + Math.ceil(panels.length / across) * (height + 62);
    for (const [place, name] of names.entries()) {
      drawn.push(svg("line", { x1: 8, x2: 34, y1: y - 4, y2: y - 4, stroke: PALETTE[place], "stroke-width": 3 }), label(42, y, fitted(name, space - 50)));
      y += 19;
    }
    const dashed = panels.some((p) => p.lines.length > 1) ? ["Solid: validation; dashed: train."] : [];
    report.answering(marks);
    report.place(figure, drawn, { width: space, height: y, title, note: [...dashed, ...notes].join(" ") });
  };

  report.drawers.curves = (figure, study) => {
    const found = linesOf(study), notes = [];
    if (!Object.keys(study.curves.trials).length) return;
    const behind = found.points.length - FEW;
    if (behind > 0) notes.push(`Faint: ${report.counted(Math.min(behind, MOST_FAINT), "more point")}${behind > MOST_FAINT ? `, of ${behind}` : ""}.`);
    if (study.curves.leftOut) notes.push(`Not in this page: the curves of ${report.counted(study.curves.leftOut, "more trial")}.`);
    if (study.curves.moreMetrics) notes.push(`Not drawn: ${report.counted(study.curves.moreMetrics, "more metric")}.`);
    if (!found.points.length) return void report.place(figure, [], { width: 260, height: 1, title: "Learning curves", note: "None of the chosen points has a curve." });
    const names = found.points.slice(0, FEW).map((point) => `${point.rank === null ? "" : `${point.rank}. `}${point.words}`);
    curvesOf(figure, found, { title: "Learning curves of the chosen points", names, notes });
  };

  // Of several studies the best point of each, in its colour.
  report.drawers.winners = (figure) => {
    const sides = report.studies.slice(0, PALETTE.length).map((study) => ({ study, point: report.bestOf(study) ?? study.points[0] }));
    const bright = sides.flatMap(({ study, point }, place) => point.trials.filter((t) => study.curves.trials[t]).map((t) => ({ study, point, trial: t, place })));
    curvesOf(figure, { bright, faint: [] }, { title: "Learning curves beside each other", names: sides.map(({ study }) => study.label) });
  };
  report.curvesOf = curvesOf;
})();
