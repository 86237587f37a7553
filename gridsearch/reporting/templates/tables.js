"use strict";
// Tables that sort and filter, by what is typed and by the points that a brush has chosen; long ones draw as they are
// scrolled to.
(() => {
  const PAGE = 200; // rows that are drawn at once; more come as they are scrolled to
  const PRINTED = 2000; // rows that are printed, some forty pages
  const collator = new Intl.Collator(undefined, { numeric: true });
  const number = (text) => {
    const value = parseFloat(text.replace(/^[#[]/, ""));
    return Number.isNaN(value) ? null : value;
  };

  // What is not a number comes last, whichever way the column is sorted.
  const compare = (a, b, sign) => {
    const x = number(a), y = number(b);
    if (x !== null && y !== null) return sign * (x - y);
    if (x !== null || y !== null) return x !== null ? -1 : 1;
    return sign * collator.compare(a, b);
  };

  // A number that stands by itself, be it with a unit or a spread: 93.71 of "93.71 ± 0.12 %", none of "3x" or "\"3\"".
  const own = (text) => (/^[#[]?[+-]?(\d|\.\d)[\d.e+-]*(\s?%|\s±.*|,.*\])?$/i.test(text) ? number(text) : null);
  const unquoted = (text) => (/^".*"$/.test(text) ? text.slice(1, -1) : text);

  // Cut what is typed into conditions on a column, by the name that its heading shows (spaces and all), and words.
  const parse = (typed, names) => {
    const heads = [...new Set(names)].sort((a, b) => b.length - a.length);
    const found = [];
    for (let rest = typed.trim(); rest; rest = rest.trimStart()) {
      const heading = (same) => heads.find((h) => h && same(rest.slice(0, h.length), h) && /^\s*(<=|>=|=|<|>)/.test(rest.slice(h.length)));
      const name = heading((a, b) => a === b) ?? heading((a, b) => a.toLowerCase() === b.toLowerCase());
      if (name !== undefined) rest = rest.slice(name.length).trimStart();
      const sign = name === undefined ? "" : /^(<=|>=|=|<|>)\s*/.exec(rest)[0];
      rest = rest.slice(sign.length);
      const value = /^("[^"]*"|\S*)/.exec(rest)[0];
      rest = rest.slice(value.length);
      if (name !== undefined || value) found.push({ name, sign: sign.trim(), value });
    }
    return found;
  };

  // A word is looked for in the whole row; name=value, name<value and name>value in the columns of that name.
  const test = ({ name, sign, value }, names) => {
    const wanted = value.toLowerCase();
    if (name === undefined) return (texts) => texts.some((text) => text.toLowerCase().includes(unquoted(wanted)));
    const y = own(wanted);
    const holds = (cell) => {
      const text = cell.trim().toLowerCase(), x = own(text);
      const word = /\s/.test(text) || (x === null && !/^(none|true|false)$/.test(text)); // what quotes may hold
      if (sign === "=") return text === wanted || (word && text === unquoted(wanted)) || (x !== null && x === y);
      if (x === null || y === null) return false;
      return { "<": x < y, ">": x > y, "<=": x <= y, ">=": x >= y }[sign];
    };
    const columns = names.flatMap((other, column) => (other === name ? [column] : []));
    return (texts) => columns.some((column) => holds(texts[column]));
  };

  const anchor = (id, text) => report.html("a", { href: `#${id}` }, text);
  // A row of a long table is an array until it is shown.
  const build = (row, headings, id) => {
    const element = document.createElement("tr");
    element.className = row.kind;
    if (id) element.id = id;
    row.texts.forEach((text, column) => {
      const cell = element.insertCell();
      if (headings[column].className === "n") cell.className = "n";
      else if (text.length > 28) cell.className = "w";
      if (column < row.texts.length - 1 || !row.links.length) {
        cell.textContent = text;
        return;
      }
      row.links.forEach((n, i) => cell.append(i ? " " : "", anchor(`trial-${n}`, n)));
    });
    return element;
  };

  const tables = new Map();
  const { state } = report;
  state.tables = new Map(); // by name: what the reader has made of each, kept where a live page brings newer rows

  // The point of the study that a row is about, by its place: a row of the ranking is that point's, one of the trials
  // belongs to it.
  const pointOf = (table, row) => {
    if (table === "points") return report.studies?.[0]?.points[row.place];
    const trial = report.trialAt(row.id);
    return trial ? trial.study.points[trial.study.trials[trial.number][2]] : undefined;
  };

  const start = (table) => {
    const body = table.tBodies[0];
    const headings = [...table.tHead.rows[0].cells];
    const names = headings.map((cell) => cell.textContent.trim());
    const named = (name) => table.id && document.querySelector(`${name}[data-for="${table.id}"]`);
    const input = named("input"), output = named("output"), button = named("button");
    const rows = [...body.rows].map((element) => ({ element, id: element.id, texts: [...element.cells].map((cell) => cell.textContent) }));
    const stored = table.id && document.querySelector(`script[data-rows="${table.id}"]`);
    for (const [cells, kind, links, id = `trial-${cells[0]}`] of stored ? JSON.parse(stored.textContent) : []) {
      const texts = cells.length < headings.length ? [...cells, links.join(" ") || "\u2013"] : cells;
      rows.push({ kind, links, texts, id: table.id === "trials" ? id : "" });
    }
    rows.forEach((row, place) => (row.place = place));
    const brushes = table.id === "points" || table.id === "trials";
    const first = button ? PAGE : rows.length;
    let kept = rows, shown = first, marked;

    const elementOf = (row) => (row.element ??= build(row, headings, row.id));
    // The trial that is opened has its row there, on top where a filter hides it or it has not been drawn yet.
    const draw = () => {
      const drawn = kept.slice(0, shown), opened = rows.find((row) => row.id && row.id === state.opened);
      if (opened && !drawn.includes(opened)) drawn.unshift(opened);
      body.replaceChildren(...drawn.map(elementOf));
      marked?.element.classList.remove("mark");
      opened?.element.classList.add("mark");
      marked = opened;
      if (button) button.hidden = shown >= kept.length;
    };
    const more = () => {
      body.append(...kept.slice(shown, shown + PAGE).map(elementOf));
      shown = Math.min(kept.length, shown + PAGE);
      button.hidden = shown >= kept.length;
    };
    const filter = () => {
      const tests = parse(input.value, names).map((condition) => test(condition, names));
      if (brushes && report.brushed?.()) {
        const is = report.chosen(report.studies[0]); // brushes are for a page of one study
        tests.push((_, row) => {
          const point = pointOf(table.id, row);
          return point !== undefined && is(point);
        });
      }
      kept = tests.length ? rows.filter((row) => tests.every((holds) => holds(row.texts, row))) : rows;
      shown = first;
      output.textContent = tests.length ? `${kept.length} of ${report.counted(rows.length, "row")}` : "";
      if (table.id) remember({ filter: input.value });
      draw();
    };
    const remember = (what) => table.id && state.tables.set(table.id, { ...state.tables.get(table.id), ...what });
    const mark = (column, up) => {
      for (const other of headings) other.removeAttribute("aria-sort");
      headings[column]?.setAttribute("aria-sort", up ? "ascending" : "descending");
    };
    const again = () => (input ? filter() : draw());
    const sort = (column, up) => {
      mark(column, up);
      remember({ column: names[column], up });
      rows.sort((a, b) => compare(a.texts[column], b.texts[column], up ? 1 : -1));
      again();
    };
    // In the order of a metric that the figures show; what has none of it comes last.
    const byMetric = () => {
      const [study] = report.studies, metric = study.metrics[report.metricOf(study)];
      const places = new Map(report.ordered().map((point, place) => [point, place]));
      const placeOf = (row) => places.get(pointOf(table.id, row)) ?? Infinity;
      mark(names.indexOf(metric.title), metric.better < 0);
      remember({ column: undefined });
      rows.sort((a, b) => placeOf(a) - placeOf(b) || a.place - b.place);
    };

    headings.forEach((heading, column) =>
      heading.firstElementChild?.addEventListener("click", () => sort(column, heading.getAttribute("aria-sort") !== "ascending")),
    );
    if (input) input.addEventListener("input", filter);
    if (button) {
      button.addEventListener("click", more);
      new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && !button.hidden && more(), {
        root: button.parentElement,
        rootMargin: "600px",
      }).observe(button);
    }
    // On paper nothing can be scrolled to: all rows stand there, or how many more there are and where.
    const printed = named("p.printed");
    const print = () => {
      body.append(...kept.slice(shown, Math.max(shown, PRINTED)).map(elementOf));
      const notes = [];
      if (kept.length < rows.length) {
        const why = input.value.trim() ? `match "${input.value.trim()}"` : "are of the chosen points";
        notes.push(`Only the ${kept.length} of ${report.counted(rows.length, "row")} that ${why}.`);
      }
      const left = kept.length - Math.max(shown, PRINTED);
      if (left > 0) notes.push(`\u2026 and ${report.counted(left, "more row")}, in ${printed.dataset.file}.`);
      if (printed) printed.textContent = notes.join(" ");
    };
    tables.set(table.id || table, { input, filter, print, draw, byMetric, rows, names, settings: Number(table.dataset.settings || 0) });

    const known = state.tables.get(table.id);
    if (!known) return;
    if (input) input.value = known.filter ?? "";
    if (known.column !== undefined && names.includes(known.column)) sort(names.indexOf(known.column), known.up);
    else again();
  };

  // A link to a trial opens it, and shows its row.
  const reveal = () => {
    const id = location.hash.slice(1), table = tables.get("trials");
    const row = /^trial-\d/.test(id) ? table?.rows.find((r) => r.id === id) : undefined;
    const before = state.opened;
    state.opened = row?.id ?? null;
    if (!table || (!before && !row)) return;
    table.draw();
    report.openTrial(row, table);
    if (!row || report.updating) return;
    const box = row.element.closest(".scroll");
    box.scrollTop += row.element.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 3;
    document.querySelector(".trial-host").scrollIntoView({ block: "start" });
  };

  // After a choice in the figures: the rows of the chosen points, in the order of the metric that is shown.
  report.filterTables = ({ metric = false } = {}) => {
    for (const name of ["points", "trials"]) {
      const table = tables.get(name);
      if (!table?.input) continue;
      if (metric) table.byMetric();
      table.filter();
    }
  };
  report.trialHead = () => tables.get("trials") ?? { names: [], settings: 0 };
  report.trialRow = (id) => tables.get("trials")?.rows.find((row) => row.id === id)?.texts;
  report.reveal = reveal;
  report.starters.push(() => {
    tables.clear();
    for (const table of document.querySelectorAll("table.sortable")) start(table);
    if (report.brushed?.()) report.filterTables();
  });

  window.addEventListener("beforeprint", () => tables.forEach(({ print }) => print()));
  window.addEventListener("afterprint", () => tables.forEach(({ draw }) => draw()));
  window.addEventListener("hashchange", reveal);
})();
