// Reads a playing <video> or a painted <canvas>: its pixels, and the frame numbers that its bottom strip carries (barcode.js).
(() => {
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d");

  const sizeOf = (source) => [source.videoWidth || source.width || 0, source.videoHeight || source.height || 0];

  const draw = (source, mirrored) => {
    [canvas.width, canvas.height] = sizeOf(source);
    pen.setTransform(mirrored ? -1 : 1, 0, 0, 1, mirrored ? canvas.width : 0, 0);
    pen.drawImage(source, 0, 0);
  };

  const number = (source, mirrored) => barcodeNumber(source, ...sizeOf(source), mirrored);

  window.probe = {
    size: sizeOf,
    // One picture as a PNG data address.
    picture(source, mirrored) {
      draw(source, mirrored);
      return canvas.toDataURL("image/png");
    },
    // Frame numbers as a video presents them: [number, ms] pairs collected for some milliseconds.
    watch: (video, mirrored, ms) =>
      new Promise((resolve) => {
        const seen = [];
        const end = performance.now() + ms;
        const look = (now) => {
          seen.push([number(video, mirrored), now]);
          if (now < end) video.requestVideoFrameCallback(look);
          else resolve(seen);
        };
        video.requestVideoFrameCallback(look);
        setTimeout(() => resolve(seen), ms + 5000);
      }),
    // The same for a canvas: looked at with every repaint of the page, kept when the number changes.
    watchCanvas: (source, mirrored, ms) =>
      new Promise((resolve) => {
        const seen = [];
        const end = performance.now() + ms;
        const look = (now) => {
          const value = number(source, mirrored);
          if (!seen.length || seen[seen.length - 1][0] !== value) seen.push([value, now]);
          if (now < end) requestAnimationFrame(look);
          else resolve(seen);
        };
        requestAnimationFrame(look);
      }),
  };
})();
