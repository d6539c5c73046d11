// SPDX-License-Identifier: Apache-2.0
/** The box to write in: text, pictures, send and stop. */
import { byId, growWithText, h } from "./dom.js";
import { icon } from "./icons.js";
import { isImage, kMaxImages, readImage } from "./images.js";
import { t } from "./lang.js";
import { toast } from "./toast.js";

export class Composer {
  constructor(chat, { editLast }) {
    this.chat = chat;
    this.editLast = editLast;
    this.images = [];
    this.area = h("textarea", { id: "prompt", rows: "1", dir: "auto", enterkeyhint: "send" });
    this.previews = h("div", { class: "previews" });
    this.file = h("input", { type: "file", accept: "image/*", multiple: true, hidden: true,
                             on: { change: () => { this.#add([...this.file.files]); this.file.value = ""; } } });
    this.attach = h("button", { type: "button", class: "quiet", on: { click: () => this.file.click() } }, icon("image"));
    this.button = h("button", { type: "submit", class: "send" });
    this.context = h("span", { class: "context", role: "img" });
    this.form = h("form", { on: { submit: (event) => { event.preventDefault(); this.#submit(); } } },
                  this.previews, this.area,
                  h("div", { class: "row" }, this.attach, this.file, this.context, this.button));
    byId("composer").append(this.form, h("p", { class: "hint", data: { t: "hint" } }));
    this.fit = growWithText(this.area);
    this.area.addEventListener("keydown", (event) => this.#onKey(event));
    this.area.addEventListener("input", () => this.update());
    this.#takePictures();
    for (const name of ["busy", "open", "models"]) chat.addEventListener(name, () => this.update());
  }

  /** Puts a text into the box, to be sent or changed. */
  set(text) {
    this.area.value = text;
    this.fit();
    this.update();
    this.area.focus();
  }

  update() {
    const { isBusy, model } = this.chat;
    const name = t(isBusy ? "stop" : "send");
    this.button.replaceChildren(icon(isBusy ? "stop" : "send"));
    this.button.title = name;
    this.button.setAttribute("aria-label", name);
    this.button.disabled = !isBusy && !this.area.value.trim() && !this.images.length;
    this.area.placeholder = t("placeholder");
    this.area.setAttribute("aria-label", t("placeholder"));
    this.attach.hidden = model?.sees === false;
    this.attach.title = t("attach");
    this.attach.setAttribute("aria-label", t("attach"));
  }

  #submit() {
    if (this.chat.isBusy) {
      this.chat.stop();
      return;
    }
    const text = this.area.value.trim();
    if (!text && !this.images.length) return;
    const images = this.images;
    this.images = [];
    this.#showPreviews();
    this.set("");
    this.chat.send(text, images);
  }

  #onKey(event) {
    // Enter that chooses a word in an input method is not ours.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      if (!this.chat.isBusy) this.#submit();
    } else if (event.key === "ArrowUp" && !this.area.value && !this.chat.isBusy) {
      event.preventDefault();
      this.editLast();
    }
  }

  #takePictures() {
    this.area.addEventListener("paste", (event) => {
      const files = [...event.clipboardData.files].filter(isImage);
      if (!files.length) return;
      event.preventDefault();
      this.#add(files);
    });
    const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dropping");
    });
    addEventListener("drop", (event) => {
      document.body.classList.remove("dropping");
      if (!holdsFiles(event)) return;
      event.preventDefault();
      this.#add([...event.dataTransfer.files]);
    });
  }

  async #add(files) {
    if (this.chat.model?.sees === false) {
      toast(t("cannotSee", { model: this.chat.model.id }));
      return;
    }
    for (const file of files) {
      if (this.images.length >= kMaxImages) {
        toast(t("tooManyPictures", { n: kMaxImages }));
        break;
      }
      try {
        this.images.push(await readImage(file));
      } catch {
        toast(t("notAPicture", { name: file.name }));
      }
    }
    this.#showPreviews();
    this.area.focus();
  }

  #showPreviews() {
    this.previews.replaceChildren(...this.images.map((url, i) =>
      h("div", { class: "preview" }, h("img", { src: url, alt: t("picture") }),
        h("button", { type: "button", title: t("remove"), "aria-label": t("remove"), on: { click: () => {
          this.images.splice(i, 1);
          this.#showPreviews();
        } } }, icon("close")))));
    this.update();
  }
}
