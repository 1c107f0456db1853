// Notes when a numbered camera frame is presented here, and when it comes back shown: [number, ms] each.
// Runs before a page's own scripts. tests/browser/barcode.js reads the numbers; what comes back is mirrored.
(() => {
  if (!navigator.mediaDevices) return;
  const MOST = 20000;
  const glass = (window.glass = { sent: [], shown: [] });
  const drawImage = CanvasRenderingContext2D.prototype.drawImage;

  const note = (list, source, width, height, mirrored) => {
    const now = performance.now(); // before the reading, which takes a moment itself
    const value = width ? barcodeNumber(source, width, height, mirrored) : null;
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
