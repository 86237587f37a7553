"use strict";
// Two trials beside each other: what differs in their settings and results, and the very images on which they differ.
(() => {
  const { html, button, state } = report;
  const SHOWN = 60;
  const NORMAL = 1.959963984540054; // of a two-sided 95 % interval

  // McNemar's exact test, two-sided: were both equally good, each of the images on which exactly one is right would be
  // a fair coin's throw.  Sums of logarithms, since the terms are no floats for thousands of images.
  const exactP = (won, lost) => {
    const n = won + lost, few = Math.min(won, lost);
    let term = -n * Math.LN2, sum = 1;
    for (let k = 1; k <= few; k += 1) {
      const step = Math.log((n - k + 1) / k);
      term += step;
      sum = sum * Math.exp(-step) + 1; // relative to the newest term, which is the largest
    }
    return Math.min(1, 2 * Math.exp(term + Math.log(sum)));
  };
  // The difference of two accuracies on the same images, after A. Agresti and Y. Min, Statistics in Medicine 24, 2005.
  const difference = (won, lost, images) => {
    const [plus, minus, total] = [won + 0.5, lost + 0.5, images + 2];
    const middle = (plus - minus) / total, half = (NORMAL * Math.sqrt(plus + minus - (plus - minus) ** 2 / total)) / total;
    return [middle - half, middle + half];
  };
  const points = (share) => `${share > 0 ? "+" : ""}${(100 * share).toFixed(2)}`;

  // All trials of the page, of several studies the best of each first.
  const trialsOf = () => {
    const own = report.studies.map((study) => report.inOrder(study, study.points).flatMap((p) => p.trials.map((n) => report.keyOf(study, n))));
    return Array.from({ length: Math.max(0, ...own.map((keys) => keys.length)) }, (_, i) => own.flatMap((keys) => keys.slice(i, i + 1))).flat();
  };
  const severalStudies = () => new Set(report.studies.map((s) => s.study)).size > 1;
  const nameOf = (key) => {
    const { study, number } = report.trialOf(key), [seed, trialState, place] = study.trials[number];
    return `${severalStudies() ? `${study.study} ` : ""}#${number} ${study.points[place].words} seed ${seed}${trialState === "complete" ? "" : ` (${trialState})`}`;
  };
  const short = (key) => {
    const { study, number } = report.trialOf(key);
    return `${severalStudies() ? `${study.study} ` : ""}#${number}`;
  };

  const choice = (side, rebuilt) => {
    const select = html("select", { "data-side": side, "aria-label": side ? "second trial" : "first trial" }, ...trialsOf().map((key) => html("option", { value: key }, nameOf(key))));
    select.value = state.pair[side];
    select.addEventListener("change", () => {
      state.pair[side] = select.value;
      rebuilt();
    });
    return html("label", {}, html("span", { class: `side side-${side}` }, side ? "B" : "A"), select);
  };

  // Cells of a trial as its table shows them; its heads name the settings first, then seed and results.
  const differing = (pair) => {
    const rows = pair.map((key) => {
      const { study, number } = report.trialOf(key);
      return report.trialRow(report.anchorOf(study, number));
    });
    if (!rows[0] || !rows[1]) return null;
    const { names, settings: count } = report.trialHead();
    const settings = [], results = [];
    names.forEach((name, i) => {
      const cells = rows.map((row) => row[i].trim());
      if (i === 0) return;
      (i <= count ? settings : results).push([name, ...cells]);
    });
    return { settings: settings.filter(([, a, b]) => a !== b), results: results.filter(([, a, b]) => a || b) };
  };

  const kinds = [
    ["A right, B wrong", (a, b) => a === 0 && b !== 0],
    ["B right, A wrong", (a, b) => a !== 0 && b === 0],
    ["both wrong, differently", (a, b) => a !== 0 && b !== 0 && a !== b],
  ];

  const images = async (host, pair) => {
    const answers = await report.answersOf(pair);
    if (pair[0] !== state.pair[0] || pair[1] !== state.pair[1]) return;
    if (!answers) return void host.replaceChildren(html("p", { class: "note" }, whyNot(pair)));
    const { group, off } = answers;
    const found = kinds.map(() => []);
    let [both, neither] = [0, 0];
    for (let i = 0; i < group.images; i += 1) {
      const [a, b] = [off(i, 0), off(i, 1)];
      if (a === 0 && b === 0) both += 1;
      else if (a !== 0 && b !== 0) neither += 1;
      kinds.forEach(([, is], k) => is(a, b) && found[k].push(i));
    }
    const [won, lost] = [found[0].length, found[1].length], p = exactP(won, lost), [low, high] = difference(won, lost, group.images);
    const shownP = won + lost === 0 ? "1" : p < 0.0001 ? "< 0.0001" : `= ${p.toFixed(p < 0.01 ? 4 : 3)}`;
    const verdict = p < 0.05 ? "more than the choice of images explains" : "the choice of images may explain this";
    const counts = report.table(["", "B right", "B wrong"], [["A right", both, won], ["A wrong", lost, neither]]);
    const sentence = html("p", {}, html("strong", {}, `A is right on ${report.counted(won, "image")} where B is wrong, B on ${lost} where A is wrong: ${verdict} (McNemar's exact test, p ${won + lost === 0 ? "= 1" : shownP}).`),
      ` Accuracy of A minus that of B: ${points((won - lost) / group.images)} percentage points, 95 % interval [${points(low)}, ${points(high)}], on the same ${report.counted(group.images, "validation image")}.`);
    const note = html("p", { class: "note" }, "The test is about these two networks on other images of the same kind, not about other seeds. A pair that was picked because it differs looks more different than it is.");
    const list = html("ul", { class: "tiles" }), tools = html("div", { class: "chips", role: "group", "aria-label": "Which images" });
    const words = (image) => ({ image, words: [[`is ${group.classes[answers.label(image)]}`], ...pair.map((_, side) => [`${side ? "B" : "A"}: ${group.classes[answers.guess(image, side)]}`, off(image, side) === 0 ? "hit-it" : "missed-it"])] });
    const draw = (kind, all = false) => {
      state.kind = kind;
      const chosen = [...found[kind]];
      const known = new Set(group.pictures?.images ?? []);
      chosen.sort((a, b) => known.has(b) - known.has(a) || a - b); // those that can be shown come first
      const some = all ? chosen : chosen.slice(0, SHOWN);
      report.tiles(list, answers, some.map(words));
      if (chosen.length > some.length) list.append(html("li", { class: "more-tiles" }, button(`Show all ${chosen.length}`, () => draw(kind, true))));
      if (!chosen.length) list.append(html("li", { class: "none" }, "No such image."));
      [...tools.children].forEach((chip, k) => chip.setAttribute("aria-pressed", k === kind));
    };
    kinds.forEach(([name], k) => tools.append(button(`${name} (${found[k].length})`, () => draw(k), { class: "chip" })));
    draw(state.kind ?? (won || !lost ? 0 : 1));
    host.replaceChildren(sentence, counts, note, html("h3", {}, "The images on which they differ"), tools, list);
    if (!group.pictures) list.before(html("p", { class: "note" }, "The images themselves are not in this page; the numbers are their indices in the training set."));
  };

  const whyNot = (pair) => {
    if (typeof DecompressionStream === "undefined") return "This browser is too old to unpack the predictions.";
    const groups = report.answers?.groups ?? [];
    const lost = pair.filter((key) => !groups.some((g) => g.trials.includes(key)));
    if (lost.length) return `The predictions of trial ${lost.map(short).join(" and ")} are not in this page: none are stored, or too many trials rank higher.`;
    return "They were validated on different images, so no image can be compared.";
  };

  const rebuild = (host) => {
    const pair = [...state.pair], found = differing(pair);
    const parts = [html("div", { class: "choices" }, choice(0, () => rebuild(host)), choice(1, () => rebuild(host)), button("Swap", () => report.comparePair(pair[1], pair[0]), { class: "quiet" }))];
    if (pair[0] === pair[1]) parts.push(html("p", {}, "Choose two different trials."));
    else {
      if (found) {
        const head = (first) => [first, `A: ${short(pair[0])}`, `B: ${short(pair[1])}`];
        const settings = found.settings.length ? report.table(head("What differs"), found.settings) : html("p", {}, "Their settings are the same.");
        parts.push(html("div", { class: "beside" }, settings, report.table(head("Result"), found.results)));
      }
      if (pair.every((key) => report.trialOf(key).study.classifies)) {
        const answered = html("div", { class: "answered", "aria-live": "polite" });
        parts.push(answered);
        void images(answered, pair);
        const bins = pair.flatMap((key) => (report.answers?.bins[key]?.length ? [{ of: severalStudies() ? short(key) : `trial ${report.trialOf(key).number}`, bins: report.answers.bins[key] }] : []));
        if (bins.length === 2) {
          const figure = html("figure", { class: "pair-reliability" });
          parts.push(html("h3", {}, "Calibration: how far their probabilities can be trusted"), figure);
          report.drawPair = () => figure.isConnected && report.reliability(figure, bins, { width: report.inside(figure) });
          queueMicrotask(report.drawPair);
        }
      }
    }
    host.replaceChildren(...parts);
  };

  report.starters.push(() => {
    const section = document.querySelector("section.pair"), trials = trialsOf();
    if (!section || trials.length < 2) return;
    const bests = report.studies.flatMap((study) => [report.bestOf(study) ?? study.points[0]].map((p) => report.keyOf(study, p.trials[0])));
    const second = () => {
      const [study] = report.studies, best = report.bestOf(study);
      const other = report.inOrder(study, study.points).find((p) => p !== best && p.values[0]);
      return other ? report.keyOf(study, other.trials[0]) : trials.find((key) => key !== bests[0]);
    };
    const usual = [bests[0], bests[1] ?? second()];
    state.pair = [0, 1].map((side) => (report.trialOf(state.pair[side]) ? state.pair[side] : usual[side]));
    section.hidden = false;
    for (const link of document.querySelectorAll('nav a[href="#pair"]')) link.hidden = false;
    const host = section.querySelector(".pair-host");
    report.comparePair = (a, b) => {
      state.pair = [a, b];
      rebuild(host);
      section.scrollIntoView({ block: "start" });
    };
    rebuild(host);
  });
  Object.assign(report, { exactP });
})();
