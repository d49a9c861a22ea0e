// What was typed and not sent survives a reload and a look at another conversation, in this tab alone.
(() => {
  const box = document.getElementById("text");
  const key = `gantry-draft-${box.dataset.draft}`;

  if (!box.value) box.value = sessionStorage.getItem(key) || "";
  box.addEventListener("input", () => {
    if (box.value) sessionStorage.setItem(key, box.value);
    else sessionStorage.removeItem(key);
  });
  document.getElementById("composer").addEventListener("htmx:beforeOnLoad", (event) => {
    if (event.detail.xhr.getResponseHeader("HX-Redirect")?.startsWith("/c/")) sessionStorage.removeItem(key);
  });
  document.querySelector("[data-sign-out]")?.addEventListener("submit", () => sessionStorage.clear());
})();
