"use strict";
// What the pages have in common. Every text of a document goes into a page as text, never as markup.
const common = (() => {
  const CHUNK = 500;
  const natural = new Intl.Collator("en", { numeric: true });

  const code = (unit) => "\\u" + unit.charCodeAt(0).toString(16).padStart(4, "0");
  const escaped = (text) => text.replace(/[^]/g, (unit) => (unit === '"' || unit === "\\" ? "\\" + unit : /[ -~]/.test(unit) ? unit : code(unit)));
  /** A name as git-theta prints it: everything outside ASCII escaped. */
  const shown = (name) => (/^[ -~]*$/.test(name) ? name : escaped(name));
  /** A path as git-theta prints it: other alphabets are left. */
  const shownPath = (path) => path.replace(/[\p{C}\p{Z}]/gu, (char) => (char === " " ? char : [...Array(char.length).keys()].map((at) => code(char[at])).join("")));

  function element(tag, attributes = {}, ...children) {
    const made = document.createElementNS(tag in SVG ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }
  const SVG = { svg: 1, rect: 1, line: 1, text: 1, title: 1 };

  const digits = (number, many) => String(Number(number.toPrecision(many)));
  const counted = (number) => number.toLocaleString("en");
  const percent = (ratio, many = 3) => digits(100 * ratio, many) + "%";
  function size(bytes) {
    const units = ["B", "KB", "MB", "GB", "TB", "PB"];
    let at = 0;
    for (; bytes >= 999.95 && at < units.length - 1; at++) bytes /= 1000;
    return (at ? bytes.toFixed(1) : bytes) + " " + units[at];
  }

  /** The rows in the order of a column; what has no value is last, either way. */
  function sorted(given, column, falling) {
    const sign = falling ? -1 : 1;
    const rows = given.map((row) => [column.value(row), row]);
    rows.sort(([one], [two]) => {
      if (one === null || two === null) return (one === null) - (two === null);
      return sign * (typeof one === "number" ? one - two : natural.compare(one, two));
    });
    return rows.map(([, row]) => row);
  }

  /** The rows with every word of a text in theirs. */
  function filtered(given, text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return words.length ? given.filter((row) => words.every((word) => row.text.includes(word))) : given;
  }

  const region = (label, child) => element("div", { class: "wide", role: "region", tabindex: "0", "aria-label": label }, child);

  /** A table of rows, which a click on a head sorts and a text filters; those of `all` columns that have a text. */
  function table(heading, caption, place, all, given) {
    const columns = all.filter((column, at) => !at || given.some((row) => column.text(row) !== ""));
    let column = null;
    let falling = false;
    let rows = given;
    let made = 0;
    const body = element("tbody");
    const status = element("span", { role: "status", class: "dim" });
    const more = element("button", { type: "button", class: "more" });
    const input = element("input", { type: "search", id: "filter-" + place, autocomplete: "off", spellcheck: "false" });
    const heads = columns.map((item) => {
      const button = element("button", { type: "button" }, item.title);
      const head = element("th", { scope: "col", class: item.number ? "number" : "" }, button);
      button.addEventListener("click", () => {
        falling = column === item ? !falling : Boolean(item.number);
        column = item;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        show();
      });
      return head;
    });
    const cell = (row, item) => {
      const text = item.text(row);
      const name = item.className && (text || item.className !== "alarm") ? item.className : "";
      return element(item === all[0] ? "th" : "td", {
        class: [name, item.number ? "number" : ""].join(" ").trim(), ...(item === all[0] ? { scope: "row" } : {}),
      }, text);
    };
    function grow() {
      const part = rows.slice(made, made + CHUNK);
      body.append(...part.map((row) => element("tr", {}, ...columns.map((item) => cell(row, item)))));
      made += part.length;
      more.hidden = made >= rows.length;
      more.textContent = "Show " + counted(Math.min(CHUNK, rows.length - made)) + " more";
      status.textContent = counted(made) + " of " + counted(rows.length) + (rows.length < given.length ? " that match, of " + counted(given.length) : "");
    }
    function show() {
      const chosen = filtered(given, input.value);
      rows = column ? sorted(chosen, column, falling) : chosen;
      made = 0;
      body.replaceChildren();
      grow();
    }
    let waiting = 0;
    input.addEventListener("input", () => {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(show);
    });
    more.addEventListener("click", grow);
    show();
    return [
      element("h3", {}, heading),
      element("div", { class: "filter" }, element("label", { for: "filter-" + place }, "Filter"), input, status),
      region(caption, element("table", { class: "changes", "aria-label": caption }, element("thead", {}, element("tr", {}, ...heads)), body)),
      more,
    ];
  }

  return { counted, digits, element, escaped, natural, percent, region, shown, shownPath, size, table };
})();
