(() => {
  const { counted, digits, element, escaped, natural, percent, region, shown, shownPath, size, table } = common;
  const MOST_LAYERS = 256;
  const MOST_MODULES = 64;
  const MOST_STACKS = 8;
  const MOST_NUMBERS = 32;
  const MOST_LISTED = 200;
  const LEVELS = 8;
  const KINDS = { converted: "dtype changed", views: "views changed" };
  const REST = {
    order: "The parameters stand in another order in the file.",
    metadata: "The file changed beside its parameters: header, metadata or pickle.",
    unknown: "The file changed beside its parameters; its layout is not on the machine that made this page.",
  };

  const arrow = (before, after) => (before === after || before === null ? after : after === null ? before : before + " \u2192 " + after);
  const faces = (group, read) => arrow(group.before && read(group.before), group.after && read(group.after));
  const shape = (face) => "[" + face.shape.join(", ") + "]";
  const elements = (group) => (group.after || group.before).shape.reduce((product, length) => product * length, 1);
  function specials(item) {
    const words = [["NaN", item.nan], ["Inf", item.infinite]].filter(([, pair]) => pair[0] || pair[1]);
    return words.map(([word, pair]) => word + ": " + counted(pair[0]) + " \u2192 " + counted(pair[1])).join(", ");
  }
  function spark(histogram) {
    const most = Math.max(1, ...histogram);
    return histogram.map((bin) => (bin ? String.fromCharCode(0x2581 + Math.min(7, Math.floor((8 * bin) / most))) : "\u00a0")).join("");
  }

  /** A column: its title, what it sorts by (null goes last), its text, whether it is a number. */
  const ofStatistics = (title, value, text) => ({
    title,
    number: true,
    value: (group) => (group.statistics ? value(group.statistics) : null),
    text: (group) => {
      const found = group.statistics ? value(group.statistics) : null;
      return found === null ? "" : text(found);
    },
  });
  const bad = (found) => found.nan[0] + found.nan[1] + found.infinite[0] + found.infinite[1];
  const COLUMNS = [
    { title: "name", value: (group) => group.label, text: (group) => group.label, className: "name" },
    { title: "what", value: (group) => group.what, text: (group) => group.what },
    { title: "dtype", value: (group) => faces(group, (face) => face.dtype), text: (group) => faces(group, (face) => face.dtype) },
    { title: "shape", value: elements, text: (group) => faces(group, shape), number: true },
    { title: "size", value: (group) => group.size_bytes, text: (group) => size(group.size_bytes), number: true },
    ofStatistics("|change|/|weight|", (found) => found.relative_change, (value) => percent(value)),
    ofStatistics("max |change|", (found) => found.largest_change, (value) => digits(value, 3)),
    ofStatistics("elements changed", (found) => (found.elements ? found.changed / found.elements : null), (value) => percent(value)),
    ofStatistics("cosine", (found) => found.cosine, (value) => digits(value, 9)),
    ofStatistics("effective rank", (found) => (found.effective_rank ? found.effective_rank[1] : null), (value) => digits(value, 4)),
    {
      title: "change of elements",
      value: (group) => (group.statistics && group.statistics.histogram ? Math.max(-1, group.statistics.histogram.findLastIndex((bin) => bin)) : null),
      text: (group) => (group.statistics && group.statistics.histogram ? spark(group.statistics.histogram) : ""),
      className: "spark",
    },
    {
      title: "NaN, Inf",
      value: (group) => (group.statistics && bad(group.statistics) ? bad(group.statistics) : null),
      text: (group) => (group.statistics && bad(group.statistics) ? specials(group.statistics) : ""),
      number: true,
      className: "alarm",
    },
    { title: "stored as", value: (group) => group.updates.join(" "), text: (group) => group.updates.map(shown).join(" ") },
  ];

  function prepared(group) {
    const label = shown(group.name);
    const what = (KINDS[group.kind] || group.kind) + (group.owner ? ": " + shown(group.owner) : "");
    return { ...group, label: group.name_before ? shown(group.name_before) + " \u2192 " + label : label, what };
  }

  function parameters(file, place) {
    const groups = file.groups.map(prepared);
    for (const group of groups) group.text = [group.label, group.what, faces(group, (face) => face.dtype)].join(" ").toLowerCase();
    return table("Parameters", "Changed parameters of " + shownPath(file.path), place, COLUMNS, groups);
  }

  /** The parameters of the largest stacks of layers, in a list of { prefix, layers, modules }: `modules` maps a module to cells by layer. */
  function stacks(groups) {
    const frames = new Map();
    for (const group of groups) {
      const found = group.statistics;
      if (!found || found.norm_change === null || found.norm_before === null) continue;
      const parts = group.name.split(/([0-9]+)/);
      if (parts.length < 3 || parts.length > 2 * MOST_NUMBERS) continue;
      const frame = parts.map((part, at) => (at % 2 ? "*" : part)).join("");
      if (!frames.has(frame)) frames.set(frame, []);
      frames.get(frame).push([parts, found]);
    }
    const made = new Map();
    const lone = [];
    const put = (rows, at) => {
      for (const [parts, found] of rows) {
        const prefix = parts.slice(0, at).join("");
        const module = parts.slice(at + 1).map((part, index) => (index % 2 ? "*" : part)).join("").replace(/^[./]/, "");
        if (!made.has(prefix)) made.set(prefix, { prefix, layers: new Set(), modules: new Map() });
        const stack = made.get(prefix);
        stack.layers.add(parts[at]);
        if (!stack.modules.has(module)) stack.modules.set(module, new Map());
        const cells = stack.modules.get(module);
        const [change, before] = cells.get(parts[at]) || [0, 0];
        cells.set(parts[at], [change + found.norm_change ** 2, before + found.norm_before ** 2]);
      }
    };
    for (const rows of frames.values()) {
      const length = rows[0][0].length;
      let at = 1;
      while (at < length && rows.every(([parts]) => parts[at] === rows[0][0][at])) at += 2;
      if (at < length) put(rows, at);
      else lone.push(...rows);
    }
    // A parameter that changed in one layer alone stands beside the others of its layer.
    for (const row of lone) {
      for (let at = 1; at < row[0].length; at += 2) {
        if (made.has(row[0].slice(0, at).join(""))) {
          put([row], at);
          break;
        }
      }
    }
    const found = [...made.values()].filter((stack) => stack.layers.size > 1);
    return found.sort((one, two) => two.layers.size * two.modules.size - one.layers.size * one.modules.size).slice(0, MOST_STACKS);
  }

  /** From 0, a relative change of 0.001% and less, to 7, one of 24% and more. */
  const level = (ratio) => Math.max(0, Math.min(LEVELS - 1, Math.floor(((Math.log10(ratio) + 5) / 5) * LEVELS)));

  function heatMap(stack) {
    const layers = [...stack.layers].sort(natural.compare);
    const modules = [...stack.modules.keys()].sort(natural.compare);
    const caption = "Relative change in " + (shown(stack.prefix) || "layers");
    const head = modules.slice(0, MOST_MODULES).map((module) => element("th", { scope: "col", class: "name" }, shown(module) || "(itself)"));
    const rows = layers.slice(0, MOST_LAYERS).map((layer) => element("tr", {}, element("th", { scope: "row" }, layer),
      ...modules.slice(0, MOST_MODULES).map((module) => {
        const cell = stack.modules.get(module).get(layer);
        if (!cell) return element("td", { class: "dim" }, "\u2013");
        const ratio = cell[1] ? Math.sqrt(cell[0] / cell[1]) : cell[0] ? Infinity : 0;
        return element("td", { class: "h" + level(ratio) }, ratio === Infinity ? "\u221e" : percent(ratio, 2));
      })));
    const left = layers.length > MOST_LAYERS || modules.length > MOST_MODULES;
    return [
      element("h3", {}, caption),
      region(caption, element("table", { class: "heat", "aria-label": caption }, element("thead", {}, element("tr", {}, element("td"), ...head)), element("tbody", {}, ...rows))),
      left ? element("p", { class: "dim" }, "The first " + MOST_LAYERS + " layers and " + MOST_MODULES + " modules of " + layers.length + " and " + modules.length + ".") : null,
    ];
  }

  const legend = () => element("p", { class: "legend dim" }, "0.001% ", ...[...Array(LEVELS).keys()].map((at) => element("i", { class: "h" + at })), " 100%");

  function histogram(file, bins) {
    const total = Array(bins.count).fill(0);
    for (const group of file.groups) {
      const found = group.statistics && group.statistics.histogram;
      if (found) found.forEach((bin, at) => (total[at] += bin));
    }
    if (!total.some(Boolean)) return [];
    const [width, height, foot] = [20, 120, 18];
    const most = Math.max(...total);
    const bars = total.map((bin, at) => element("rect", { x: at * width + 1, width: width - 2, y: height * (1 - bin / most), height: height * (bin / most) }));
    const marks = total.map((_, at) => at).filter((at) => at % 4 === 0)
      .map((at) => element("text", { x: at * width, y: height + 14 }, "1e" + (bins.lowest + at * bins.step)));
    const label = "Elements by |change|/|weight|: " + total.map((bin, at) => [bin, at]).filter(([bin]) => bin)
      .map(([bin, at]) => counted(bin) + " from 1e" + (bins.lowest + at * bins.step)).join(", ");
    return [
      element("h3", {}, "Elements by |change|/|weight|"),
      element("svg", { viewBox: "0 0 " + bins.count * width + " " + (height + foot), width: bins.count * width * 1.4, role: "img", "aria-label": label },
        ...bars, element("line", { x1: 0, x2: bins.count * width, y1: height, y2: height }), ...marks),
    ];
  }

  const value = (item) => (item === null ? "none" : typeof item === "string" ? '"' + escaped(item.slice(0, 200)) + (item.length > 200 ? "\u2026" : "") + '"' : Number.isInteger(item) && !Number.isSafeInteger(item) ? "about " + item : String(item));

  function summary(file) {
    const total = Object.entries(file.counts).filter(([, number]) => number);
    const sides = [file.before, file.after].map((side) => (side ? shown(side.digest.slice(0, 7)) : "0000000"));
    const facts = [sides.join(".."), faces(file, (side) => shown(side.format)), faces(file, (side) => size(side.size_bytes))];
    if (file.added_bytes !== null) facts.push("+" + size(file.added_bytes) + " stored");
    return [
      element("p", { class: "dim" }, facts.join("   \u00b7   ")),
      element("ul", { class: "counts" }, ...total.map(([kind, number]) => element("li", {}, counted(number) + " " + (KINDS[kind] || kind)))),
    ];
  }

  /** A list of texts, of the first of them where there are many. */
  const list = (texts, className) => element("ul", { class: className },
    ...texts.slice(0, MOST_LISTED).map((text) => element("li", {}, text)),
    texts.length > MOST_LISTED ? element("li", {}, counted(texts.length - MOST_LISTED) + " more") : null);

  function notes(file) {
    const made = [];
    if (file.beside_parameters) made.push(REST[file.beside_parameters]);
    if (file.not_computed.count) {
      made.push("Statistics of " + counted(file.not_computed.count) + " parameters (" + size(file.not_computed.size_bytes) + ") were not computed; --stats computes them.");
    }
    made.push(...file.errors.map((error) => "No statistics: " + shownPath(error)));
    return made.length ? [list(made, "notes")] : [];
  }

  function scalars(file) {
    if (!file.scalars.length) return [];
    const rows = file.scalars.slice(0, MOST_LISTED).map((item) => element("tr", {}, element("th", { scope: "row", class: "name" }, shown(item.name)),
      element("td", {}, value(item.before)), element("td", {}, value(item.after))));
    const heads = ["name", "before", "after"].map((title) => element("th", { scope: "col" }, title));
    const left = file.scalars.length - rows.length;
    return [
      element("h3", {}, "Metadata and scalars"),
      region("Metadata and scalars", element("table", {}, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows))),
      left ? element("p", { class: "dim" }, counted(left) + " more") : null,
    ];
  }

  function section(file, place, bins) {
    const title = file.path_before === file.path ? shownPath(file.path) : shownPath(file.path_before) + " \u2192 " + shownPath(file.path);
    const alarms = file.alarms.map((item) => shown(item.name) + " \u2014 " + specials(item));
    const maps = stacks(file.groups);
    return element("section", {},
      element("h2", {}, title),
      ...summary(file),
      alarms.length ? element("div", { class: "alarms", role: "alert" }, element("h3", {}, "NaN or infinities"), list(alarms, "")) : null,
      ...notes(file),
      ...maps.flatMap(heatMap),
      maps.length ? legend() : null,
      ...histogram(file, bins),
      ...scalars(file),
      ...(file.groups.length ? parameters(file, place) : []));
  }

  const report = JSON.parse(document.getElementById("data").textContent);
  const main = document.getElementById("report");
  main.append(element("h1", {}, document.title));
  if (!report.files.length) main.append(element("p", {}, "There are no differences."));
  const bins = { count: 24, lowest: -8, step: 0.5 };
  report.files.forEach((file, place) => main.append(section(file, place, bins)));
})();
