"use strict";
// Light, dark, or as the system says; remembered where the browser allows it.
(() => {
  const names = ["auto", "light", "dark"];
  let theme = "auto";
  try { theme = localStorage.getItem("robust-theme") || "auto"; } catch { /* no storage here */ }
  if (!names.includes(theme)) theme = "auto";
  const apply = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  };
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const tell = () => { button.textContent = `Theme: ${theme}`; };
    tell();
    button.hidden = false;
    button.addEventListener("click", () => {
      theme = names[(names.indexOf(theme) + 1) % names.length];
      apply();
      tell();
      try { localStorage.setItem("robust-theme", theme); } catch { /* no storage here */ }
    });
  });
})();
