"use strict";
// The samples of a run, a page at a time: sorted by a column, filtered by words and text.
(() => {
  const size = 50, paper = 2000; // rows of a page on the screen, and at most in print
  const { columns, pictures } = robustSamples;
  const n = columns[0].values.length;
  const at = (column, i) => {
    const value = column.values[i];
    return column.words ? (value < 0 ? null : column.words[value]) : value;
  };
  const say = (value) => value === null ? "–" : String(value);
  const make = (name, text, parent, kind) => {
    const element = document.createElement(name);
    if (text) element.textContent = text;
    if (kind) element.className = kind;
    parent?.append(element);
    return element;
  };

  const form = document.getElementById("explore");
  const place = document.getElementById("explorer");
  const pager = document.getElementById("pages");
  let sorted = null, descending = false, page = 0, found = [], printed = false;

  const search = make("label", "Text ", form, "wide");
  const text = make("input", "", search);
  text.type = "search";
  text.placeholder = "sample, class, method …";
  const selects = columns.filter((c) => c.words && c.words.length > 1 && c.words.length <= 200).map((column) => {
    const label = make("label", `${column.title} `, form);
    const select = make("select", "", label);
    select.dataset.column = column.key;
    make("option", "all", select).value = "";
    column.words.forEach((word, i) => { make("option", word, select).value = String(i); });
    return { column, select };
  });
  const reset = make("button", "Clear", form);
  reset.type = "reset";
  const told = make("output", "", form);
  told.setAttribute("role", "status");

  const table = make("table", "", place);
  const row = make("tr", "", make("thead", "", table));
  const heads = columns.map((column) => {
    const head = make("th", "", row, column.words ? "" : "n");
    head.scope = "col";
    if (column.about) head.title = column.about;
    const button = make("button", column.title, head);
    button.type = "button";
    button.addEventListener("click", () => {
      descending = sorted === column ? !descending : false;
      sorted = column;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      update();
    });
    return head;
  });
  const body = make("tbody", "", table);
  const cut = make("p", "", null);
  place.after(cut);

  function select() {
    const words = text.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = selects.filter(({ select }) => select.value !== "").map(({ column, select }) => [column.values, Number(select.value)]);
    found = [];
    for (let i = 0; i < n; i++) {
      if (!wanted.every(([values, value]) => values[i] === value)) continue;
      if (words.length) {
        const line = columns.filter((c) => c.words || c === columns[0]).map((c) => say(at(c, i))).join(" ").toLowerCase();
        if (!words.every((word) => line.includes(word))) continue;
      }
      found.push(i);
    }
    if (sorted === null) return;
    const sign = descending ? -1 : 1;
    found.sort((a, b) => {
      const x = at(sorted, a), y = at(sorted, b);
      if (x === null || y === null) return (x === null) - (y === null);
      return x < y ? -sign : x > y ? sign : a - b;
    });
  }

  function show() {
    const pages = Math.max(1, Math.ceil(found.length / size));
    page = Math.min(page, pages - 1);
    const rows = document.createDocumentFragment();
    const shown = printed ? found.slice(0, paper) : found.slice(page * size, (page + 1) * size);
    for (const i of shown) {
      const line = make("tr", "", rows);
      columns.forEach((column, c) => {
        const cell = make(c ? "td" : "th", "", line, column.words ? "" : "n");
        if (c === 0) {
          cell.scope = "row";
          const where = pictures[String(at(column, i))];
          if (where) {
            const link = make("a", say(at(column, i)), cell);
            link.href = `#${where}`;
            link.title = "its adversarial example is shown above";
            return;
          }
        }
        cell.textContent = say(at(column, i));
      });
    }
    body.replaceChildren(rows);
    told.textContent = `${found.length} of ${n} samples`;
    cut.textContent = shown.length < found.length ? `The first ${shown.length} of ${found.length} samples; the rest is on the page.` : "";
    cut.hidden = !printed || !cut.textContent;
    pager.hidden = pages === 1;
    pager.replaceChildren();
    const go = (words, to) => {
      const button = make("button", words, pager);
      button.type = "button";
      button.disabled = to < 0 || to >= pages || to === page;
      button.addEventListener("click", () => { page = to; show(); pager.querySelector("button:not(:disabled)")?.focus(); });
    };
    go("First", 0);
    go("Previous", page - 1);
    make("span", `page ${page + 1} of ${pages}`, pager);
    go("Next", page + 1);
    go("Last", pages - 1);
  }

  function update() { page = 0; select(); show(); }

  const onPaper = (on) => { printed = on; show(); };
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));
  matchMedia("print").addEventListener("change", (event) => onPaper(event.matches));

  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  update();
})();
