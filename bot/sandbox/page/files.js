// A file on a message: a picture in place, or a card with its name, its size and a way to save it.

import { node } from "./node.js";

const UNITS = ["bytes", "kB", "MB", "GB"];
const drawn = new Map();

function sized(bytes) {
  const unit = bytes < 1000 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log10(bytes) / 3));
  const number = bytes / 1000 ** unit;
  return `${unit && number < 10 ? number.toFixed(1) : Math.round(number)} ${UNITS[unit]}`;
}

// Messages are drawn again when anything in their thread changes; a file never changes, so it is kept and moved.
export function drawFile(file) {
  if (!drawn.has(file.id)) drawn.set(file.id, draw(file));
  return drawn.get(file.id);
}

function draw(file) {
  const save = node("a", { href: file.url_private_download, download: file.name, text: "Download" });
  save.dataset.key = file.id;
  save.setAttribute("aria-label", `Download ${file.name}`);
  const about = node("div", { className: "about" },
    node("strong", { text: file.title }),
    node("span", { className: "quiet", text: [file.title === file.name ? "" : file.name, sized(file.size)].filter(Boolean).join(" · ") }),
    save);
  if (!file.original_w) {
    const kind = node("span", { className: "kind", "aria-hidden": "true", text: file.filetype.slice(0, 4) || "file" });
    return node("div", { className: "file" }, kind, about);
  }
  const picture = node("img", {
    src: file.url_private, alt: file.alt_txt ?? file.title, width: file.original_w, height: file.original_h, decoding: "async",
  });
  const open = node("a", { href: file.url_private, target: "_blank", rel: "noreferrer" }, picture);
  return node("figure", { className: "file picture" }, about, open);
}
