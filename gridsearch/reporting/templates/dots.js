"use strict";
// Points as dots: over each axis by itself, and against the time that they took.
(() => {
  const { svg, label, wide, fittedAll, linear, ticks, tickTexts } = report;

  // The axis of values at the left, with its lines; returns where a value lies.
  const valueAxis = (metric, { left, right, top, height }, drawn, named = true) => {
    const margin = 0.05 * (metric.high - metric.low), at = linear(metric.low - margin, metric.high + margin, top + height, top);
    const marks = ticks(metric.low, metric.high, Math.max(3, height / 50)), texts = tickTexts(marks, metric.share);
    marks.forEach((m, i) => drawn.push(svg("line", { x1: left, x2: right, y1: at(m), y2: at(m), class: "grid" }), named ? label(left - 6, at(m) + 4, texts[i], { "text-anchor": "end", "font-size": 11 }) : null));
    return (value) => at(Math.min(metric.high, Math.max(metric.low, value)));
  };
  const edge = (metric) => (metric.clipped ? ` ${metric.clipped === "min" ? "Lower" : "Higher"} values are drawn at the edge.` : "");
  const axisRoom = (metric, height) => Math.max(...tickTexts(ticks(metric.low, metric.high, Math.max(3, height / 50)), metric.share).map((t) => wide(t, 11))) + 14;
  // Where the middle of a text lies that shall not leave the drawing.
  const within = (x, text, width) => Math.min(Math.max(x, wide(text, 11) / 2 + 2), width - wide(text, 11) / 2 - 2);

  // A dot that answers; its touch target is larger than itself.
  const dot = (study, point, x, y, { best, on, radius = 4 }) => {
    const group = svg("g", { class: `dot${on ? "" : " off"}${point === best ? " best" : ""}` }, svg("circle", { cx: x, cy: y, r: radius + 5, class: "hit" }), svg("circle", { cx: x, cy: y, r: point === best ? radius + 2 : radius, class: "shown" }));
    return on ? { group, mark: report.pointMark(study, point, group) } : { group };
  };
  const median = (values) => {
    const sorted = [...values].sort((a, b) => a - b), half = sorted.length / 2;
    return sorted.length % 2 ? sorted[Math.floor(half)] : (sorted[half - 1] + sorted[half]) / 2;
  };

  report.drawers.marginals = (figure, study) => {
    const place = report.metricOf(study), metric = study.metrics[place], is = report.chosen(study), best = report.bestOf(study);
    const space = report.inside(figure), axes = study.marginals.length ? study.marginals : study.axes.map((_, i) => i);
    const height = 190, across = Math.max(1, Math.min(3, axes.length, Math.floor(space / 300)));
    const stepX = Math.min(space / across, 560), drawn = [], marks = [];
    const names = axes.map((i) => study.axes[i].levels);
    const widest = names.map((levels) => Math.max(...levels.map((n) => wide(n, 11))));
    let left = axisRoom(metric, height), tilted;
    const most = (levels) => Math.max(1, Math.ceil(levels.length / Math.max(2, (stepX - left - 16) / 30)));
    const tilt = () => { tilted = names.map((levels, i) => widest[i] > ((stepX - left - 16) / levels.length) * most(levels) - 6); };
    tilt();
    // names that are turned by 40 degrees reach to the left of the first dots
    left = Math.max(left, Math.min(90, 0.77 * Math.max(0, ...widest.filter((_, i) => tilted[i]))));
    tilt();
    const below = 42 + Math.max(0, ...widest.map((w, i) => (tilted[i] ? Math.min(110, w * 0.65) : 0)));
    const stepY = height + below + 16;
    const shown = study.points.filter((p) => report.valueOf(p, place) !== null);
    axes.forEach((axis, k) => {
      const { name, levels, joined } = study.axes[axis];
      const frame = { left: (k % across) * stepX + left, right: (k % across) * stepX + stepX - 12, top: 24 + Math.floor(k / across) * stepY, height };
      const at = valueAxis(metric, frame, drawn), gap = (frame.right - frame.left) / levels.length;
      const x = (level) => frame.left + (level + 0.5) * gap, rows = levels.map(() => []);
      shown.forEach((p) => rows[p.at[axis]].push(p));
      const middles = [];
      rows.forEach((points, level) => {
        points.forEach((point, i) => {
          // spread sideways without any draw: steps of the golden ratio
          const aside = points.length > 2 ? (((i * 0.618034) % 1) - 0.5) * Math.min(0.6, 0.06 * points.length) * gap : 0;
          const made = dot(study, point, x(level) + aside, at(report.valueOf(point, place)), { best, on: is(point), radius: shown.length > 300 ? 2.5 : 4 });
          drawn.push(made.group);
          if (made.mark) marks.push(made.mark);
        });
        const some = points.filter(is).map((p) => report.valueOf(p, place));
        if (some.length) middles.push([x(level), at(median(some)), level]);
      });
      if (joined && middles.length > 1) drawn.push(svg("polyline", { points: middles.map(([a, b]) => `${a},${b}`).join(" "), class: "median" }));
      middles.forEach(([a, b]) => drawn.push(svg("line", { x1: a - Math.min(14, gap / 3), x2: a + Math.min(14, gap / 3), y1: b, y2: b, class: "median" })));
      const every = most(levels), y = frame.top + height + 16;
      const room = tilted[k] ? Math.min(160, (left + gap / 2) / 0.77 - 6) : gap * every + 20;
      fittedAll(levels, room, 11).forEach((words, level) => {
        if (level % every) return;
        drawn.push(tilted[k] ? label(x(level) + 4, y - 2, words, { "text-anchor": "end", "font-size": 11, transform: `rotate(-40 ${x(level) + 4} ${y - 2})` }) : label(within(x(level), words, across * stepX), y, words, { "text-anchor": "middle", "font-size": 11 }));
      });
      drawn.push(label(frame.left, frame.top - 9, report.fittedTitle(name, stepX - left - 16), { class: "title" }));
    });
    report.answering(marks);
    report.place(figure, drawn, { width: across * stepX, height: 24 + Math.ceil(axes.length / across) * stepY, title: `${metric.title} over each axis by itself`, note: `${metric.title} of each point, by its value of each axis. Orange: median of these points; red circle: best point.${edge(metric)}` });
  };

  const UNITS = [[0.9995, 0.001, "ms"], [100, 1, "s"], [6000, 60, "min"], [Infinity, 3600, "h"]];
  const seconds = (value, digits = 3) => {
    const [, size, name] = UNITS.find(([below]) => value < below);
    return `${report.plain(value / size, digits)} ${name}`;
  };
  // As few digits as ticks need to differ.
  const timeTexts = (values) => {
    // all in the unit of the least, where the greatest can be read in it
    const [, size, name] = UNITS.find(([below]) => values[0] < below), alike = values.at(-1) / size <= 600;
    const text = (v, digits) => (alike ? `${report.plain(v / size, digits)} ${name}` : seconds(v, digits));
    for (let digits = 1; ; digits += 1) {
      const texts = values.map((v) => text(v, digits));
      if (digits > 8 || (new Set(texts).size === texts.length && values.every((v, i) => text(v, digits + 2) === texts[i]))) return texts;
    }
  };

  report.drawers.cost = (figure, study) => {
    const place = report.metricOf(study), metric = study.metrics[place], is = report.chosen(study), best = report.bestOf(study);
    const there = study.points.filter((p) => p.seconds > 0 && report.valueOf(p, place) !== null);
    if (there.length < 2) return;
    const space = Math.min(report.inside(figure), 760), height = 280, left = axisRoom(metric, height), drawn = [], marks = [];
    const frame = { left, right: space - 16, top: 12, height };
    const at = valueAxis(metric, frame, drawn);
    const logs = there.map((p) => Math.log10(p.seconds)), [low, high] = [Math.min(...logs), Math.max(...logs)];
    const pad = Math.max(0.02, 0.06 * (high - low)), x = linear(low - pad, high + pad, frame.left, frame.right);
    const range = 10 ** (high + pad) / 10 ** (low - pad);
    const marksX = range > 8 ? [-6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6].flatMap((e) => (range > 300 ? [1] : [1, 2, 5]).map((f) => f * 10 ** e)) : ticks(10 ** (low - pad), 10 ** (high + pad), Math.max(2, (space - left) / 110));
    const times = marksX.filter((s) => s > 0 && Math.log10(s) >= low - pad && Math.log10(s) <= high + pad), texts = times.length ? timeTexts(times) : [];
    times.forEach((s, i) => {
      drawn.push(svg("line", { x1: x(Math.log10(s)), x2: x(Math.log10(s)), y1: frame.top, y2: frame.top + frame.height, class: "grid" }), label(within(x(Math.log10(s)), texts[i], space), frame.top + frame.height + 16, texts[i], { "text-anchor": "middle", "font-size": 11 }));
    });
    if (metric.better) {
      // the front: points that no cheaper one equals; the mean of those that pruning left is too good
      let top = null;
      const front = there.filter((p) => is(p) && !p.flattered).sort((a, b) => a.seconds - b.seconds || metric.better * (report.valueOf(b, place) - report.valueOf(a, place))).filter((p) => {
        const value = metric.better * report.valueOf(p, place);
        if (top !== null && value <= top) return false;
        top = value;
        return true;
      });
      drawn.push(svg("polyline", { points: front.map((p) => `${x(Math.log10(p.seconds))},${at(report.valueOf(p, place))}`).join(" "), class: "front" }));
    }
    for (const point of there) {
      const made = dot(study, point, x(Math.log10(point.seconds)), at(report.valueOf(point, place)), { best, on: is(point) });
      drawn.push(made.group);
      if (made.mark) marks.push({ ...made.mark, lines: () => [...made.mark.lines(), `${seconds(point.seconds)} per trial`] });
    }
    drawn.push(label((frame.left + frame.right) / 2, frame.top + frame.height + 36, "time of a trial (log scale)", { "text-anchor": "middle", class: "faint" }));
    report.answering(marks);
    report.place(figure, drawn, { width: space, height: frame.top + frame.height + 44, title: `${metric.title} against the time of a trial`, note: `${metric.title} of each point against the time of a trial${study.classifies ? ", its share of its pack's" : ""}.${metric.better ? " Green line: points that no cheaper one equals." : ""} Red circle: best point.${edge(metric)}` });
  };
  Object.assign(report, { valueAxis, axisRoom });
})();
