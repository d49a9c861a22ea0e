/* The socket's state and what it brings: the "Connection lost" line, words for screen readers, and answers that are no part of this page. */
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  let isOpen = false;

  function showConnection(open) {
    isOpen = open;
    const line = byId("connection-line");
    if (!line) return;
    // A page that is being left closes its socket too: wait a moment before saying so.
    if (open) line.hidden = true;
    else setTimeout(() => { line.hidden = isOpen; }, 800);
  }
  document.addEventListener("htmx:wsOpen", () => showConnection(true));
  document.addEventListener("htmx:wsClose", () => showConnection(false));

  function announce() {
    const source = document.querySelector("[data-announce]");
    const words = source ? source.dataset.announce : "";
    const announcer = byId("announcer");
    if (announcer && words && announcer.textContent !== words) announcer.textContent = words;
  }
  document.addEventListener("gantry:updated", announce);
  document.addEventListener("htmx:afterSettle", announce);

  // A live part that has no place here: a model that is new, or the first one of all. htmx drops it without a word.
  let isReloading = false;
  document.addEventListener("htmx:wsBeforeMessage", (event) => {
    const { message } = event.detail;
    if (isReloading || !message.includes("<tr")) return;
    const parts = document.createElement("template");
    parts.innerHTML = message;
    if (![...parts.content.children].some((part) => part.id.startsWith("model-row") && !byId(part.id))) return;
    isReloading = true;
    location.reload();
  });

  // Parts of a page carry a header. Anything else (the sign-in page, a fault) is not put into this page.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    if (xhr.getResponseHeader("Gantry-Partial")) {
      event.detail.shouldSwap = true;
      event.detail.isError = false;
      return;
    }
    event.detail.shouldSwap = false;
    if (xhr.status < 400 || xhr.status === 403) location.reload();
    else note(`Gantry could not do this (HTTP ${xhr.status}). Try again; if it stays so, see the server's log.`);
  });
  document.addEventListener("htmx:sendError", () => note("Gantry did not answer. Check the connection and try again."));

  function note(words) {
    const place = byId("panel-note");
    if (!place) return;
    const line = document.createElement("p");
    line.className = "g-refusal";
    line.setAttribute("role", "alert");
    line.textContent = words;
    place.replaceChildren(line);
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  }
})();
