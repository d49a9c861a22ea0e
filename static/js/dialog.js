/* The dialog before a switch: opens when its content has come, closes on Cancel, Escape, a click beside it, or when the server says so. */
(() => {
  "use strict";
  const dialog = () => document.getElementById("action-dialog");
  let opener = null;
  let place = null; // the part of the page that it stands in

  document.addEventListener("htmx:beforeRequest", (event) => {
    const { elt, target } = event.detail;
    if (target !== dialog() || dialog().open) return;
    opener = elt.id || elt.getAttribute("href");
    place = elt.closest("section[id]")?.id;
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
      // The row may have been redrawn meanwhile: look for the same link again. A request that was answered is gone: on to the next one.
      const same = opener && [...document.querySelectorAll("[hx-get]")].find((element) => element.getAttribute("href") === opener);
      const back = same || (place && document.querySelector(`#${place} [hx-get]`));
      if (back) back.focus();
    });
  });
})();
