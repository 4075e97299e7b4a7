/** A traceback, with the frames of the user's own code first. */
import { counted } from "../format.js";
import { Copy } from "../parts.js";
import { html, useMemo, useState } from "../ui.js";

/**
 * @typedef {{file: string, line: string, name: string, code: string[], isOwn: boolean}} Frame
 */

const FRAME = /^ {2}File "(.*)", line (\d+), in (.*)$/;
const OTHERS = /[\\/](site-packages|dist-packages|lib[\\/]python[\d.]+|rapids|rapids_fastapi)[\\/]|^<frozen/;

/** @param {{text: string}} props */
export function Traceback({ text }) {
  const frames = useMemo(() => framesOf(text), [text]);
  const [isWhole, setWhole] = useState(frames.length === 0);
  const own = frames.filter((one) => one.isOwn).reverse();
  const others = frames.length - own.length;
  return html`<div class="traceback">
    <div class="panel-head">
      <h3>${isWhole ? "Traceback" : "Your code, the latest call first"}</h3>
      <span class="actions">
        ${frames.length > 0 && html`<button type="button" class="quiet" onClick=${() => setWhole(!isWhole)}>${isWhole ? "Only your code" : `As written${others ? `, with ${counted(others, "other frame")}` : ""}`}</button>`}
        <${Copy} text=${text} />
      </span>
    </div>
    ${isWhole || !own.length
      ? html`<pre class="text">${text}</pre>`
      : html`<ol class="frames">
          ${own.map((one, at) => html`<li key=${at}>
            <div class="frame-place"><strong>${one.name}</strong> <span class="muted" title=${one.file}>${short(one.file)}:${one.line}</span></div>
            ${one.code.length > 0 && html`<pre>${one.code.join("\n")}</pre>`}
          </li>`)}
        </ol>`}
  </div>`;
}

/** @param {string} text @returns {Frame[]} */
function framesOf(text) {
  /** @type {Frame[]} */ const frames = [];
  for (const line of text.split("\n")) {
    const [, file = "", number = "", name = ""] = FRAME.exec(line) ?? [];
    const last = frames.at(-1);
    if (file) frames.push({ file, line: number, name, code: [], isOwn: !OTHERS.test(file) });
    else if (last && /^ {4}/.test(line)) last.code.push(line.slice(4));
  }
  return frames;
}

/** The end of a path. @param {string} file */
function short(file) {
  return file.split(/[\\/]/).slice(-3).join("/");
}
