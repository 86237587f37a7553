"use strict";
// The studies of a page, and what its reader has chosen of them: a metric, a selection of points, two trials.
(() => {
  const { state, html, button } = report;

  const read = (name) => {
    const stored = document.querySelector(`script[data-figures="${name}"]`);
    return stored ? JSON.parse(stored.textContent) : null;
  };
  const metricOf = (study) => Math.max(0, study.metrics.findIndex((m) => m.name === state.metric));
  const valueOf = (point, metric) => point.values[metric]?.[0] ?? null;

  // Whether a point is in what the brushes have chosen: on each axis one of the levels, and the value between two ends.
  const chosen = (study) => {
    const metric = metricOf(study);
    const axes = study.axes.flatMap((axis, i) => {
      const levels = state.brush.get(axis.name);
      return levels ? [[i, new Set(axis.levels.flatMap((name, place) => (levels.has(name) ? [place] : [])))]] : [];
    });
    return (point) => {
      if (!axes.every(([i, levels]) => levels.has(point.at[i]))) return false;
      const value = valueOf(point, metric);
      return !state.range || (value !== null && value >= state.range[0] && value <= state.range[1]);
    };
  };
  const brushed = () => state.brush.size > 0 || state.range !== null;

  // The best by a metric: the winner where that metric ranks the points, else the best value.
  const bestOf = (study, points = study.points) => {
    const metric = metricOf(study), { better } = study.metrics[metric];
    const winner = points.find((p) => p.values[metric]?.[6] === "best");
    if (winner || metric === 0) return winner ?? null;
    const there = points.filter((p) => valueOf(p, metric) !== null);
    return better && there.length ? there.reduce((a, b) => (better * (valueOf(b, metric) - valueOf(a, metric)) > 0 ? b : a)) : null;
  };
  const inOrder = (study, points) => {
    const metric = metricOf(study), { better } = study.metrics[metric];
    if (metric === 0 || !better) return points;
    const key = (p) => valueOf(p, metric) ?? -better * Infinity;
    return [...points].sort((a, b) => better * (key(b) - key(a)) || 0);
  };

  // All points of the page in the order of the metric that is shown, those of several studies together.
  const ordered = () => {
    if (report.studies.length === 1) return inOrder(report.studies[0], report.studies[0].points);
    const all = report.studies.flatMap((study) => study.points.map((point) => [point, valueOf(point, metricOf(study)), study.metrics[metricOf(study)].better]));
    const there = all.filter(([, value]) => value !== null);
    return there.sort(([, a, better], [, b]) => better * (b - a) || 0).map(([point]) => point);
  };

  const standing = (word) => (word === "tied" ? "tied with the best" : word);
  // What is said of a point: its settings, its value with its interval, and on how many seeds that rests.
  const pointLines = (study, point) => {
    const metric = metricOf(study), value = point.values[metric], rank = value ? value[5] : point.rank;
    const seeds = point.trials.length > 1 ? point.replicates : `trial ${point.trials[0]}`;
    return [
      point.words,
      value ? `${study.metrics[metric].title}: ${value[3]}` : point.lost || "no value",
      value && value[4] ? `95 % interval ${value[4]}` : null,
      [rank ? `rank ${rank}` : "", standing(value?.[6]), seeds].filter(Boolean).join(", "),
    ];
  };
  // A trial of the page: by its key, "0:7" for trial 7 of the first study, and by the id of its row, which is its address.
  const keyOf = (study, number) => `${study.key}${number}`;
  const anchorOf = (study, number) => `trial-${number}${study.suffix}`;
  const trial = (study, number) => ({ study, number, key: keyOf(study, number) });
  const trialOf = (key) => {
    const [place, number] = (key ?? "").split(":"), study = report.studies[place];
    return study?.trials[number] ? trial(study, Number(number)) : null;
  };
  const trialAt = (id) => {
    const [, number, suffix] = /^trial-(\d+)(.*)$/.exec(id) ?? [];
    const study = report.studies.find((s) => s.suffix === suffix && s.trials[number]);
    return study ? trial(study, Number(number)) : null;
  };

  // A click opens the trial; with Shift held, it is compared with the first of the two that are.
  const goTo = (study, number) => (event) => {
    const id = anchorOf(study, number);
    if (event.shiftKey && report.comparePair) {
      event.preventDefault();
      report.comparePair(state.pair[0], keyOf(study, number));
    } else if (location.hash === `#${id}`) report.reveal();
    else location.hash = id;
  };
  const pointMark = (study, point, element) => ({
    element,
    point: study.key + study.points.indexOf(point),
    lines: () => pointLines(study, point),
    go: goTo(study, point.trials[0]),
  });

  const words = (study, count) => {
    const parts = study.axes.flatMap((axis) => {
      const levels = state.brush.get(axis.name);
      return levels ? [`${axis.name}: ${axis.levels.filter((l) => levels.has(l)).join(", ") || "nothing"}`] : [];
    });
    if (state.range) {
      const metric = study.metrics[metricOf(study)], digits = report.digitsOf(metric.low, metric.high);
      const [low, high] = state.range.map((end) => (Number.isFinite(end) ? report.show(end, metric.share, digits) : null));
      parts.push(`${metric.title}: ${low === null ? `up to ${high}` : high === null ? `from ${low}` : `${low} to ${high}`}`);
    }
    return parts.length ? `${count} of ${report.counted(study.points.length, "point")} (${parts.join("; ")})` : study.points.length === 1 ? "the only point" : `all ${report.counted(study.points.length, "point")}`;
  };

  // The bar that stays in sight: which metric figures show, and which points are chosen.
  const startControls = () => {
    const bar = document.querySelector(".controls"), [study, ...others] = report.studies;
    if (!bar || !study) return;
    const metrics = study.metrics.filter((m) => others.every((s) => s.metrics.some((other) => other.name === m.name)));
    if (others.length && metrics.length < 2) return;
    const options = metrics.map((m) => html("option", { value: m.name }, m.title));
    const select = html("select", { id: "metric" }, ...options);
    select.value = study.metrics[metricOf(study)].name;
    select.addEventListener("change", () => {
      state.metric = select.value;
      state.range = null;
      report.changed({ metric: true });
    });
    const said = html("output", { "aria-live": "polite", for: "metric" });
    const clear = button("Show all points", () => report.clear(), { class: "quiet" });
    bar.replaceChildren(html("label", {}, "Metric of the figures ", select), said, clear);
    bar.hidden = false;
    for (const asked of document.querySelectorAll(".asks")) asked.hidden = false;
    report.say = () => {
      const is = chosen(study);
      said.textContent = others.length ? "" : words(study, study.points.filter(is).length);
      clear.hidden = !brushed();
    };
    report.say();
  };

  report.clear = () => {
    state.brush.clear();
    state.range = null;
    report.changed();
  };
  // Draws everything that follows from the reader's choice anew.
  report.changed = (what = {}) => {
    report.say?.();
    report.draw();
    report.filterTables?.(what);
  };
  report.draw = () => {
    report.hideTip();
    for (const figure of document.querySelectorAll("figure[data-figure]")) {
      const study = report.studies[figure.dataset.study === "all" ? 0 : Number(figure.dataset.study || 0)];
      const drawer = report.drawers[figure.dataset.figure];
      if (study && drawer) drawer(figure, study);
    }
    report.drawPair?.();
    report.drawTrial?.();
  };
  report.drawers = {};
  report.starters.push(() => {
    report.studies = read("studies") ?? [];
    report.studies.forEach((study, i) => (study.key = `${i}:`));
    report.answers = read("answers");
    startControls();
    report.draw();
  });
  Object.assign(report, { anchorOf, bestOf, brushed, chosen, goTo, inOrder, keyOf, metricOf, ordered, pointLines, pointMark, trialAt, trialOf, valueOf });
})();
