/* Times as people read them: "3 s ago" kept true, clock times in the reader's own zone, the absolute time on hover. */
(() => {
  "use strict";
  const MONTHS = { day: "numeric", month: "short", year: "numeric" };
  const MINUTES = { hour: "2-digit", minute: "2-digit" };
  const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit" };

  function ago(moment) {
    const passed = Math.max(0, Math.floor((Date.now() - moment) / 1000));
    if (passed < 60) return `${passed} s ago`;
    if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
    if (passed < 86400) return `${Math.floor(passed / 3600)} h ago`;
    const isThisYear = moment.getFullYear() === new Date().getFullYear();
    return moment.toLocaleDateString("en-GB", isThisYear ? { day: "numeric", month: "short" } : MONTHS);
  }

  function put(element, words) {
    if (element.textContent !== words) element.textContent = words;
  }

  function refresh() {
    for (const element of document.querySelectorAll("time[data-ago]")) put(element, ago(new Date(element.dateTime)));
  }

  function localise() {
    for (const element of document.querySelectorAll("time[datetime]")) {
      const moment = new Date(element.dateTime);
      const full = moment.toLocaleString("en-GB", { ...MONTHS, ...CLOCK });
      if (element.title !== full) element.title = full;
      if ("clock" in element.dataset) put(element, moment.toLocaleTimeString("en-GB", CLOCK));
      if ("clockMinutes" in element.dataset) put(element, moment.toLocaleTimeString("en-GB", MINUTES));
      if ("moment" in element.dataset) put(element, full);
      if ("momentMinutes" in element.dataset) put(element, moment.toLocaleString("en-GB", { ...MONTHS, ...MINUTES }));
    }
    refresh();
  }

  document.addEventListener("DOMContentLoaded", localise);
  document.addEventListener("gantry:updated", localise);
  document.addEventListener("htmx:afterSettle", localise);
  setInterval(refresh, 1000);
})();
