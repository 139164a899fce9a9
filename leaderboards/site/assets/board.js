"use strict";
// Sorting and filtering of the boards. Rows are read once, when they are first needed.
(() => {
  const sections = [...document.querySelectorAll("section.board")];
  const boards = sections.map((section) => {
    const body = section.querySelector("tbody");
    return { section, body, rows: [...body.rows], keys: new Map(), all: false, heads: [...section.querySelectorAll("thead th")] };
  });

  // Of a long board the first rows are shown, and all on demand: what is not shown costs no layout.
  const most = 100;
  function trim(board) {
    let place = 0;
    for (const row of board.rows) row.classList.toggle("later", !row.hidden && place++ >= most && !board.all);
    if (!board.more && board.rows.length > most) {
      board.more = document.createElement("button");
      board.more.type = "button";
      board.more.addEventListener("click", () => {
        board.all = !board.all;
        trim(board);
      });
      board.section.querySelector(".exports").prepend(board.more, " ");
    }
    if (!board.more) return;
    board.more.hidden = place <= most;
    board.more.textContent = board.all ? `Show the first ${most}` : `Show all ${place} runs`;
  }

  // A cell's key: its `data-v`, else its first text as a number, else that text.
  function keys(board, column) {
    if (!board.keys.has(column)) {
      const numeric = board.heads[column].classList.contains("n");
      board.keys.set(column, new Map(board.rows.map((row) => {
        const cell = row.cells[column];
        const text = cell.dataset.v ?? (numeric ? cell.firstChild?.data ?? "" : cell.textContent);
        if (!numeric) return [row, text.trim().toLowerCase() || null];
        const value = parseFloat(text.replaceAll(",", ""));
        return [row, Number.isNaN(value) ? null : value];
      })));
    }
    return board.keys.get(column);
  }

  function sort(board, column) {
    const head = board.heads[column];
    const now = head.getAttribute("aria-sort");
    const order = now ? (now === "ascending" ? "descending" : "ascending") : head.dataset.first;
    const sign = order === "ascending" ? 1 : -1;
    const key = keys(board, column);
    board.rows.sort((a, b) => {
      const x = key.get(a), y = key.get(b);
      if (x === null || y === null) return (x === null) - (y === null); // unknown last, always
      return x < y ? -sign : x > y ? sign : 0;
    });
    for (const other of board.heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    trim(board);
    const all = document.createDocumentFragment();
    all.append(...board.rows);
    board.body.append(all);
  }

  for (const board of boards) {
    board.heads.forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => sort(board, column));
    });
  }

  const form = document.getElementById("filters");
  const shown = document.getElementById("shown");
  const controls = [...form.querySelectorAll("[data-filter]")];
  const texts = new Map();

  // `data-r` of a row: training, sparsity in percent, certified, unreliable, divided by `|`.
  function matches(row, section, wanted) {
    const [training, sparsity, certified, unreliable] = row.dataset.r.split("|");
    const own = { training, certified, unreliable, ...section };
    for (const [name, value] of Object.entries(wanted)) {
      if (name === "text") {
        if (!texts.has(row)) {
          const words = [...row.cells, { textContent: section.title }].map((cell) => cell.textContent);
          texts.set(row, words.join(" ").toLowerCase());
        }
        if (!value.split(/\s+/).every((word) => texts.get(row).includes(word))) return false;
      } else if (name === "sparsity") {
        if (sparsity === "" || Number(sparsity) < Number(value)) return false;
      } else if (own[name] !== value) return false;
    }
    return true;
  }

  function filter() {
    const wanted = {};
    for (const control of controls) {
      const value = control.value.trim().toLowerCase();
      if (value) wanted[control.dataset.filter] = control.tagName === "SELECT" ? control.value : value;
    }
    let runs = 0, all = 0, seen = 0;
    for (const board of boards) {
      const { section, rows } = board;
      const told = { ...section.dataset, title: section.querySelector("h2").textContent };
      let here = 0;
      for (const row of rows) {
        const fits = matches(row, told, wanted);
        row.hidden = !fits;
        here += fits;
      }
      section.hidden = here === 0;
      trim(board);
      const entry = document.querySelector(`[data-for="${section.id}"]`);
      if (entry) entry.hidden = here === 0;
      runs += here;
      all += rows.length;
      seen += here > 0;
    }
    shown.textContent = `${runs} of ${all} runs, ${seen} of ${boards.length} boards`;
  }

  form.hidden = boards.length === 0;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  filter();
})();
