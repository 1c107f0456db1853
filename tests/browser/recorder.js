// Keeps every picture that a <video> of this frame presents, from the first one on, as small JPEGs: [address, ms].
(() => {
  const WIDTH = 320, HEIGHT = 240, MOST = 3000;
  window.recorded = [];
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const attached = new WeakSet();

  const attach = (video) => {
    if (attached.has(video)) return;
    attached.add(video);
    const keep = (now) => {
      if (window.recorded.length < MOST) {
        pen.drawImage(video, 0, 0, WIDTH, HEIGHT);
        window.recorded.push([canvas.toDataURL("image/jpeg", 0.9), now]);
      }
      video.requestVideoFrameCallback(keep);
    };
    video.requestVideoFrameCallback(keep);
  };

  const look = () => document.querySelectorAll("video").forEach(attach);
  setInterval(look, 10); // a <video> comes well before its first picture
})();
