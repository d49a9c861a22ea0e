// Messages: new ones find their place by id, and the end stays in sight unless somebody has scrolled up.
(() => {
  const list = () => document.getElementById("messages");
  let isAtEnd = true;

  // A swap replaces by id; a message that is not here yet gets an empty place at the end first.
  function makeRoom(html) {
    for (const [, id] of html.matchAll(/ id="(message-\d+)"/g)) {
      if (document.getElementById(id)) continue;
      document.getElementById("empty")?.remove();
      const place = document.createElement("article");
      place.id = id;
      list().append(place);
    }
  }

  // The answer to a form may come after the socket has shown the same message, and more of it.
  function isOutdated(part) {
    if (part?.dataset.onlyNew === undefined) return false;
    if (part.dataset.message) return document.getElementById(part.id)?.childElementCount > 0;
    return document.getElementById(`message-${part.dataset.answer}`)?.getAttribute("aria-busy") !== "true";
  }

  function keepEnd() {
    if (isAtEnd) list().scrollTop = list().scrollHeight;
  }

  function watch() {
    const watched = list();
    watched.addEventListener("scroll", () => {
      isAtEnd = watched.scrollHeight - watched.scrollTop - watched.clientHeight < 60;
    });
    new MutationObserver(keepEnd).observe(watched, { childList: true, subtree: true, characterData: true });
    new ResizeObserver(keepEnd).observe(watched);
    keepEnd();
  }

  document.body.addEventListener("htmx:wsBeforeMessage", (event) => makeRoom(event.detail.message));
  document.body.addEventListener("htmx:beforeSwap", (event) => makeRoom(event.detail.serverResponse || ""));
  document.body.addEventListener("htmx:oobBeforeSwap", (event) => {
    if (isOutdated(event.detail.fragment.firstElementChild)) event.preventDefault();
  });
  document.body.addEventListener("messageSent", () => {
    isAtEnd = true;
    keepEnd();
  });
  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "messages") watch(); // it was read again after the connection had been lost
  });
  watch();
})();
