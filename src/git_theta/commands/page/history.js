(() => {
  const { counted, element, percent, shown, shownPath, size, table } = common;
  const HEIGHT = 120;
  const WIDTH = 960;
  const MOST_BARS = 960;
  const MOST_DECADES = 12;
  const NAMES = { converted: "dtype changed", views: "views changed" };

  const pairs = (object) => Object.entries(object).sort(([, one], [, two]) => two - one);
  const counts = (commit) => pairs(commit.counts).map(([kind, number]) => counted(number) + " " + (NAMES[kind] || kind))
    .concat(["renamed", "copied"].filter((how) => commit[how + "_from"]).map((how) => how + " from " + shownPath(commit[how + "_from"])))
    .join(", ") || "only beside them";
  const updates = (commit) => pairs(commit.updates).map(([name, number]) => counted(number) + " " + shown(name)).join(", ");
  const total = (object) => Object.values(object).reduce((sum, number) => sum + number, 0);
  const stored = (value, text) => ({
    number: true,
    value: (commit) => (commit.is_manifest ? value(commit) : null),
    text: (commit) => (commit.is_manifest && value(commit) !== null ? text(commit) : ""),
  });
  const COLUMNS = [
    { title: "commit", value: (commit) => commit.place, text: (commit) => commit.commit.slice(0, 10), className: "commit" },
    { title: "date", value: (commit) => commit.date, text: (commit) => shown(commit.date), className: "date" },
    { title: "subject", value: (commit) => commit.subject, text: (commit) => shownPath(commit.subject) },
    { title: "author", value: (commit) => commit.author, text: (commit) => shownPath(commit.author) },
    { title: "parameters", value: (commit) => (commit.is_manifest ? total(commit.counts) : null), text: (commit) => (commit.is_manifest ? counts(commit) : "stored as it is") },
    { title: "size", ...stored((commit) => commit.size_bytes, (commit) => size(commit.size_bytes)) },
    { title: "added", ...stored((commit) => commit.added_bytes, (commit) => size(commit.added_bytes)) },
    { title: "|change|/|weight|", ...stored((commit) => commit.relative_change, (commit) => percent(commit.relative_change)) },
    { title: "stored as", value: (commit) => (commit.is_manifest ? updates(commit) : null), text: (commit) => (commit.is_manifest ? updates(commit) : "") },
  ];

  /** Bars of the commits, the oldest first, each with its commit; nothing where there is nothing to show. */
  function bars(title, commits, value, text, level, scale = "") {
    const rows = commits.slice(0, MOST_BARS).reverse();
    if (!rows.some((commit) => value(commit) !== null)) return [];
    const width = Math.min(48, WIDTH / rows.length);
    const gap = width > 4 ? 2 : 0;
    const made = rows.flatMap((commit, at) => {
      if (value(commit) === null) return [];
      const height = HEIGHT * Math.min(1, Math.max(0.005, level(value(commit))));
      const bar = element("rect", { x: at * width, width: width - gap, y: HEIGHT - height, height });
      bar.append(element("title", {}, commit.commit.slice(0, 10) + " " + shown(commit.date) + ": " + text(value(commit)) + "\n" + shownPath(commit.subject)));
      return [bar];
    });
    const values = rows.map(value).filter((item) => item !== null);
    const label = title + ", the oldest commit first" + scale + ": from " + text(Math.min(...values)) + " to " + text(Math.max(...values));
    const wide = Math.max(240, width * rows.length);
    return [
      element("h3", {}, title),
      element("svg", { class: "bars", viewBox: "0 0 " + wide + " " + (HEIGHT + 1), width: wide, role: "img", "aria-label": label },
        ...made, element("line", { x1: 0, x2: wide, y1: HEIGHT, y2: HEIGHT })),
      element("p", { class: "dim" }, label.slice(title.length + 2)),
    ];
  }

  function linear(commits, value) {
    const most = Math.max(...commits.map((commit) => value(commit) || 0));
    return (item) => (most ? item / most : 0);
  }

  /** By decades: the least change that there is has a tenth of the height. */
  function decades(commits, value) {
    const logs = commits.map(value).filter(Boolean).map(Math.log10);
    const high = Math.max(...logs);
    const low = Math.max(Math.min(...logs), high - MOST_DECADES);
    return (item) => (item ? (high > low ? 0.1 + (0.9 * (Math.log10(item) - low)) / (high - low) : 1) : 0);
  }

  const report = JSON.parse(document.getElementById("data").textContent);
  const commits = report.commits.map((commit, place) => ({
    ...commit, place, text: [commit.commit, commit.date, shownPath(commit.subject), shownPath(commit.author)].join(" ").toLowerCase(),
  }));
  const ofManifest = (read) => (commit) => (commit.is_manifest ? read(commit) : null);
  const held = ofManifest((commit) => commit.size_bytes);
  const added = ofManifest((commit) => commit.added_bytes);
  const change = ofManifest((commit) => commit.relative_change);
  const dates = commits.length ? [commits[commits.length - 1].date, commits[0].date].map(shown) : [];
  const sum = commits.reduce((bytes, commit) => bytes + (added(commit) || 0), 0);
  document.getElementById("report").append(
    element("h1", {}, document.title),
    element("h2", {}, report.path),
    element("p", { class: "dim" }, [counted(commits.length) + (commits.length === 1 ? " commit" : " commits"), [...new Set(dates)].join(" to "), "+" + size(sum) + " stored"].join("   \u00b7   ")),
    ...bars("|change|/|weight|", commits, change, (item) => percent(item), decades(commits, change), ", by powers of ten"),
    ...bars("Bytes added", commits, added, size, linear(commits, added)),
    ...bars("Size of the checkpoint", commits, held, size, linear(commits, held)),
    ...table("Commits", "Commits that changed " + report.path, 0, COLUMNS, commits));
})();
