// Buttons that copy the text of an element: data-copy names its id. And a page that shows a secret once is not sent again by a reload.
(() => {
  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      // Only pages on https or on this computer may copy by themselves: mark it, so that a key press does.
      window.getSelection().selectAllChildren(source);
      button.textContent = "Press Ctrl+C";
    }
    window.setTimeout(() => (button.textContent = "Copy"), 3000);
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
  if (document.querySelector("[data-shown-once]")) window.history.replaceState(null, "", window.location.href);
})();
