// Draws each figure from the JSON next to it, in the page's own colours, and again when the colour scheme changes.
(() => {
  const plots = [...document.querySelectorAll(".plot")];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const NARROW_LABEL = 14;

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const named = (name) => style.getPropertyValue("--" + name).trim();
    return { ink: named("ink"), soft: named("soft"), grid: named("grid"), ground: named("ground"), line: named("line") };
  }

  function themed(figure) {
    const c = colours();
    const layout = structuredClone(figure.layout);
    layout.font = { family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 12 : 13, color: c.soft };
    layout.hoverlabel = { bgcolor: c.ground, bordercolor: c.line, font: { color: c.ink } };
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      Object.assign(layout[axis], { gridcolor: c.grid, linecolor: c.line, tickcolor: c.line, automargin: true, tickfont: { size: 12 } });
      Object.assign(layout[axis].title, { font: { size: 13 }, standoff: 10 });
    }
    if (layout.meta?.ground) layout.plot_bgcolor = c[layout.meta.ground];
    if (narrow.matches && layout.yaxis.ticktext) layout.yaxis.ticktext = layout.yaxis.ticktext.map(ending);
    layout.transition = { duration: still.matches ? 0 : 150 };
    return [figure.data, layout];
  }

  // The end of a long label; an entity such as &lt; is left whole.
  function ending(label) {
    const letters = label.match(/&\w+;|./gu) ?? [];
    return letters.length > NARROW_LABEL ? "…" + letters.slice(-NARROW_LABEL).join("").replace(/^[….]+/, "") : label;
  }

  function draw() {
    for (const plot of plots) {
      const figure = JSON.parse(plot.parentElement.querySelector("script[type='application/json']").textContent);
      Plotly.react(plot, ...themed(figure), { responsive: true, displaylogo: false, displayModeBar: false });
    }
  }

  // Zooming into some steps of one chart shows the same steps in all others.
  function link() {
    const linked = plots.filter((plot) => plot.layout.xaxis.title?.text === "step");
    let following = false;
    const follow = (from) => async (change) => {
      const [low, high] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      const update = change["xaxis.autorange"] ? { "xaxis.autorange": true } : { "xaxis.range": [low, high] };
      if (following || (low === undefined && !change["xaxis.autorange"])) return;
      following = true;
      await Promise.all(linked.filter((plot) => plot !== from).map((plot) => Plotly.relayout(plot, update)));
      following = false;
    };
    for (const plot of linked) plot.on("plotly_relayout", follow(plot));
  }

  if (!plots.length) return;
  draw();
  link();
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
})();
