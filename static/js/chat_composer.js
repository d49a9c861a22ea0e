// The input: Enter sends, the lock is carried over from #composer-lock, and nothing typed is ever lost.
(() => {
  const form = document.getElementById("composer");
  const box = document.getElementById("text");
  const announcer = document.getElementById("announcer");
  let sent = "";

  function applyLock() {
    const lock = document.getElementById("composer-lock").dataset;
    if (box.placeholder !== lock.placeholder) box.placeholder = lock.placeholder;
    form.classList.toggle("is-locked", lock.locked === "true");
    const send = form.querySelector("[data-send]");
    if (send) send.disabled = lock.canSend !== "true";
    if (announcer.textContent !== lock.announce) announcer.textContent = lock.announce;
  }

  function grow() {
    if (CSS.supports("field-sizing", "content")) return;
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight}px`;
  }

  function tell(problem) {
    const line = document.getElementById("composer-error");
    line.textContent = problem;
    line.hidden = !problem;
  }

  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    const send = form.querySelector("[data-send]:not(:disabled)");
    if (send) form.requestSubmit(send);
  });
  box.addEventListener("input", () => {
    tell("");
    grow();
  });

  form.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target !== form) return;
    if (!box.value.trim()) event.preventDefault();
    sent = box.value;
  });
  form.addEventListener("htmx:sendError", () => tell("Gantry could not be reached. Your text is kept; send it again."));
  form.addEventListener("htmx:afterRequest", (event) => {
    const { xhr } = event.detail;
    if (xhr.status < 400 || xhr.responseText.includes('id="composer-error"')) return;
    const isOld = xhr.status === 403;
    tell(isOld ? "This page is out of date: load it again. Your text is kept." : "Gantry met a fault. Your text is kept; send it again.");
  });
  document.body.addEventListener("messageSent", (event) => {
    tell("");
    if (event.target !== form || box.value !== sent) return;
    box.value = "";
    box.dispatchEvent(new Event("input"));
    box.focus();
  });

  for (const name of ["htmx:wsAfterMessage", "htmx:afterSettle", "htmx:afterRequest"]) {
    document.body.addEventListener(name, applyLock);
  }
  applyLock();
  grow();
})();
