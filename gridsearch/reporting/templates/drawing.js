"use strict";
// What all figures are drawn with: elements, scales, ticks, colours, and the box that says what the pointer is over.
// Every file of scripts adds what it offers to `report`; the last one starts them all.
const report = { starters: [], state: { metric: null, brush: new Map(), range: null, pair: [], hovered: null } };
(() => {
  const sample = document.createElement("template");
  sample.innerHTML = "<svg>"; // for the name of its kind, which looks like an address: the page holds none
  const NAMESPACE = sample.content.firstChild.namespaceURI;
  const VIRIDIS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725"];
  const PALETTE = ["--one", "--two", "--three", "--four", "--five"].map((name) => `var(${name})`);

  const filled = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null));
    return element;
  };
  // Text is text: nothing that a name holds is ever parsed as HTML.
  const svg = (name, attributes = {}, ...children) => filled(document.createElementNS(NAMESPACE, name), attributes, children);
  const html = (name, attributes = {}, ...children) => filled(document.createElement(name), attributes, children);
  const button = (words, act, attributes = {}) => {
    const made = html("button", { type: "button", ...attributes }, words);
    made.addEventListener("click", act);
    return made;
  };

  // A table of texts; the first cell of each row is its heading.
  const table = (head, rows) =>
    html("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": head.join(", ") },
      html("table", {}, html("thead", {}, html("tr", {}, ...head.map((h) => html("th", { scope: "col", class: "still-head" }, h)))),
        html("tbody", {}, ...rows.map((row) => html("tr", {}, ...row.map((cell, i) => html(i ? "td" : "th", i ? {} : { scope: "row" }, cell)))))));

  // From numbers to places; halves, since the ends may be as far apart as no float is large.
  const linear = (low, high, from, to) => (value) =>
    high === low ? (from + to) / 2 : from + ((value / 2 - low / 2) / (high / 2 - low / 2)) * (to - from);

  // Round values between two ends, some `count` of them.
  const ticks = (low, high, count) => {
    const raw = (high - low) / count;
    if (!(raw > 0) || !Number.isFinite(raw)) return [low];
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].find((s) => s * power >= raw * 0.999) * power;
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9 && found.length < 50; i += 1) found.push(i * step);
    return found;
  };
  const plain = (value, digits = 4) => {
    const size = Math.abs(value), whole = size ? Math.floor(Math.log10(size)) + 1 : 1;
    if (size !== 0 && (size < 1e-4 || (size >= 1e7 && digits <= whole))) return value.toExponential(Math.max(0, digits - (digits > 4 ? 1 : 2))).replace(/\.?0+e/, "e");
    return String(Number(value.toPrecision(digits)));
  };
  // So many significant digits tell values between two ends apart, four at least.
  const digitsOf = (low, high) => {
    const size = Math.max(Math.abs(low), Math.abs(high)), spread = high - low;
    return spread > 0 && Number.isFinite(spread) ? Math.min(15, Math.max(4, Math.ceil(Math.log10(size / spread)) + 3)) : 4;
  };
  // A single value of a curve; values of points come as text with the page, written as in its tables.
  const show = (value, share, digits = 4) => (value === null || value === undefined ? "\u2013" : share ? `${(100 * value).toFixed(Math.max(2, digits - 3))} %` : plain(value, digits));
  const tickTexts = (values, share) => {
    const shown = values.map((v) => (share ? 100 * v : v));
    const gap = shown.length > 1 ? shown[1] - shown[0] : shown[0] || 1;
    const size = Math.max(...shown.map(Math.abs));
    const exact = (places) => shown.every((v) => Math.abs(v - Number(v.toFixed(places))) < 1e-3 * Math.abs(gap));
    let places = 0;
    while (places < 15 && !exact(places)) places += 1;
    if (size < 1e-4 || size >= 1e15 || (size >= 1e7 && Math.abs(gap) >= 1e4)) {
      const alike = (texts) => new Set(texts).size < new Set(shown).size;
      let digits = 3, texts = [];
      do texts = shown.map((v) => (v === 0 || Math.abs(v) < 1e-9 * Math.abs(gap) ? "0" : plain(v, digits))); while (alike(texts) && (digits += 1) < 17);
      return texts;
    }
    return shown.map((v) => v.toFixed(places) + (share ? " %" : ""));
  };

  // Colour vision of any kind sees the order of these, in print too (viridis); better values are the brighter ones.
  const channel = (hex, i) => parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  const colour = (share) => {
    const place = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
    const below = VIRIDIS[Math.floor(place)], above = VIRIDIS[Math.ceil(place)];
    const mixed = [0, 1, 2].map((i) => Math.round(channel(below, i) + (channel(above, i) - channel(below, i)) * (place % 1)));
    return { fill: `rgb(${mixed.join(",")})`, ink: mixed[0] * 0.2126 + mixed[1] * 0.7152 + mixed[2] * 0.0722 > 127 ? "#262626" : "#ffffff" };
  };

  const pen = document.createElement("canvas").getContext("2d");
  const FAMILY = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
  const BOLD = 600; // as report.css has titles
  const wide = (text, size = 12, weight = 400) => {
    pen.font = `${weight} ${size}px ${FAMILY}`;
    return pen.measureText(text).width;
  };
  // A text that is too wide loses its middle, where names differ least; whole letters, not halves of an emoji.
  const fitted = (text, width, size = 12, weight = 400) => {
    if (wide(text, size, weight) <= width) return text;
    const letters = [...text];
    for (let kept = letters.length - 1; kept > 1; kept -= 1) {
      const head = Math.ceil(kept / 2);
      const cut = `${letters.slice(0, head).join("")}\u2026${letters.slice(letters.length - (kept - head)).join("")}`;
      if (wide(cut, size, weight) <= width) return cut;
    }
    return "\u2026";
  };
  // Texts beside each other: those that would look alike when cut keep what they differ in.
  const fittedAll = (texts, width, size = 12) => {
    const cut = texts.map((text) => fitted(text, width, size)), groups = new Map();
    cut.forEach((text, i) => groups.set(text, [...(groups.get(text) ?? []), i]));
    for (const group of groups.values()) {
      const own = group.map((i) => [...texts[i]]);
      let same = 0;
      while (own.every((letters) => same < letters.length && letters[same] === own[0][same])) same += 1;
      const from = Math.max(0, same - 4), head = from ? "\u2026" : "";
      for (const [k, i] of group.length > 1 ? group.entries() : []) {
        const rest = own[k].slice(from);
        cut[i] = head + rest.join("");
        for (let kept = rest.length - 1; kept > 0 && wide(cut[i], size) > width; kept -= 1) cut[i] = `${head}${rest.slice(0, kept).join("")}\u2026`;
      }
    }
    return cut.map((text, i) => (cut.indexOf(text) === i ? text : `${i}: ${text}`));
  };
  const fittedTitle = (text, width) => fitted(text, width, 12, BOLD);
  // A name inside a sentence, whose numbers keep their places whichever way the name is written.
  const isolated = (name) => `\u2068${name}\u2069`;
  const label = (x, y, text, attributes = {}) => svg("text", { x, y, ...attributes }, text);

  // The box beside the pointer, or beside the mark that has the keyboard.
  let tip = null;
  const hideTip = () => tip && (tip.hidden = true);
  const showTip = (lines, x, y) => {
    if (!tip || !tip.isConnected) document.body.append((tip = html("div", { class: "tip", "aria-hidden": "true" })));
    tip.replaceChildren(...lines.filter(Boolean).map((line, i) => html(i ? "span" : "strong", {}, line)));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
    tip.style.left = `${Math.max(4, Math.min(left, innerWidth - box.width - 4))}px`;
    tip.style.top = `${Math.max(4, y + 14 + box.height > innerHeight ? y - 14 - box.height : y + 14)}px`;
  };

  // Marks of one figure that answer: { element, lines(event), point, go(event) }.  One of them is a tab stop; arrow keys
  // go to the nearest one that way, Enter follows it.
  const byPoint = new Map();
  const glow = (point) => {
    if (report.state.hovered !== null) for (const e of byPoint.get(report.state.hovered) ?? []) e.classList.remove("on");
    report.state.hovered = point ?? null;
    for (const e of byPoint.get(point) ?? []) if (e.isConnected) e.classList.add("on");
  };
  const centre = (element) => {
    const box = element.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  const nearest = (from, marks, key) => {
    const [x, y] = centre(from);
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    let best = null, least = Infinity;
    for (const { element } of marks) {
      const [a, b] = centre(element);
      const ahead = (a - x) * dx + (b - y) * dy, aside = Math.abs((a - x) * dy) + Math.abs((b - y) * dx);
      if (element !== from && ahead > 0.5 && ahead + 2 * aside < least) [best, least] = [element, ahead + 2 * aside];
    }
    return best;
  };
  const answering = (marks) => {
    marks.forEach(({ element, lines, point, go }, place) => {
      const words = () => lines(null).filter(Boolean).join(", ");
      filled(element, { tabindex: place ? -1 : 0, role: go ? "link" : "img", "aria-label": words() }, []);
      element.classList.add("mark-of");
      if (point !== undefined) byPoint.set(point, [...(byPoint.get(point) ?? []).filter((e) => e.isConnected), element]);
      let seen = false; // a finger has no hover: its first touch shows, its second follows
      const enter = (event) => {
        showTip(lines(event), event.clientX, event.clientY);
        glow(point);
      };
      const leave = () => {
        hideTip();
        glow(null);
        seen = false;
      };
      element.addEventListener("pointerenter", enter);
      element.addEventListener("pointermove", enter);
      element.addEventListener("pointerleave", leave);
      element.addEventListener("blur", leave);
      element.addEventListener("focus", () => {
        if (!element.matches(":focus-visible")) return;
        showTip(lines(null), ...centre(element));
        glow(point);
      });
      element.addEventListener("click", (event) => {
        const first = event.pointerType === "touch" && !seen;
        seen = true;
        if (go && !first) go(event);
      });
      element.addEventListener("keydown", (event) => {
        if (event.key === "Escape") leave();
        if (event.key === "Enter" && go) go(event);
        if (!event.key.startsWith("Arrow")) return;
        event.preventDefault();
        const other = nearest(element, marks, event.key);
        if (!other) return;
        element.setAttribute("tabindex", -1);
        other.setAttribute("tabindex", 0);
        other.focus();
      });
    });
  };

  // As a sentence begins, but a name with capitals of its own ("mAP") stays as it is.
  const capitalized = (text) => (/^[^\sA-Z]+(\s|$)/.test(text) ? text[0].toUpperCase() + text.slice(1) : text);

  // Puts a drawing where a figure's still picture is, which stays for paper without scripts, and for what goes wrong.
  const place = (figure, drawing, { width, height, title, note = "" }) => {
    const box = figure.querySelector(".drawn") ?? figure.insertBefore(html("div", { class: "drawn scroll", tabindex: 0, role: "region" }), figure.firstChild);
    box.setAttribute("aria-label", title);
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": title }, ...drawing);
    const [left, top] = [box.scrollLeft, box.scrollTop];
    box.replaceChildren(...(note ? [html("p", { class: "note" }, capitalized(note))] : []), root);
    box.scrollTo(left, top);
    const still = figure.querySelector(".still");
    if (still) still.hidden = true;
    const key = figure.querySelector("figcaption.key");
    if (key) key.hidden = true; // the browser has fonts for what the still picture numbers
    return box;
  };
  const inside = (figure) => Math.max(260, (figure.clientWidth || figure.parentElement.clientWidth) - 18);

  // "1 image", "1,200 images".
  const counted = (count, noun) => `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;
  Object.assign(report, { PALETTE, answering, button, colour, counted, digitsOf, fitted, fittedAll, fittedTitle, hideTip, html, inside, isolated, label, linear, place, plain, show, svg, table, tickTexts, ticks, wide });
})();
