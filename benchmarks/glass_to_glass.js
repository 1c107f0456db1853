// Notes when a numbered camera frame is presented here, and when it comes back shown: [number, ms] each.
// Runs before a page's own scripts, once it knows READER, the source of benchmarks/harness/barcode.js, which reads the
// numbers; what comes back is mirrored. All moments are of one clock, the time since 1970.
(() => {
  if (!navigator.mediaDevices) return;
  const MOST = 20000;
  const glass = (window.glass = { sent: [], shown: [] });

  const note = (list, number, time_ms) => {
    if (number !== null && list.length < MOST) list.push([number, time_ms]);
  };

  const follow = (video, list, mirrored) => {
    const look = (now, { presentationTime }) => {
      if (video.videoWidth) {
        const number = barcodeNumber(video, video.videoWidth, video.videoHeight, mirrored);
        note(list, number, performance.timeOrigin + presentationTime);
      }
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

  // What comes back by the WebRTC relay: its <video>.
  const known = new WeakSet();
  setInterval(() => {
    for (const video of document.querySelectorAll("video:not([data-glass])")) {
      if (known.has(video) || !video.srcObject) continue;
      known.add(video);
      follow(video, glass.shown, true);
    }
  }, 100);

  // What comes back by the WebSocket relay: what its worker paints on the canvas that the page handed over.
  const watchPaint = () => {
    const drawImage = OffscreenCanvasRenderingContext2D.prototype.drawImage;
    const news = new BroadcastChannel("glass");
    let shown = null;
    const listen = ({ data }) => { if (data?.canvas) shown = data.canvas; };
    self.addEventListener("message", listen);
    OffscreenCanvasRenderingContext2D.prototype.drawImage = function (...inputs) {
      drawImage.apply(this, inputs);
      if (this.canvas !== shown) return;
      const time_ms = performance.timeOrigin + performance.now(); // before the reading, which takes a moment itself
      news.postMessage([barcodeNumber(this.canvas, this.canvas.width, this.canvas.height, true), time_ms]);
    };
  };
  const spy = URL.createObjectURL(new Blob([`${READER}; (${watchPaint})();`]));
  const channel = new BroadcastChannel("glass");
  channel.onmessage = ({ data }) => note(glass.shown, ...data);
  const Plain = window.Worker;
  window.Worker = class extends Plain {
    constructor(url, options) {
      if (!String(url).startsWith("blob:")) return new Plain(url, options);
      super(URL.createObjectURL(new Blob([`importScripts(${JSON.stringify(spy)}, ${JSON.stringify(String(url))});`])));
    }
  };
})();
