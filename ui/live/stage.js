// What stands under the picture, whichever relay carries it: cover, full screen, pop-out, the keyboard.
//
// The WebRTC relay's picture lives in a frame of streamlit-webrtc's, on the same origin: it is dressed as the rest of
// the page from here, and its keys are heard too.

const stages = new WeakMap();
const FRAME = 'iframe[title*="webrtc_streamer"]';
const AGAIN_MS = 1000; // whoever hits the panic key twice in a hurry stays covered

export default function ({ data, parentElement, setTriggerValue }) {
  const stage = stages.get(parentElement) ?? new Stage(parentElement);
  stages.set(parentElement, stage);
  stage.tell = setTriggerValue;
  stage.set(data);
  return () => { stage.end(); stages.delete(parentElement); };
}

class Stage {
  constructor(parent) {
    this.parent = parent;
    this.dialog = parent.querySelector("dialog");
    this.coveredAt = -AGAIN_MS;
    const actions = { cover: () => this.toggleCover(), full: fullScreen, pop: popOut, keys: () => this.dialog.showModal() };
    for (const button of parent.querySelectorAll("button[data-do]")) button.onclick = actions[button.dataset.do];
    parent.querySelector(".close").onclick = () => this.dialog.close();
    this.single = parent.querySelector("input");
    this.single.checked = localStorage.getItem("understudy-keys") !== "off";
    this.single.onchange = () => localStorage.setItem("understudy-keys", this.single.checked ? "on" : "off");
    this.onKey = (event) => this.hear(event);
    this.onLeave = (event) => { if (this.data.isRecording) event.preventDefault(); };
    document.addEventListener("keydown", this.onKey, true);
    window.addEventListener("beforeunload", this.onLeave);
    this.watcher = new MutationObserver(() => this.dress());
    this.watcher.observe(document.querySelector(".st-key-stage") ?? document.body, { childList: true, subtree: true });
  }

  set(data) {
    this.data = data;
    this.mark(data.isCovered);
    this.dress();
  }

  end() {
    document.removeEventListener("keydown", this.onKey, true);
    window.removeEventListener("beforeunload", this.onLeave);
    this.watcher.disconnect();
    this.sizes?.disconnect();
  }

  // -------------------------------------------------------------------- keys

  hear(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.composedPath()[0])) return;
    if (this.dialog.open && event.key !== "Escape") return;
    if (event.key === " ") {
      if (!picture() || isTicked(event.composedPath()[0])) return;
      take(event);
      if (!event.repeat) this.toggleCover();
      return;
    }
    if (!this.single.checked || event.repeat) return;
    const act = this.actionOf(event.key.toLowerCase());
    if (!act) return;
    take(event);
    act();
  }

  actionOf(key) {
    if (key >= "1" && key <= "9") return () => document.dispatchEvent(new CustomEvent("understudy:persona", { detail: +key }));
    const press = (name) => () => document.querySelector(`.st-key-${name} :is(button, input)`)?.click();
    return { r: press("record"), s: press("snapshot"), m: press("is_mirrored"), f: fullScreen,
             "?": () => this.dialog.showModal() }[key];
  }

  // -------------------------------------------------------------------- the panic key

  async toggleCover() {
    const isCovered = !this.isCovered;
    if (!isCovered && performance.now() - this.coveredAt < AGAIN_MS) return;
    this.mark(isCovered);
    if (isCovered) this.coveredAt = performance.now();
    try {
      const body = JSON.stringify({ token: this.data.token, covered: isCovered });
      const answer = await fetch(this.data.coverPath, {
        method: "POST", headers: { "Content-Type": "application/json" }, body, keepalive: true,
      });
      if (!answer.ok) throw new Error(answer.statusText);
    } catch (error) {
      if (isCovered) stopButton()?.click(); // nobody can be asked to cover: nothing is sent any more
    }
    this.tell("covered", Date.now());
  }

  mark(isCovered) {
    this.isCovered = isCovered;
    const button = this.parent.querySelector("[data-do=cover]");
    button.setAttribute("aria-pressed", String(isCovered));
    button.querySelector(".words").textContent = isCovered ? this.data.words.uncover : this.data.words.cover;
  }

  // -------------------------------------------------------------------- the frame's looks

  dress() {
    const frame = document.querySelector(FRAME);
    if (!frame) return;
    const inside = frame.contentDocument;
    if (!inside?.querySelector("#root")) {
      frame.addEventListener("load", () => this.dress(), { once: true });
      return;
    }
    if (this.dressed !== inside) {
      this.dressed = inside;
      inside.head.append(Object.assign(inside.createElement("style"), { id: "understudy", textContent: fonts() }));
      inside.head.append(Object.assign(inside.createElement("style"), { id: "understudy-look" }));
      inside.addEventListener("keydown", this.onKey, true);
      this.sizes?.disconnect();
      this.sizes = new ResizeObserver(() => {
        frame.style.setProperty("height", `${inside.getElementById("root").offsetHeight}px`, "important");
      });
      this.sizes.observe(inside.getElementById("root"));
    }
    const look = inside.getElementById("understudy-look");
    const css = frameLook(this.data, getComputedStyle(document.querySelector(".stApp")));
    if (look.textContent !== css) look.textContent = css;
  }
}

