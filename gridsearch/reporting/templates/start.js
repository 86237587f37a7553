"use strict";
// Starts what the files before this one have made: once, or again where a live page brings newer numbers.
(() => {
  // A part that fails leaves the others, and its still figure; the error is in the browser's console.
  report.start = () => {
    for (const starter of report.starters) {
      try {
        starter();
      } catch (error) {
        console.error(error);
      }
    }
  };
  report.start();

  let width = innerWidth;
  let waiting = 0;
  window.addEventListener("resize", () => {
    if (innerWidth === width) return; // a telephone's bars come and go
    width = innerWidth;
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(report.draw);
  });
  window.addEventListener("scroll", report.hideTip, { passive: true });
})();
