// Light, dark or as the system has it: the same stored choice as the admin's (unfold keeps it, as JSON, under "adminTheme").
(() => {
  const key = "adminTheme";
  const order = ["auto", "light", "dark"];
  const names = { auto: "system", light: "light", dark: "dark" };
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      const stored = (localStorage.getItem(key) || "").replaceAll('"', "");
      return order.includes(stored) ? stored : "auto";
    } catch {
      return "auto"; // storage is switched off
    }
  }

  function choose(theme) {
    try {
      localStorage.setItem(key, JSON.stringify(theme));
    } catch {
      // storage is switched off: the choice holds for nothing, the system's is followed
    }
  }

  function apply() {
    const theme = chosen();
    document.documentElement.classList.toggle("dark", theme === "dark" || (theme === "auto" && system.matches));
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      const use = button.querySelector("use");
      use.setAttribute("href", use.getAttribute("href").replace(/#.*/, `#${theme}`));
      button.hidden = false;
      button.title = `Theme: ${names[theme]}`;
      button.setAttribute("aria-label", button.title);
    }
  }

  apply();
  system.addEventListener("change", apply);
  window.addEventListener("storage", apply);
  document.addEventListener("DOMContentLoaded", apply);
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    choose(order[(order.indexOf(chosen()) + 1) % order.length]);
    apply();
  });
})();
