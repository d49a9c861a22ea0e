/* The dialog before a switch: opens when its content has come, closes on Cancel, Escape, a click beside it, or when the server says so. */
(() => {
  "use strict";
  const dialog = () => document.getElementById("action-dialog");
  let opener = null;

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.target === dialog() && !dialog().open) opener = event.detail.elt.id || event.detail.elt.getAttribute("href");
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const target = dialog();
    if (event.detail.target !== target || !target.childElementCount || target.open) return;
    target.showModal();
  });
  document.addEventListener("gantry:close-dialog", () => dialog().close());

  document.addEventListener("click", (event) => {
    const box = dialog();
    if (!box || !box.open) return;
    if (event.target.closest("[data-close-dialog]") && box.contains(event.target)) {
      event.preventDefault();
      box.close();
    } else if (event.target === box) {
      box.close();
    }
  });

  document.addEventListener("DOMContentLoaded", () => {
    const box = dialog();
    if (!box) return;
    box.addEventListener("close", () => {
      box.replaceChildren();
      // The row may have been redrawn meanwhile: look for the same link again.
      const back = opener && [...document.querySelectorAll("[hx-get]")].find((element) => element.getAttribute("href") === opener);
      if (back) back.focus();
    });
  });
})();
