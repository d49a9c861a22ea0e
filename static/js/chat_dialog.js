// The dialog: opens when content is put into it, closes when its work is done or it is left.
(() => {
  const dialog = document.getElementById("dialog");

  document.body.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target === dialog && dialog.childElementCount && !dialog.open) dialog.showModal();
  });
  document.body.addEventListener("dialogDone", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) return dialog.close(); // beside it
    if (!event.target.closest("[data-dialog-close]")) return;
    event.preventDefault();
    dialog.close();
  });
  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    // Opened from the model menu, which closes for it: there is nothing left that the browser could give the focus back to.
    if (document.activeElement === document.body) document.getElementById("model-button").focus();
  });
})();
