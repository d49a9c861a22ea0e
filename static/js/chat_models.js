// The model menu: arrows move, typing filters, choosing closes; a swap under an open menu keeps its place.
(() => {
  const menu = document.querySelector("[data-model-menu]");
  const filter = menu.querySelector("[data-model-filter]");
  const entries = () => [...menu.querySelectorAll("[data-model-entry]")].filter((entry) => entry.offsetParent);

  function applyFilter() {
    if (!filter) return;
    const words = filter.value.trim().toLowerCase();
    for (const item of menu.querySelectorAll("[data-model-name]")) item.hidden = !item.dataset.modelName.includes(words);
    for (const group of menu.querySelectorAll("section")) group.hidden = !group.querySelector("li:not([hidden])");
  }

  function move(step) {
    const all = entries();
    const at = all.indexOf(document.activeElement);
    const next = at < 0 && step < 0 ? all.length - 1 : at + step;
    (all[next] || filter || all[(next + all.length) % all.length])?.focus();
  }

  menu.addEventListener("toggle", (event) => {
    if (event.newState !== "open") return;
    if (filter) filter.value = "";
    applyFilter();
    (filter || entries()[0])?.focus();
  });
  menu.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    move(steps[event.key]);
  });
  menu.addEventListener("submit", () => menu.hidePopover());
  filter?.addEventListener("input", applyFilter);

  let focused = null; // the entry that had the focus before a swap took it away
  document.body.addEventListener("htmx:wsBeforeMessage", () => {
    focused = menu.contains(document.activeElement) ? document.activeElement.closest("li")?.id : null;
  });
  document.body.addEventListener("htmx:wsAfterMessage", () => {
    applyFilter();
    if (focused && !menu.contains(document.activeElement)) {
      (document.getElementById(focused)?.querySelector("[data-model-entry]") || filter || entries()[0])?.focus();
    }
  });
})();
