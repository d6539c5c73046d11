// SPDX-License-Identifier: Apache-2.0
/** Icons as strokes on a grid of 24; they take the colour of the text. */

const kPaths = {
  menu: ["M4 7h16", "M4 12h16", "M4 17h10"],
  plus: ["M12 5v14", "M5 12h14"],
  send: ["M12 19V5", "M6 11l6-6 6 6"],
  stop: ["M8 8h8v8H8z"],
  image: ["M4 5h16v14H4z", "M4 16l4.5-4.5L13 16l3-3 4 4", "M15.5 9.2v.1"],
  settings: ["M4 8h9", "M17 8h3", "M15 6v4", "M4 16h3", "M11 16h9", "M9 14v4"],
  copy: ["M9 9h10v10H9z", "M5 15V5h10"],
  check: ["M5 12.5l4.5 4.5L19 7.5"],
  again: ["M19 12a7 7 0 1 1-2.2-5.1", "M19 4v4h-4"],
  edit: ["M5 19l1-4L16 5l3 3L9 18z", "M14 7l3 3"],
  forward: ["M5 6l7 6-7 6z", "M18 6v12"],
  bin: ["M5 7h14", "M10 7V4.5h4V7", "M7 7l1 12.5h8L17 7"],
  more: ["M6 12v.1", "M12 12v.1", "M18 12v.1"],
  left: ["M14 7l-5 5 5 5"],
  right: ["M10 7l5 5-5 5"],
  down: ["M12 5v14", "M6 13l6 6 6-6"],
  close: ["M6 6l12 12", "M18 6L6 18"],
  search: ["M10.5 5a5.5 5.5 0 1 1 0 11 5.5 5.5 0 0 1 0-11z", "M15 15l4.5 4.5"],
  warning: ["M12 4l9 16H3z", "M12 10v4.5", "M12 17.2v.1"],
  upload: ["M12 15V4", "M7 9l5-5 5 5", "M5 19.5h14"],
  book: ["M5 5h5.5a1.5 1.5 0 0 1 1.5 1.5V20a2 2 0 0 0-2-2H5z", "M19 5h-5.5A1.5 1.5 0 0 0 12 6.5V20a2 2 0 0 1 2-2h5z"],
};

const kSvg = "http://www.w3.org/2000/svg";

/** A decorative icon: what it stands for is said by the button around it. */
export function icon(name) {
  const svg = document.createElementNS(kSvg, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  for (const d of kPaths[name]) {
    const path = document.createElementNS(kSvg, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}
