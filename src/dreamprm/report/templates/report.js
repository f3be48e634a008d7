"use strict";
// Text from the data reaches the page through textContent only; Plotly reads a little markup in
// its labels, so what goes there is escaped first (function `plain`).
(() => {
  window.addEventListener("error", (event) => {
    document.body.dataset.error = event.message;
    const box = document.getElementById("error");
    box.textContent = "Part of this page failed: " + event.message;
    box.hidden = false;
  });
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const label = (method) => (Object.hasOwn(data.labels, method) ? data.labels[method] : method);
  const plain = (text) =>
    String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const element = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // ---- charts. Okabe and Ito's colours: distinct with any colour vision.
  const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1",
    "#7F7F7F"];
  const SYMBOLS = ["square", "diamond", "triangle-up", "cross", "star", "hexagon"];
  const style = getComputedStyle(document.body);
  const cssColour = (name) => style.getPropertyValue(name).trim();
  const ink = cssColour("--ink"), line = cssColour("--line");
  const narrow = window.innerWidth < 760;
  const baseLayout = () => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: style.fontFamily, size: 14, color: ink },
    hoverlabel: { font: { family: style.fontFamily, size: 14 } },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", maxheight: 1 },
  });
  const axisTitle = (text) => ({ text, font: { size: 14 } });
  const config = { displayModeBar: false, responsive: true };
  const transparent = (hex, alpha) =>
    `rgba(${[1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).join(",")},${alpha})`;

  function drawWeights() {
    const domains = [...data.domains].sort((a, b) => a.weight - b.weight); // plotly: bottom to top
    const kinds = [...new Set([...domains].reverse().map((d) => d.quality))];
    // A domain is its position, so that two equal names stay two bars.
    const place = new Map(domains.map((d, i) => [d, i]));
    const planted = domains.some((d) => d.planted !== null);
    const frames = data.history.length
      ? data.history
      : [{ step: null, w: Object.fromEntries(domains.map((d) => [d.name, d.weight])), i: {} }];
    const weightAt = (frame, d) =>
      frame === null ? d.weight : Object.hasOwn(frame.w, d.name) ? frame.w[d.name] : null;
    const rangeAt = (frame, d) => (frame === null ? d.interval
      : Object.hasOwn(frame.i, d.name) ? frame.i[d.name] : null);
    const most = Math.max(1.2, ...domains.map((d) => Math.max(d.weight, ...(d.interval || []))),
      ...frames.flatMap((f) => Object.values(f.w)));
    const hasRanges = domains.some((d) => d.interval !== null);
    const members = kinds.map((kind) => domains.filter((d) => d.quality === kind));
    const numbers = (frame, group) => group.map((d) => weightAt(frame, d));
    // How far each whisker reaches beyond its bar: above and below.
    const whiskers = (frame, group) => [1, 0].map((end) => group.map((d) => {
      const range = rangeAt(frame, d), w = weightAt(frame, d);
      return range === null || w === null ? 0 : Math.max(0, end ? range[1] - w : w - range[0]);
    }));
    // Numbers stand beyond their whiskers, which would cross them elsewhere.
    const ends = (frame) => domains.map((d) => {
      const range = rangeAt(frame, d), w = weightAt(frame, d);
      return w === null ? null : Math.min(most, Math.max(w, range === null ? 0 : range[1]));
    });
    const texts = (frame) =>
      numbers(frame, domains).map((w) => (w === null ? "" : `\u00a0${w.toFixed(2)}`));
    const traces = kinds.map((kind, k) => {
      const values = numbers(null, members[k]);
      const [above, below] = whiskers(null, members[k]);
      return {
        type: "bar", orientation: "h", name: plain(kind || "unknown quality"),
        x: values, y: members[k].map((d) => place.get(d)),
        error_x: { type: "data", symmetric: false, array: above, arrayminus: below, thickness: 1.5,
          width: 4, color: cssColour("--ink"), visible: hasRanges },
        marker: { color: PALETTE[k % PALETTE.length] },
        hovertext: members[k].map((d) => plain([
          `${d.name}: ${d.family}, ${d.quality}`,
          ...(d.interval ? [`95% interval ${d.interval[0].toFixed(2)} to ` +
            `${d.interval[1].toFixed(2)}: ${d.verdict}`] : [])].join("; "))),
        hovertemplate: "%{hovertext}<br>weight %{x:.2f}<extra></extra>",
        showlegend: kinds.length > 1 || kind !== "",
      };
    });
    traces.push({
      type: "scatter", mode: "text", x: ends(null), y: domains.map((d) => place.get(d)),
      text: texts(null), textposition: "middle right", textfont: { size: 14 },
      cliponaxis: false, hoverinfo: "skip", showlegend: false,
    });
    if (planted) {
      kinds.forEach((kind, k) => traces.push({
        type: "scatter", mode: "markers", xaxis: "x2", showlegend: false, cliponaxis: false,
        x: members[k].map((d) => d.planted), y: members[k].map((d) => place.get(d)),
        marker: { color: PALETTE[k % PALETTE.length], size: 11, symbol: "diamond" },
        hovertext: members[k].map((d) => plain(d.name)),
        hovertemplate: "%{hovertext}<br>planted quality %{x:.2f}<extra></extra>",
      }));
    }
    const shorten = (s) => (narrow && s.length > 16 ? s.slice(0, 15) + "…" : s);
    const layout = {
      ...baseLayout(),
      height: Math.max(240, 110 + 30 * domains.length + 24 * Math.ceil(kinds.length / (narrow ? 2 : 6))),
      margin: { l: 10, r: 20, t: 20 + 24 * Math.ceil(kinds.length / (narrow ? 2 : 6)), b: 50 },
      bargap: 0.28,
      xaxis: { title: axisTitle("weight"), range: [0, most * 1.14], gridcolor: line,
        domain: planted ? [0, narrow ? 0.68 : 0.74] : [0, 1], zeroline: false, fixedrange: true },
      yaxis: { tickvals: domains.map((_, i) => i), ticktext: domains.map((d) => plain(shorten(d.name))),
        automargin: true, range: [-0.6, domains.length - 0.4], fixedrange: true, zeroline: false,
        ticklabelstandoff: 6, showgrid: false },
      shapes: [{ type: "line", layer: "below", xref: "x", yref: "paper", x0: 1, x1: 1, y0: 0, y1: 1,
        line: { color: cssColour("--soft"), width: 1.5, dash: "dash" } }],
    };
    if (planted) {
      const values = domains.map((d) => d.planted).filter((x) => x !== null);
      const low = Math.min(0, ...values), high = Math.max(1, ...values);
      layout.xaxis2 = { title: axisTitle(narrow ? "planted" : "planted quality"),
        domain: [narrow ? 0.76 : 0.81, 1], range: [low, high + 0.001], gridcolor: line,
        zeroline: false, fixedrange: true, nticks: narrow ? 3 : 5 };
    }
    Plotly.newPlot(byId("weights"), traces, layout, config);
    if (frames.length < 2) return;

    const slider = byId("weights-slider"), button = byId("weights-play");
    let timer = null;
    const show = (i) => {
      const values = members.map((group) => numbers(frames[i], group));
      const reach = members.map((group) => whiskers(frames[i], group));
      Plotly.restyle(byId("weights"), { x: values, "error_x.array": reach.map((r) => r[0]),
        "error_x.arrayminus": reach.map((r) => r[1]) }, kinds.map((_, k) => k));
      Plotly.restyle(byId("weights"), { x: [ends(frames[i])], text: [texts(frames[i])] }, kinds.length);
      byId("weights-step").textContent =
        `training step ${frames[i].step}` + (i === frames.length - 1 ? " (final)" : "");
    };
    const stop = () => { clearInterval(timer); timer = null; button.textContent = "Play"; };
    slider.max = frames.length - 1;
    slider.value = slider.max;
    slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
    button.addEventListener("click", () => {
      if (timer !== null) return stop();
      if (Number(slider.value) === frames.length - 1) slider.value = 0;
      show(Number(slider.value));
      button.textContent = "Pause";
      timer = setInterval(() => {
        slider.value = Number(slider.value) + 1;
        show(Number(slider.value));
        if (Number(slider.value) === frames.length - 1) stop();
      }, Math.max(40, 6000 / frames.length));
    });
    byId("weights-step").textContent = `training step ${frames.at(-1).step} (final)`;
    byId("weights-player").hidden = false;
  }

  // Of curve k: each of 36 has a pair of its own.
  const looks = (k) => ({ colour: PALETTE[1 + (k % 6)],
    symbol: SYMBOLS[(k + Math.floor(k / 6)) % SYMBOLS.length] });

  // Plotly gives every entry of a legend the width of the longest; what is above the plot must fit.
  function legendRows(id, named) {
    const longest = Math.max(...named.map(([method]) => label(method).length));
    const perRow = Math.floor((byId(id).clientWidth - 80) / (52 + 7.7 * longest));
    return Math.ceil(named.length / Math.max(1, perRow));
  }

  // 1, 2, 5, 10, ... within a range: what a logarithmic axis is read by.
  function roundNumbers(low, high) {
    const found = [];
    for (let power = 1; power <= high; power *= 10) {
      found.push(...[1, 2, 5].map((d) => d * power).filter((x) => x >= low && x <= high));
    }
    return found;
  }

  // Accuracy over N, where the axis names each point, or over tokens.
  function drawCurves(id, curves, { title, hover, everyPoint }) {
    const traces = [];
    let k = 0;
    for (const [method, points] of curves) {
      const reference = data.references.includes(method), main = method === data.main;
      const look = looks(main || reference ? 0 : k++);
      const symbol = main ? "circle" : reference ? "x-thin-open" : look.symbol;
      const colour = main ? PALETTE[0] : reference ? "#7F7F7F" : look.colour;
      const percent = (key) => points.map((p) => 100 * p[key]);
      const n = points.map((p) => p.n);
      traces.push({
        type: "scatter", mode: "lines", x: [...n, ...[...n].reverse()],
        y: [...percent("hi"), ...percent("lo").reverse()], fill: "toself", hoverinfo: "skip",
        line: { width: 0 }, fillcolor: transparent(colour, main ? 0.18 : 0.07),
        legendgroup: method, showlegend: false,
      });
      traces.push({
        type: "scatter", mode: "lines+markers", x: n, y: percent("mean"), legendgroup: method,
        name: plain(label(method)),
        line: { color: colour, width: main ? 3.5 : 2,
          dash: reference ? (method === "any_right" ? "dot" : "dash") : "solid" },
        marker: { size: main ? 10 : 8, symbol },
        customdata: points.map((p) => [100 * p.lo, 100 * p.hi]),
        hovertemplate: "%{y:.1f} (%{customdata[0]:.1f}–%{customdata[1]:.1f})",
      });
    }
    const all = [...new Set(curves.flatMap(([, points]) => points.map((p) => p.n)))].sort((a, b) => a - b);
    const ticks = everyPoint ? all : roundNumbers(all[0], all.at(-1));
    const rows = legendRows(id, curves);
    Plotly.newPlot(byId(id), traces, {
      ...baseLayout(), height: 430 + 24 * rows,
      margin: { l: 56, r: 16, t: 20 + 24 * rows, b: 52 }, hovermode: "x unified",
      hoverlabel: { bgcolor: cssColour("--ground"), font: { color: ink, size: 14 } },
      xaxis: { title: axisTitle(title), type: "log", gridcolor: line, fixedrange: true,
        unifiedhovertitle: { text: hover }, tickvals: ticks, ticktext: ticks.map(String) },
      yaxis: { title: axisTitle("accuracy, %"), gridcolor: line, fixedrange: true, zeroline: false },
    }, config);
  }

  function drawCalibration(id, found, { title, hover }) {
    let k = 0;
    const traces = found.map(([method, bins]) => {
      const main = method === data.main, reference = data.references.includes(method);
      const look = looks(main || reference ? 0 : k++);
      const colour = main ? PALETTE[0] : reference ? "#7F7F7F" : look.colour;
      return {
        type: "scatter", mode: "lines+markers", name: plain(label(method)),
        x: bins.map((b) => b.score), y: bins.map((b) => 100 * b.right),
        line: { color: colour, width: main ? 3.5 : 2, dash: reference ? "dash" : "solid" },
        marker: { size: main ? 10 : 8, symbol: main ? "circle" : look.symbol },
        customdata: bins.map((b) => b.n),
        hovertemplate: hover,
      };
    });
    const rows = legendRows(id, found);
    Plotly.newPlot(byId(id), traces, {
      ...baseLayout(), height: 400 + 24 * rows,
      margin: { l: 56, r: 16, t: 20 + 24 * rows, b: 52 },
      xaxis: { title: axisTitle("score"), range: [-0.02, 1.02], gridcolor: line, fixedrange: true,
        zeroline: false },
      yaxis: { title: axisTitle(title), range: [-3, 103], gridcolor: line, fixedrange: true,
        zeroline: false },
      shapes: [{ type: "line", layer: "below", x0: 0, x1: 1, y0: 0, y1: 100,
        line: { color: cssColour("--soft"), width: 1.5, dash: "dash" } }],
    }, config);
  }

  // ---- examples
  // Orange (low) through white to blue (high), told apart with any colour vision; always with the
  // number. All tints are light enough for dark text.
  const ANCHORS = [[0, [240, 150, 80]], [0.25, [253, 200, 150]], [0.5, [247, 247, 247]],
    [0.75, [175, 212, 240]], [1, [105, 170, 222]]];
  function scoreColour(s) {
    const x = Math.min(1, Math.max(0, s));
    const i = Math.max(1, ANCHORS.findIndex(([at]) => at >= x));
    const [[a, low], [b, high]] = [ANCHORS[i - 1], ANCHORS[i]];
    const mix = low.map((c, j) => Math.round(c + ((high[j] - c) * (x - a)) / (b - a)));
    return `rgb(${mix.join(",")})`;
  }
  function chip(s) {
    const node = element("span", "chip", s.toFixed(2));
    node.style.background = scoreColour(s);
    return node;
  }

  const choice = (example, method) => example.candidates.find((c) => c.chosenBy.includes(method));
  const isRight = (example, method) => choice(example, method)?.right === true;
  const isWrong = (example, method) => choice(example, method)?.right === false;

  // Candidates with scores, or only the answers of runs that are compared.
  const scored = data.examples.some((e) => e.candidates.some((c) => c.score !== null));

  function makeFilters() {
    const methods = [...new Set(
      data.examples.flatMap((e) => e.candidates.flatMap((c) => c.chosenBy)))];
    const main = data.main;
    const filters = [["all questions", () => true]];
    if (methods.includes(main)) {
      for (const other of ["prm_uniform", ...methods.filter((m) => m !== "prm_uniform")]) {
        if (other === main || !methods.includes(other)) continue;
        filters.push([`${label(main)} right, ${label(other)} wrong`,
          (e) => isRight(e, main) && isWrong(e, other)]);
        filters.push([`${label(main)} wrong, ${label(other)} right`,
          (e) => isWrong(e, main) && isRight(e, other)]);
      }
      if (scored) {
        filters.push([`${label(main)} wrong though a right candidate was there`,
          (e) => isWrong(e, main) && e.candidates.some((c) => c.right)]);
      }
    }
    if (scored) {
      filters.push(["no candidate right", (e) => e.candidates.every((c) => !c.right)]);
    }
    return filters;
  }

  function drawCandidate(candidate, rank, of) {
    const folds = candidate.steps.length > 0;
    const box = element(folds ? "details" : "div", "candidate");
    if (folds) box.open = candidate.chosenBy.length > 0 || of <= 2;
    if (candidate.chosenBy.includes(data.main)) box.classList.add("picked");
    const head = element(folds ? "summary" : "div", "head");
    head.append(
      element("span", "", candidate.answer === null ? "no answer" : `Answer ${candidate.answer}`),
      element("span", "verdict " + (candidate.right ? "right" : "wrong"),
        candidate.right ? "✓ right" : "✗ wrong"));
    if (candidate.score !== null) {
      head.append(element("span", "total",
        `score ${candidate.score.toFixed(2)} · rank ${rank} of ${of} · sample ${candidate.index}`));
    }
    if (candidate.chosenBy.length) {
      const tags = element("span", "tags");
      for (const method of candidate.chosenBy) {
        tags.append(element("span", "tag" + (method === data.main ? " main" : ""),
          (scored ? "chosen by " : "") + label(method)));
      }
      head.append(tags);
    }
    const steps = element("ol", "steps");
    candidate.steps.forEach((text, i) => {
      const item = element("li");
      item.append(chip(candidate.scores[i]), element("span", "step", text));
      steps.append(item);
    });
    box.append(head);
    if (folds) box.append(steps);
    return box;
  }

  function drawExample(example) {
    const left = element("div"), right = element("div");
    for (const source of example.images) {
      const image = element("img", "picture");
      image.alt = "Image of the question";
      image.addEventListener("load", () => {
        if (image.naturalWidth <= 160) image.classList.add("small"); // crisp when enlarged
      });
      image.src = source;
      left.append(image);
    }
    if (example.benchmark) left.append(element("small", "", example.benchmark));
    left.append(element("p", "question", example.question));
    if (example.options.length) {
      const list = element("ol", "options");
      list.type = "A";
      for (const option of example.options) list.append(element("li", "", option));
      left.append(list);
    }
    const gold = element("p", "", "Right answer: ");
    gold.append(element("strong", "", example.answer));
    left.append(gold);
    const ranked = [...example.candidates].sort((a, b) => b.score - a.score || a.index - b.index);
    ranked.forEach((c, i) => right.append(drawCandidate(c, i + 1, ranked.length)));
    byId("example").replaceChildren(left, right);
  }

  function startBrowser() {
    const filters = makeFilters();
    const select = byId("filter");
    filters.forEach(([name, keep], i) => {
      const count = data.examples.filter(keep).length;
      const option = element("option", "", `${name} (${count})`);
      option.value = i;
      option.disabled = count === 0;
      select.append(option);
    });
    let shown = data.examples, at = 0;
    const show = () => {
      byId("position").textContent = `${at + 1} of ${shown.length}`;
      byId("previous").disabled = at === 0;
      byId("next").disabled = at === shown.length - 1;
      byId("example").dataset.index = data.examples.indexOf(shown[at]);
      drawExample(shown[at]);
    };
    const move = (by) => {
      if (at + by < 0 || at + by >= shown.length) return;
      at += by;
      show();
    };
    byId("previous").addEventListener("click", () => move(-1));
    byId("next").addEventListener("click", () => move(1));
    select.addEventListener("change", () => {
      shown = data.examples.filter(filters[Number(select.value)][1]);
      at = 0;
      show();
    });
    const legend = byId("score-legend");
    if (scored) legend.append(element("span", "", "Step score:"), ...[0.05, 0.25, 0.5, 0.75, 0.95].map(chip),
      element("span", "", "low to high"));
    show();
  }

  if (data.domains.length) drawWeights();
  if (data.scaling.length) {
    drawCurves("scaling", data.scaling, { title: "candidates N", hover: "N = %{x}", everyPoint: true });
  }
  if (data.tokens.length) {
    drawCurves("tokens", data.tokens, { title: "tokens per question", hover: "%{x} tokens" });
  }
  if (data.calibration.length) {
    drawCalibration("calibration", data.calibration,
      { title: "right, %", hover: "score %{x:.2f}: %{y:.1f}% of %{customdata} right" });
  }
  if (data.stepCalibration.length) {
    drawCalibration("step-calibration", data.stepCalibration,
      { title: "mean label, %", hover: "score %{x:.2f}: mean label %{y:.1f}% of %{customdata} steps" });
  }
  if (data.examples.length) startBrowser();
  document.body.dataset.ready = "1";
})();