function frameLook({ still, aspect, hint }, page) {
  return `
    #root { font: 0.875rem ${page.fontFamily}; }
    .MuiButton-root, .MuiTypography-root { text-transform: none !important; font: inherit !important; letter-spacing: 0 !important; }
    .MuiButton-root { border-radius: 8px !important; padding: 0 12px !important; height: 40px; box-shadow: none !important; }
    :focus-visible { outline: 3px solid currentColor !important; outline-offset: -3px; }
    video { display: block; border-radius: 8px; aspect-ratio: ${aspect}; object-fit: contain; background: #8882; }
    .MuiPaper-root:has(> svg[data-testid="VideoLabelIcon"]) {
      position: relative; aspect-ratio: ${aspect}; border-radius: 8px; overflow: hidden;
      background: center / auto 100% no-repeat url("${still}") #8881;
    }
    .MuiPaper-root > svg[data-testid="VideoLabelIcon"] { display: none; }
    .MuiPaper-root:has(> svg[data-testid="VideoLabelIcon"])::after {
      content: ${JSON.stringify(hint)}; position: absolute; inset: auto 0 0; padding: 8px 12px; text-align: center;
      background: #000a; color: #fff; font: inherit;
    }
    #root > div > div { margin: 0 !important; padding: 0 !important; }
    #root > div > div:last-child { display: flex; justify-content: flex-start !important; gap: 8px; padding: 8px 0 !important; }`;
}

// The page's own font, for the frame, which knows none of it.
function fonts() {
  const faces = [...document.styleSheets].flatMap((sheet) => {
    try {
      return [...sheet.cssRules].filter((rule) => rule instanceof CSSFontFaceRule && /Source Sans/.test(rule.cssText))
        .map((rule) => rule.cssText.replace(/url\(["']?([^"')]+)["']?\)/g, (_, url) => `url("${new URL(url, sheet.href ?? location.href)}")`));
    } catch (error) { return []; } // another origin's sheet
  });
  return faces.join("\n");
}

function picture() {
  const video = document.querySelector(FRAME)?.contentDocument?.querySelector("video");
  if (video) return video;
  const canvas = socketRoot()?.querySelector(".stage.on canvas");
  return canvas ?? null;
}

function socketRoot() {
  return [...document.querySelectorAll(".st-key-camera_socket *")].find((each) => each.shadowRoot)?.shadowRoot;
}

function stopButton() {
  const roots = [document.querySelector(FRAME)?.contentDocument, socketRoot()].filter(Boolean);
  return roots.map((root) => root.querySelector("button")).find(Boolean);
}

function fullScreen() {
  const shown = picture();
  if (document.fullscreenElement) return document.exitFullscreen();
  const host = shown?.ownerDocument === document ? shown : document.querySelector(FRAME);
  if (host?.tagName === "IFRAME") return host.contentDocument.fullscreenElement
    ? host.contentDocument.exitFullscreen() : shown.requestFullscreen();
  return host?.requestFullscreen();
}

async function popOut() {
  const shown = picture();
  if (!shown) return;
  if (document.pictureInPictureElement) return document.exitPictureInPicture();
  if (shown.tagName === "VIDEO") return shown.requestPictureInPicture();
  const video = Object.assign(document.createElement("video"), { muted: true, srcObject: shown.captureStream() });
  await video.play();
  return video.requestPictureInPicture();
}

function isTyping(target) {
  const kinds = 'textarea, select, [contenteditable="true"], input:not([type=checkbox], [type=radio], [type=range], [type=button])';
  return Boolean(target?.matches?.(kinds));
}

// What the space bar ticks, and nothing else does.
function isTicked(target) {
  return Boolean(target?.matches?.("input[type=checkbox], summary, video[controls]"));
}

function take(event) {
  event.preventDefault();
  event.stopImmediatePropagation();
}
