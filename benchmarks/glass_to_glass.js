// Notes when a numbered camera frame is presented here, and when it comes back shown: [number, ms] each.
// Runs before a page's own scripts. Numbers are tests/barcode.py's; what comes back is mirrored.
(() => {
  if (!navigator.mediaDevices) return;
  const BITS = 10, STRIP = 24, MOST = 20000;
  const glass = (window.glass = { sent: [], shown: [] });
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const drawImage = CanvasRenderingContext2D.prototype.drawImage;

  // The number in the strip at the bottom; null where the strip does not agree with itself.
  const number = (source, width, height, mirrored) => {
    canvas.width = width;
    canvas.height = STRIP;
    pen.setTransform(mirrored ? -1 : 1, 0, 0, 1, mirrored ? width : 0, 0);
    drawImage.call(pen, source, 0, height - STRIP, width, STRIP, 0, 0, width, STRIP);
    const { data } = pen.getImageData(0, 0, width, STRIP);
    const cell = Math.floor(width / (2 * BITS));
    const isWhite = (place) => {
      let sum = 0, count = 0;
      for (let y = STRIP / 4; y < (3 * STRIP) / 4; y += 3)
        for (let x = place * cell + (cell >> 2); x < (place + 1) * cell - (cell >> 2); x += 4) {
          sum += data[(y * width + x) * 4 + 1];
          count++;
        }
      return sum / count > 127;
    };
    let value = 0;
    for (let bit = 0; bit < BITS; bit++) {
      if (isWhite(bit) === isWhite(BITS + bit)) return null;
      value = (value << 1) | isWhite(bit);
    }
    return value;
  };

  const note = (list, source, width, height, mirrored) => {
    const now = performance.now(); // before the reading, which takes a moment itself
    const value = width ? number(source, width, height, mirrored) : null;
    if (value !== null && list.length < MOST) list.push([value, now]);
  };

  const follow = (video, list, mirrored) => {
    const look = () => {
      note(list, video, video.videoWidth, video.videoHeight, mirrored);
      video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
  };

  // The camera, as the page gets it, in a corner of the page.
  const getUserMedia = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wishes) => {
    const stream = await getUserMedia(wishes);
    const camera = Object.assign(document.createElement("video"), { muted: true, srcObject: stream.clone() });
    camera.dataset.glass = "camera";
    camera.style.cssText = "position:fixed;right:0;bottom:0;width:16px;height:12px";
    document.body.appendChild(camera);
    follow(camera, glass.sent, false);
    await camera.play();
    return stream;
  };

  // What comes back: the WebRTC relay's <video>, or whatever the WebSocket relay paints.
  const known = new WeakSet();
  setInterval(() => {
    for (const video of document.querySelectorAll("video:not([data-glass])")) {
      if (known.has(video) || !video.srcObject) continue;
      known.add(video);
      follow(video, glass.shown, true);
    }
  }, 100);
  CanvasRenderingContext2D.prototype.drawImage = function (...inputs) {
    drawImage.apply(this, inputs);
    if (this.canvas.closest?.(".stage")) note(glass.shown, this.canvas, this.canvas.width, this.canvas.height, true);
  };
})();
