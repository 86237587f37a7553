"use strict";
// Keeps a page up to date that `gridsearch serve` shows: asks every few seconds, and puts newer parts in place of older
// ones.  The reader stays where they are, with what they chose, opened, typed and sorted.
(() => {
  const PAUSE = 3000;
  const state = { token: document.body.dataset.live, asking: false };

  // Not while the reader is at it: a list that is open, a brush that is drawn, text that is being marked.
  let pressed = false;
  addEventListener("pointerdown", () => (pressed = true), true);
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => (pressed = false), true);
  const busy = () => pressed || document.activeElement?.tagName === "SELECT" || getSelection()?.isCollapsed === false;

  const fetched = async (address) => {
    const answer = await fetch(address, { cache: "no-store" });
    if (!answer.ok) throw new Error(`${answer.status}`);
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  };

  // What identifies an element on this page and on a newer one.
  const nameOf = (element) => {
    if (!element || element === document.body) return null;
    if (element.id) return `#${CSS.escape(element.id)}`;
    const found = ["data-for", "data-side", "data-stop", "aria-label"].filter((name) => element.hasAttribute(name));
    if (!found.length) return null;
    return element.tagName.toLowerCase() + found.map((name) => `[${name}="${CSS.escape(element.getAttribute(name))}"]`).join("") + (element.dataset.when ? `[data-when="${element.dataset.when}"]` : "");
  };
  const find = (name) => name && document.querySelector(name);

  // Where the reader is: the first heading in sight, else the last one above, and how far from the top it stands.
  const place = () => {
    const heads = [...document.querySelectorAll("h1, h2[id]")];
    const top = (h) => h.getBoundingClientRect().top;
    const seen = heads.find((h) => top(h) >= 0 && top(h) < innerHeight * 0.7) ?? heads.filter((h) => top(h) < 0).pop() ?? heads[0];
    return { name: seen.id ? `#${CSS.escape(seen.id)}` : seen.tagName.toLowerCase(), top: seen.getBoundingClientRect().top };
  };

  const replace = (fresh) => {
    const at = place(), focus = document.activeElement, focused = nameOf(focus);
    const marked = focus?.tagName === "INPUT" ? [focus.selectionStart, focus.selectionEnd] : null;
    const scrolled = [...document.querySelectorAll(".scroll")].map((box) => [nameOf(box), box.scrollLeft, box.scrollTop]);
    const open = [...document.querySelectorAll("details")].map((d) => d.open);
    for (const part of ["header", "main"]) document.querySelector(part).replaceWith(document.adoptNode(fresh.querySelector(part)));
    for (const old of document.querySelectorAll('script[type="application/json"]')) if (!old.closest("main")) old.remove();
    for (const data of fresh.querySelectorAll('script[type="application/json"]')) if (!data.closest("main")) document.body.append(document.adoptNode(data));
    [...document.querySelectorAll("details")].forEach((d, i) => open[i] !== undefined && (d.open = open[i]));
    report.updating = true;
    report.start();
    report.updating = false;
    for (const [name, left, top] of scrolled) find(name)?.scrollTo(left, top);
    const again = find(focused);
    if (again && again !== document.activeElement) {
      again.focus({ preventScroll: true });
      if (marked) again.setSelectionRange(...marked);
    }
    // last, and once more when all has its size: a field that gets the keyboard back may come into sight by itself
    const stay = () => scrollBy(0, (find(at.name)?.getBoundingClientRect().top ?? at.top) - at.top);
    stay();
    requestAnimationFrame(stay);
  };

  const put = (box, fresh) => {
    if (box.innerHTML === fresh.innerHTML) return;
    const focused = box.contains(document.activeElement) ? nameOf(document.activeElement) : null;
    const said = box.querySelector(".said")?.textContent;
    box.replaceChildren(...fresh.childNodes);
    if (said) box.append(report.html("p", { class: "said", role: "status" }, said));
    find(focused)?.focus({ preventScroll: true });
  };

  // What a server says now, null where it does not answer: it has ended, or the machine sleeps; it is asked again.
  const asked = async (address) => {
    const fresh = await fetched(address).catch(() => null);
    document.body.classList.toggle("away", fresh === null);
    return fresh;
  };
  const look = async () => {
    if (state.asking || document.hidden) return;
    state.asking = true;
    try {
      const box = document.querySelector("[data-now]"), now = await asked(box.dataset.now || ".");
      if (now === null || busy()) return;
      if (box.dataset.now === "") return put(box, now.querySelector("[data-now]"));
      const token = now.querySelector(".strip")?.dataset.token;
      put(box, now.body);
      if (!token || token === state.token) return;
      const fresh = await asked(".");
      if (fresh === null || busy() || fresh.body.dataset.live === state.token) return;
      state.token = fresh.body.dataset.live;
      replace(fresh);
    } finally {
      state.asking = false;
    }
  };

  // The same as `gridsearch stop`; the token shows that this page asks, and no other site's.
  document.addEventListener("click", async (event) => {
    const asked = event.target.closest?.("button[data-stop]");
    if (!asked) return;
    const { stop, study, when } = asked.dataset;
    const words = when === "now" ? "now" : "at the end of the current epoch";
    if (!confirm(`End every run of ${study} ${words}? Unfinished trials wait for the next run.`)) return;
    const box = asked.closest("[data-now]") ?? document.body;
    const said = document.querySelector(".said") ?? box.appendChild(report.html("p", { class: "said", role: "status" }));
    try {
      const answer = await fetch(stop, { method: "POST", headers: { "X-Gridsearch-Token": document.querySelector('meta[name="gridsearch-token"]').content }, body: new URLSearchParams({ when }) });
      said.textContent = await answer.text();
    } catch {
      said.textContent = "The server cannot be reached.";
    }
  });

  setInterval(look, PAUSE);
  document.addEventListener("visibilitychange", look);
  void look();
})();
