"use strict";
// What a network gets wrong: its confusion matrix, and how far its probabilities can be trusted.
(() => {
  const { svg, label, wide, linear, PALETTE } = report;
  const MOST_GROUNDS = 40; // of more classes only the cells that hold images are drawn, on one ground
  const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

  // One matrix at a place: what is drawn, and the marks that answer; `frame` says how large its cells and names are.
  const matrixAt = ({ of, names, matrix }, { x0, y0, cell, longest, titled }) => {
    const short = report.fittedAll(names, longest + 2, 11);
    const drawn = [], marks = [], left = x0 + longest + 12, top = y0 + (titled ? 22 : 6), count = names.length;
    const every = Math.max(1, Math.ceil(13 / cell)), totals = matrix.map((row) => row.reduce((a, b) => a + b, 0));
    const sparse = count > MOST_GROUNDS;
    if (sparse) drawn.push(svg("rect", { x: left, y: top, width: count * cell, height: count * cell, class: "ground" }));
    if (titled) drawn.push(label(left, y0 + 12, report.fittedTitle(of, count * cell), { class: "title" }));
    matrix.forEach((row, i) => {
      row.forEach((n, j) => {
        if (sparse && !n) return;
        const share = totals[i] ? n / totals[i] : 0, box = { x: left + j * cell + 0.5, y: top + i * cell + 0.5, width: cell - 1, height: cell - 1 };
        const group = svg("g", { class: i === j ? "cell recognised" : "cell mistaken" }, svg("rect", { ...box, class: "ground" }), svg("rect", { ...box, class: "heat", "fill-opacity": Math.sqrt(share).toFixed(3) }));
        const text = cell >= 30 && n ? percent(share, share >= 0.995 ? 0 : 1).replace(" %", "") : "";
        if (text) group.append(label(left + (j + 0.5) * cell, top + (i + 0.5) * cell + 4, text, { "text-anchor": "middle", "font-size": 10.5, class: share > 0.3 ? "on-heat" : null }));
        drawn.push(group);
        if (!n) return;
        const words = i === j ? `${names[i]}: recognised` : `${report.isolated(names[i])} predicted as ${report.isolated(names[j])}`;
        marks.push({ element: group, lines: () => [words, `${n} of ${report.counted(totals[i], "image")}, ${percent(share)}`, titled ? of : null] });
      });
      if (i % every) return;
      const [x, y] = [left + (i + 0.5) * cell + 4, top + count * cell + 12], name = short[i];
      drawn.push(label(left - 7, top + (i + 0.5) * cell + 4, name, { "text-anchor": "end", "font-size": 11 }), label(x, y, name, { "text-anchor": "end", "font-size": 11, transform: `rotate(-45 ${x} ${y})` }));
    });
    return { drawn, marks };
  };

  // Confusion matrices of some networks, as many beside each other as there is space for: [{ of, names, matrix }, ...].
  const matrices = (figure, shown) => {
    const space = report.inside(figure), most = Math.max(...shown.map((s) => s.names.length)), titled = shown.length > 1;
    const longest = Math.min(130, 0.3 * space, Math.max(...shown.flatMap((s) => s.names.map((n) => wide(n, 11)))));
    const least = longest + 22 + most * (most > 30 ? 9 : 20), across = Math.max(1, Math.min(shown.length, Math.floor(space / least)));
    const cell = Math.min(54, Math.max(most > 30 ? 9 : 20, (space / across - longest - 22) / most));
    const step = longest + 22 + most * cell, below = longest * 0.72 + 22, high = (titled ? 22 : 6) + most * cell + below;
    const made = shown.map((one, k) => matrixAt(one, { x0: (k % across) * step, y0: Math.floor(k / across) * high, cell, longest, titled }));
    report.answering(made.flatMap((m) => m.marks));
    report.place(figure, made.flatMap((m) => m.drawn), {
      width: Math.max(across * step, Math.min(space, 300)), height: Math.ceil(shown.length / across) * high,
      title: `Confusion matrix of ${shown.map((s) => s.of).join(", ")}`,
      note: `True class (down), predicted class (across), in percent of the true class${titled ? "" : ` (${shown[0].of})`}.`,
    });
  };
  // Of the study, or beside each other of all that the page is about.
  report.drawers.confusion = (figure, study) => {
    const shown = (figure.dataset.study === "all" ? report.studies : [study]).flatMap((s) => (s.confusion?.matrix ? s.confusion : []));
    if (shown.length) matrices(figure, shown);
  };

  // Accuracy against probability for some trials: [{ of, bins: [[probability, images, right, low, high], ...] }].
  const reliability = (figure, shown, { width }) => {
    const size = Math.min(width - 80, 380), left = 56, top = 30, low = 90;
    const x = linear(0, 1, left, left + size), y = linear(0, 1, top + size, top), drawn = [], marks = [];
    for (const share of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
      drawn.push(svg("line", { x1: x(0), x2: x(1), y1: y(share), y2: y(share), class: "grid" }), svg("line", { x1: x(share), x2: x(share), y1: y(0), y2: y(1), class: "grid" }));
      drawn.push(label(left - 6, y(share) + 4, percent(share, 0), { "text-anchor": "end", "font-size": 11 }), label(x(share), top + size + low + 30, percent(share, 0), { "text-anchor": "middle", "font-size": 11 }));
    }
    drawn.push(svg("line", { x1: x(0), x2: x(1), y1: y(0), y2: y(1), class: "diagonal" }), label(x(0), top - 14, "accuracy (line: 95 % interval)", { class: "faint" }), label((x(0) + x(1)) / 2, top + size + low + 50, "confidence: probability of the predicted class", { "text-anchor": "middle", class: "faint" }));
    const most = Math.max(...shown.flatMap((s) => s.bins.map((b) => b[1]))), base = top + size + low + 14, bar = linear(0, most, 0, low - 12);
    const wideBar = size / 15 / shown.length;
    shown.forEach(({ of, bins }, k) => {
      const stroke = PALETTE[k];
      drawn.push(svg("polyline", { points: bins.map((b) => `${x(b[0])},${y(b[2] / b[1])}`).join(" "), class: "bins", stroke, "stroke-dasharray": k ? "5 4" : null }));
      for (const [probability, images, right, from, to] of bins) {
        const place = Math.min(14, Math.max(0, Math.ceil(probability * 15 - 1e-9) - 1));
        const group = svg("g", { class: "dot" });
        group.append(
          svg("line", { x1: x(probability), x2: x(probability), y1: y(from), y2: y(to), stroke, "stroke-width": 1.4 }),
          svg("circle", { cx: x(probability), cy: y(right / images), r: 4, fill: stroke }), svg("circle", { cx: x(probability), cy: y(right / images), r: 10, class: "hit" }),
          svg("rect", { x: x(place / 15) + k * wideBar + 0.5, y: base - bar(images), width: Math.max(1, wideBar - 1), height: bar(images), fill: stroke, "fill-opacity": 0.75 }),
        );
        drawn.push(group);
        marks.push({ element: group, lines: () => [`${of}: confidence ${percent(probability)}`, `${right} of ${report.counted(images, "image")} right, ${percent(right / images)}`, `95 % interval ${percent(from)} to ${percent(to)}`] });
      }
    });
    drawn.push(label(x(0), base - low + 4, "images", { class: "faint" }), label(left - 6, base - low + 22, most, { "text-anchor": "end", "font-size": 11 }), label(left - 6, base, 0, { "text-anchor": "end", "font-size": 11 }));
    let bottom = top + size + low + 58;
    if (shown.length > 1) {
      for (const [k, { of }] of shown.entries()) {
        bottom += 18;
        drawn.push(svg("line", { x1: left, x2: left + 26, y1: bottom - 4, y2: bottom - 4, stroke: PALETTE[k], "stroke-width": 3, "stroke-dasharray": k ? "5 4" : null }), label(left + 34, bottom, of));
      }
    }
    report.answering(marks);
    report.place(figure, drawn, { width: left + size + 24, height: bottom + 6, title: `Reliability of ${shown.map((s) => s.of).join(" and ")}` });
  };
  report.drawers.reliability = (figure, study) => {
    const { of, bins } = study.confusion ?? {};
    if (bins?.length) reliability(figure, [{ of, bins }], { width: report.inside(figure) });
  };
  Object.assign(report, { matrices, reliability });
})();
