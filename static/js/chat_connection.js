// The socket: quick to come back, open about being away. What was missed is read from the rows.
(() => {
  const line = document.getElementById("connection");
  const retried = [1006, 1011, 1012, 1013]; // closings after which htmx connects again by itself
  let wasLost = false;
  let isLeaving = false;

  htmx.config.wsReconnectDelay = (count) => Math.min(5000, 300 * 2 ** count) * (0.5 + Math.random() / 2);
  window.addEventListener("pagehide", () => (isLeaving = true));

  document.body.addEventListener("htmx:wsOpen", () => {
    line.hidden = true;
    if (!wasLost) return;
    wasLost = false;
    // The socket sends models and the last message; this brings everything that was said in between.
    htmx.ajax("GET", location.href, { target: "#messages", select: "#messages", swap: "outerHTML" });
  });

  document.body.addEventListener("htmx:wsClose", (event) => {
    if (isLeaving) return;
    wasLost = true;
    line.hidden = false;
    if (!retried.includes(event.detail.event.code)) setTimeout(event.detail.socketWrapper.reconnect, 1000);
  });
})();
