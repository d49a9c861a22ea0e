/* A log stays at its newest line while it is redrawn, unless somebody has scrolled up to read. */
(() => {
  "use strict";
  let atEnd = true;
  let top = 0;
  const log = () => document.querySelector("[data-log]");

  function restore() {
    const box = log();
    if (box) box.scrollTop = atEnd ? box.scrollHeight : top;
  }

  document.addEventListener("htmx:beforeSwap", () => {
    const box = log();
    if (!box) return;
    top = box.scrollTop;
    atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 20;
  });
  document.addEventListener("htmx:afterSwap", restore);
  document.addEventListener("DOMContentLoaded", restore);
})();
