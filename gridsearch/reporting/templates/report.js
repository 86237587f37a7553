"use strict";
(() => {
  const collator = new Intl.Collator(undefined, { numeric: true });
  const number = (text) => {
    const value = parseFloat(text.replace(/^#/, ""));
    return Number.isNaN(value) ? null : value;
  };

  // What is not a number comes last, whichever way the column is sorted.
  const compare = (a, b, sign) => {
    const x = number(a), y = number(b);
    if (x !== null && y !== null) return sign * (x - y);
    if (x !== null || y !== null) return x !== null ? -1 : 1;
    return sign * collator.compare(a, b);
  };

  const sort = (table, column, heading) => {
    const up = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [row.cells[column].textContent, row]);
    rows.sort((a, b) => compare(a[0], b[0], up ? 1 : -1));
    body.append(...rows.map((pair) => pair[1]));
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      heading.firstElementChild.addEventListener("click", () => sort(table, column, heading));
    });
  }

  // A word is looked for in the whole row; name=value, name<value and name>value in the column of that name.
  const test = (word, names) => {
    const match = /^(.+?)(<=|>=|=|<|>)(.*)$/.exec(word);
    const column = match ? names.indexOf(match[1]) : -1;
    if (column < 0) return (row) => row.textContent.toLowerCase().includes(word);
    const [, , sign, wanted] = match;
    return (row) => {
      const text = row.cells[column].textContent.trim().toLowerCase();
      const x = number(text), y = number(wanted);
      if (sign === "=") return text === wanted || (x !== null && y !== null && Number(text) === y);
      if (x === null || y === null) return false;
      return { "<": x < y, ">": x > y, "<=": x <= y, ">=": x >= y }[sign];
    };
  };

  for (const input of document.querySelectorAll("input[data-for]")) {
    const table = document.getElementById(input.dataset.for);
    const output = document.querySelector(`output[data-for="${input.dataset.for}"]`);
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim().toLowerCase());
    const filter = () => {
      const tests = input.value.toLowerCase().split(/\s+/).filter(Boolean).map((word) => test(word, names));
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        row.hidden = !tests.every((holds) => holds(row));
        shown += row.hidden ? 0 : 1;
      }
      output.textContent = tests.length ? `${shown} of ${table.tBodies[0].rows.length} rows` : "";
    };
    input.addEventListener("input", filter);
  }

  // A link to a trial shows its row even where a filter hides it.
  const reveal = () => {
    const row = document.getElementById(location.hash.slice(1));
    if (row && row.hidden) {
      row.hidden = false;
      row.scrollIntoView({ block: "center" });
    }
  };
  window.addEventListener("hashchange", reveal);
})();
