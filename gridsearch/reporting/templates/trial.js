"use strict";
// One trial, opened above its table: its settings and results, its curves, what it gets wrong, and a link to it.
(() => {
  const { html, button, state, table } = report;
  const PAIRS = 5, MOST_CLASSES = 120;
  let draws = []; // what draws its figures, anew where the page has another width
  report.drawTrial = () => draws.forEach((draw) => draw());
  const drawing = (draw) => {
    draws.push(draw);
    draw();
  };

  // What is said of the trial's point, and the links to its other trials.
  const pointOf = ({ study, number }) => {
    const point = study.points[study.trials[number][2]], others = point.trials.filter((n) => n !== number && study.trials[n]);
    const said = html("p", { class: "note" }, `Its point: ${report.pointLines(study, point).filter(Boolean).join("; ")}.`);
    if (others.length) said.append(" Its other trials: ", ...others.flatMap((n, i) => [i ? ", " : "", html("a", { href: `#${report.anchorOf(study, n)}` }, `#${n}`)]), ".");
    return said;
  };

  const curves = (host, { study, number }) => {
    const point = study.points[study.trials[number][2]], figure = html("figure", {});
    if (study.curves.trials[number]) {
      host.append(html("h4", {}, `By ${study.unit}`), figure);
      drawing(() => report.curvesOf(figure, { bright: [{ study, point, trial: number, place: 0 }], faint: [] }, { title: `Learning curves of trial ${number}` }));
    } else if (study.curves.leftOut) host.append(html("p", { class: "note" }, "Its curves are not in this page: too many trials rank higher."));
  };

  const commonest = (names, matrix) => {
    const found = matrix.flatMap((row, i) => row.flatMap((n, j) => (n && i !== j ? [[n, i, j]] : [])));
    found.sort((a, b) => b[0] - a[0] || a[1] - b[1] || a[2] - b[2]);
    return found.slice(0, PAIRS).map(([n, i, j]) => {
      const images = matrix[i].reduce((a, b) => a + b, 0);
      return html("li", {}, `${report.isolated(names[i])} predicted as ${report.isolated(names[j])}, ${((100 * n) / images).toFixed(1)} % (${n} of ${report.counted(images, "image")})`);
    });
  };

  const surest = (answers, key) => {
    const { group } = answers, errors = group.errors[group.trials.indexOf(key)], list = html("ul", { class: "tiles" });
    if (!errors.length) return [];
    const words = ([image, p]) => ({ image, words: [[`is ${group.classes[answers.label(image)]}`], [`${(100 * p).toFixed(1)} % ${group.classes[answers.guess(image, 0)]}`, "missed-it"]] });
    report.tiles(list, answers, errors.map(words));
    return [html("h4", {}, "Its most confident errors"), list];
  };

  // What the trial gets wrong, once its answers are unpacked.
  const errorsOf = async (host, below, trial, row) => {
    const answers = await report.answersOf([trial.key]);
    if (state.opened !== row.id || !host.isConnected) return;
    if (!answers) {
      if (report.answers && trial.study.trials[trial.number][1] === "complete") host.append(html("p", { class: "note" }, "Its predictions are not in this page: none are stored, or too many trials rank higher."));
      return;
    }
    const { classes } = answers.group, matrix = report.matrixOf(answers), pairs = commonest(classes, matrix), figure = html("figure", {});
    host.append(html("h4", {}, "What it gets wrong"), pairs.length ? html("ol", { class: "pairs" }, ...pairs) : html("p", {}, "No errors."));
    if (classes.length <= MOST_CLASSES) {
      host.append(figure);
      drawing(() => report.matrices(figure, [{ of: `trial ${trial.number}`, names: classes, matrix }]));
    }
    below.append(...surest(answers, trial.key));
  };

  const close = () => {
    location.hash = "trials-title";
    report.reveal();
  };
  const tools = (trial, row) => {
    const found = [html("a", { href: `#${row.id}` }, "Link to this trial")], other = trial && report.trialOf(state.pair[0]);
    if (trial?.study.address) found.push(html("a", { href: `${trial.study.address}#trial-${trial.number}` }, `In the report of ${trial.study.study}`));
    if (report.comparePair && other && other.key !== trial.key) found.push(button(`Compare with #${other.number}`, () => report.comparePair(other.key, trial.key), { class: "quiet" }));
    return [...found, button("Close", close, { class: "quiet" })];
  };

  // Opens the trial of a row of the table; closes the one that is open where there is no row.
  report.openTrial = (row, { names, settings }) => {
    const host = document.querySelector(".trial-host");
    if (!host) return;
    draws = [];
    host.hidden = !row;
    host.replaceChildren();
    if (!row) return;
    const trial = report.trialAt(row.id), cells = names.map((name, i) => [name, row.texts[i].trim()]).slice(1);
    const [, error] = cells.find(([name]) => name === "error") ?? [];
    const results = cells.slice(settings).filter(([name, text]) => !["", "\u2013"].includes(text) && name !== "error");
    const card = html("article", { class: "trial", "aria-labelledby": "opened" },
      html("header", {}, html("h3", { id: "opened" }, `Trial ${row.texts[0]}`), ...tools(trial, row)),
      error ? html("p", { class: "error" }, html("code", {}, error)) : null,
      html("div", { class: "beside" }, table(["setting", "value"], cells.slice(0, settings)), table(["result", "value"], results)));
    host.append(card);
    if (!trial) return;
    const left = html("div"), right = html("div", { "aria-live": "polite" }), below = html("div");
    card.append(pointOf(trial), html("div", { class: "figures" }, left, right), below);
    curves(left, trial);
    if (trial.study.classifies) void errorsOf(right, below, trial, row);
    card.append(html("p", { class: "note" }, "All its numbers and its log: ", html("code", {}, trial.study.inspect.join(trial.number))));
  };
  report.starters.push(() => report.reveal());
})();
