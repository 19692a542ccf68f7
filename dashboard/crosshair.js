// One crosshair for all charts over time of a page: where the pointer is in one of them, the others show a thin line.
(() => {
  if (window.servescopeCrosshair) return;
  window.servescopeCrosshair = true;
  const charts = () => [...document.querySelectorAll(".js-plotly-plot")].filter(
    (chart) => chart._fullLayout && chart._fullLayout.xaxis && chart._fullLayout.xaxis.type === "date",
  );
  const clear = () => document.querySelectorAll(".servescope-crosshair").forEach((line) => line.remove());
  const follow = (source) => (event) => {
    clear();
    const at = event.xvals && event.xvals.length ? event.xvals[0] : event.points[0] && event.points[0].x;
    if (at === undefined || at === null) return;
    for (const chart of charts()) {
      const { xaxis, yaxis } = chart._fullLayout;
      const x = xaxis.d2p(at);
      if (chart === source || !(x >= 0 && x <= xaxis._length)) continue;
      const line = document.createElement("div");
      line.className = "servescope-crosshair";
      line.style.cssText = `position:absolute;pointer-events:none;width:1px;background:currentColor;opacity:.45;left:${
        xaxis._offset + x}px;top:${yaxis._offset}px;height:${yaxis._length}px`;
      if (getComputedStyle(chart).position === "static") chart.style.position = "relative";
      chart.appendChild(line);
    }
  };
  const attach = () => {
    for (const chart of charts()) {
      if (chart.servescopeSource === chart._ev || !chart.on) continue;
      chart.servescopeSource = chart._ev;
      chart.on("plotly_hover", follow(chart));
      chart.on("plotly_unhover", clear);
    }
  };
  setInterval(attach, 1000);
})();
