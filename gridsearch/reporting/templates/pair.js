"use strict";
// Two trials beside each other: what differs in their settings and results, and the very images on which they differ.
(() => {
  const { html, button, show, state } = report;
  const SHOWN = 60;
  const NORMAL = 1.959963984540054; // of a two-sided 95 % interval

  // Numbers that were packed with zlib and base64; promised, since the browser inflates in the background.
  const inflated = async (text, Kind) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Kind(await new Response(stream).arrayBuffer());
  };
  const unpacked = new Map();
  const unpack = async (group) => {
    if (!unpacked.has(group)) {
      const Kind = group.bytes === 1 ? Uint8Array : Uint16Array;
      const [labels, table, places] = await Promise.all([inflated(group.labels, Kind), inflated(group.guesses, Kind), group.places && inflated(group.places, Uint32Array)]);
      unpacked.set(group, { labels, table, places });
    }
    return unpacked.get(group);
  };

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

  const pointOf = (study, number) => study.points[study.trials[number][2]];
  const trialsOf = (study) => report.inOrder(study, study.points).flatMap((p) => p.trials);
  const nameOf = (study, number) => {
    const [seed, trialState] = study.trials[number];
    return `#${number} ${pointOf(study, number).words} seed ${seed}${trialState === "complete" ? "" : ` (${trialState})`}`;
  };

  const choice = (study, side, rebuilt) => {
    const select = html("select", { "data-side": side, "aria-label": side ? "second trial" : "first trial" }, ...trialsOf(study).map((n) => html("option", { value: n }, nameOf(study, n))));
    select.value = state.pair[side];
    select.addEventListener("change", () => {
      state.pair[side] = Number(select.value);
      rebuilt();
    });
    return html("label", {}, html("span", { class: `side side-${side}` }, side ? "B" : "A"), select);
  };

  const table = (head, rows) =>
    html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": head.join(", ") },
      html("table", {}, html("thead", {}, html("tr", {}, ...head.map((h) => html("th", { scope: "col", class: "still-head" }, h)))),
        html("tbody", {}, ...rows.map((row) => html("tr", {}, ...row.map((cell, i) => html(i ? "td" : "th", i ? {} : { scope: "row" }, cell)))))));

  // Cells of a trial as its table shows them; its heads name the settings first, then seed and results.
  const differing = (pair) => {
    const rows = pair.map((n) => report.trialRow?.(n));
    if (!rows[0] || !rows[1]) return null;
    const { names, axes } = report.trialHead();
    const settings = [], results = [];
    names.forEach((name, i) => {
      const cells = rows.map((row) => row[i].trim());
      if (i === 0) return;
      (i <= axes + 1 ? settings : results).push([name, ...cells]);
    });
    return { settings: settings.filter(([, a, b]) => a !== b), results: results.filter(([, a, b]) => a || b) };
  };

  const caption = (answers, group, image, pair) => {
    const name = (place) => group.classes[(answers.labels[image] + answers.table[image * group.trials.length + place]) % group.classes.length];
    return [`is ${group.classes[answers.labels[image]]}`, ...pair.map((n, side) => `${side ? "B" : "A"}: ${name(group.trials.indexOf(n))}`)];
  };
  const sheets = new Map();
  const sheet = async (source) => {
    if (!sheets.has(source)) {
      const image = new Image();
      image.src = source;
      sheets.set(source, image.decode().then(() => image));
    }
    return sheets.get(source);
  };
  const tile = (group, answers, image, pair, canvases) => {
    const words = caption(answers, group, image, pair), { pictures } = group;
    const where = answers.places ? `training image ${answers.places[image]}` : `validation image ${image}`;
    const at = pictures ? pictures.images.indexOf(image) : -1;
    let seen;
    if (at >= 0) {
      const [w, h] = pictures.size ?? pictures.sizes[at];
      seen = html("canvas", { width: w, height: h, role: "img", "aria-label": `${where}: ${words.join(", ")}` });
      canvases.push([seen, (at % pictures.across) * pictures.cell, Math.floor(at / pictures.across) * pictures.cell, w, h]);
    } else seen = html("span", { class: "unseen" }, answers.places ? `no. ${answers.places[image]}` : `no. ${image}`);
    const right = (place) => answers.table[image * group.trials.length + place] === 0;
    return html("li", { title: where }, seen, html("span", {}, words[0]), ...pair.map((n, side) => html("span", { class: right(group.trials.indexOf(n)) ? "hit-it" : "missed-it" }, words[side + 1])));
  };

  const kinds = [
    ["A right, B wrong", (a, b) => a === 0 && b !== 0],
    ["B right, A wrong", (a, b) => a !== 0 && b === 0],
    ["both wrong, not alike", (a, b) => a !== 0 && b !== 0 && a !== b],
  ];

  const images = async (host, study, pair, group) => {
    const answers = await unpack(group), places = pair.map((n) => group.trials.indexOf(n)), count = group.trials.length;
    if (pair[0] !== state.pair[0] || pair[1] !== state.pair[1]) return;
    const of = (image, side) => answers.table[image * count + places[side]];
    const found = kinds.map(() => []);
    let [both, neither] = [0, 0];
    for (let i = 0; i < group.images; i += 1) {
      const [a, b] = [of(i, 0), of(i, 1)];
      if (a === 0 && b === 0) both += 1;
      else if (a !== 0 && b !== 0) neither += 1;
      kinds.forEach(([, is], k) => is(a, b) && found[k].push(i));
    }
    const [won, lost] = [found[0].length, found[1].length], p = exactP(won, lost), [low, high] = difference(won, lost, group.images);
    const shownP = won + lost === 0 ? "1" : p < 0.0001 ? "< 0.0001" : `= ${p.toFixed(p < 0.01 ? 4 : 3)}`;
    const verdict = p < 0.05 ? "more than the luck of the images explains" : "which the luck of the images may explain";
    const counts = table(["", "B right", "B wrong"], [["A right", both, won], ["A wrong", lost, neither]]);
    const sentence = html("p", {}, html("strong", {}, `A is right on ${won} images where B is wrong, B on ${lost} where A is wrong: ${verdict} (McNemar's exact test, p ${won + lost === 0 ? "= 1" : shownP}).`),
      ` Accuracy of A less that of B: ${points((won - lost) / group.images)} percentage points, 95 % interval [${points(low)}, ${points(high)}], on the same ${group.images} validation images.`);
    const note = html("p", { class: "note" }, "This is about these two networks and about other images of the same kind. It says nothing about another seed, and a pair that was picked because it differs looks more different than it is.");
    const list = html("ul", { class: "tiles" }), tools = html("div", { class: "chips", role: "group", "aria-label": "Which images" });
    const draw = (kind, all = false) => {
      state.kind = kind;
      const canvases = [], chosen = [...found[kind]];
      const known = new Set(group.pictures?.images ?? []);
      chosen.sort((a, b) => known.has(b) - known.has(a) || a - b); // those that can be shown come first
      const some = all ? chosen : chosen.slice(0, SHOWN);
      list.replaceChildren(...some.map((i) => tile(group, answers, i, pair, canvases)));
      if (chosen.length > some.length) list.append(html("li", { class: "more-tiles" }, button(`Show all ${chosen.length}`, () => draw(kind, true))));
      if (!chosen.length) list.append(html("li", { class: "none" }, "No such image."));
      [...tools.children].forEach((chip, k) => chip.setAttribute("aria-pressed", k === kind));
      if (canvases.length) void sheet(group.pictures.source).then((source) => canvases.forEach(([c, x, y, w, h]) => c.getContext("2d").drawImage(source, x, y, w, h, 0, 0, w, h)));
    };
    kinds.forEach(([name], k) => tools.append(button(`${name} (${found[k].length})`, () => draw(k), { class: "chip" })));
    draw(state.kind ?? (won || !lost ? 0 : 1));
    host.replaceChildren(sentence, counts, note, html("h3", {}, "The images on which they differ"), tools, list);
    if (!group.pictures) list.before(html("p", { class: "note" }, "The images themselves are not in this page; their numbers are places in the training set."));
  };

  const whyNot = (study, pair) => {
    const groups = report.answers?.groups ?? [];
    const lost = pair.filter((n) => !groups.some((g) => g.trials.includes(n)));
    if (lost.length) return `The answers of trial ${lost.join(" and ")} are not in this page: it has none stored, or too many trials are ahead of it.`;
    return "They were asked about different validation images, so no image can be compared.";
  };

  const rebuild = (host, study) => {
    const pair = [...state.pair], found = differing(pair);
    const parts = [html("div", { class: "choices" }, choice(study, 0, () => rebuild(host, study)), choice(study, 1, () => rebuild(host, study)), button("Swap", () => report.comparePair(pair[1], pair[0]), { class: "quiet" }))];
    if (pair[0] === pair[1]) parts.push(html("p", {}, "Choose two different trials."));
    else {
      if (found) {
        const head = (first) => [first, `A: #${pair[0]}`, `B: #${pair[1]}`];
        const settings = found.settings.length ? table(head("What differs"), found.settings) : html("p", {}, "Their settings are the same.");
        parts.push(html("div", { class: "beside" }, settings, table(head("Result"), found.results)));
      }
      const group = report.answers?.groups.find((g) => pair.every((n) => g.trials.includes(n)));
      if (study.classifies) {
        const answered = html("div", { class: "answered", "aria-live": "polite" });
        parts.push(answered);
        if (!group) answered.append(html("p", { class: "note" }, whyNot(study, pair)));
        else if (typeof DecompressionStream === "undefined") answered.append(html("p", { class: "note" }, "This browser is too old to unpack the images' answers."));
        else void images(answered, study, pair, group);
        const bins = pair.flatMap((number) => (report.answers?.bins[number]?.length ? [{ of: `trial ${number}`, bins: report.answers.bins[number] }] : []));
        if (bins.length === 2) {
          const figure = html("figure", { class: "pair-reliability" });
          parts.push(html("h3", {}, "How far their probabilities can be trusted"), figure);
          report.drawPair = () => figure.isConnected && report.reliability(figure, bins, { width: report.inside(figure) });
          queueMicrotask(report.drawPair);
        }
      }
    }
    host.replaceChildren(...parts);
  };

  report.starters.push(() => {
    const section = document.querySelector("section.pair"), [study] = report.studies;
    if (!section || !study || document.querySelector("main[data-comparison]")) return;
    const trials = trialsOf(study);
    if (trials.length < 2) return;
    const best = report.bestOf(study), [first] = best?.trials ?? trials;
    const second = report.inOrder(study, study.points).find((p) => p !== best && p.values[0])?.trials[0] ?? trials.find((n) => n !== first);
    state.pair = [0, 1].map((side) => (study.trials[state.pair[side]] ? state.pair[side] : [first, second][side]));
    section.hidden = false;
    for (const link of document.querySelectorAll('nav a[href="#pair"]')) link.hidden = false;
    const host = section.querySelector(".pair-host");
    report.comparePair = (a, b) => {
      state.pair = [a, b];
      rebuild(host, study);
      section.scrollIntoView({ block: "start" });
    };
    rebuild(host, study);
  });
  Object.assign(report, { exactP });
})();
