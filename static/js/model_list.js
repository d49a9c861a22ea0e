/* Filter and order of the list, at once, while typing; kept when rows are redrawn. The same parameters work on the server (models_admin/model_list.py). */
(() => {
  "use strict";
  const form = () => document.querySelector("[data-model-filter]");
  const table = () => document.querySelector("[data-model-list]");

  function query() {
    const data = new FormData(form());
    return {
      words: data.get("q").trim().toLocaleLowerCase().split(/\s+/).filter(Boolean),
      tag: data.get("tag"),
      state: data.get("state"),
      sort: data.get("sort") || "name",
    };
  }

  function matches(row, { words, tag, state }) {
    return (
      words.every((word) => row.dataset.text.includes(word)) &&
      (!tag || JSON.parse(row.dataset.tags).includes(tag)) &&
      (!state || row.dataset.group === state)
    );
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b));
  }

  function sortRows(body, rows, sort) {
    const key = sort.replace(/^-/, "");
    const turn = sort.startsWith("-") ? -1 : 1;
    const valued = rows.map((row) => ({ row, values: JSON.parse(row.dataset.values) }));
    valued.sort((a, b) => turn * compare(a.values[key], b.values[key]) || compare(a.values.name, b.values.name));
    // Move only what is out of place, so that focus and scroll stay.
    valued.forEach(({ row }, place) => { if (body.children[place] !== row) body.insertBefore(row, body.children[place]); });
  }

  function markHeaders(sort) {
    for (const header of table().querySelectorAll("th[data-column]")) {
      const key = header.dataset.column;
      if (sort === key) header.setAttribute("aria-sort", "ascending");
      else if (sort === `-${key}`) header.setAttribute("aria-sort", "descending");
      else header.removeAttribute("aria-sort");
    }
  }

  function apply() {
    if (!form() || !table()) return;
    const wanted = query();
    const body = table().tBodies[0];
    const rows = [...body.rows];
    let shown = 0;
    for (const row of rows) {
      row.hidden = !matches(row, wanted);
      if (!row.hidden) shown += 1;
    }
    sortRows(body, rows, wanted.sort);
    markHeaders(wanted.sort);
    const count = `${shown} of ${rows.length}`;
    const place = document.querySelector("[data-model-count]");
    if (place.textContent !== count) place.textContent = count;
    document.querySelector("[data-nothing]").hidden = shown > 0;
  }

  function keepInAddress() {
    const parameters = new URLSearchParams([...new FormData(form())].filter(([name, value]) => value && !(name === "sort" && value === "name")));
    history.replaceState(null, "", parameters.size ? `?${parameters}` : location.pathname);
  }

  function change() {
    apply();
    keepInAddress();
  }

  function sortBy(link) {
    const { sort } = form().elements;
    const key = link.dataset.sort;
    const first = "number" in link.dataset ? `-${key}` : key;
    const other = first === key ? `-${key}` : key;
    const next = sort.value === first ? other : first;
    if (![...sort.options].some((option) => option.value === next)) sort.add(new Option(next, next));
    sort.value = next;
    change();
  }

  document.addEventListener("input", (event) => { if (form() && form().contains(event.target)) change(); });
  document.addEventListener("submit", (event) => {
    if (event.target !== form()) return;
    event.preventDefault();
    change();
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-sort], [data-clear-filter]");
    if (!link || !form() || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (link.dataset.sort) return sortBy(link);
    form().elements.q.value = form().elements.tag.value = form().elements.state.value = "";
    change();
  });
  document.addEventListener("gantry:updated", (event) => { if (table() && table().contains(event.target)) apply(); });
  document.addEventListener("htmx:afterSwap", (event) => { if (table() && table().contains(event.detail.target)) apply(); });
  document.addEventListener("DOMContentLoaded", () => {
    document.documentElement.classList.add("has-script");
    apply();
  });
})();
