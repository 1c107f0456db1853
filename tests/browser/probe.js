// Reads a playing <video> or a painted <canvas>: its pixels, and the frame numbers that its bottom strip carries.
(() => {
  const BITS = 10, STRIP = 24;
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d", { willReadFrequently: true });

  const sizeOf = (source) => [source.videoWidth || source.width || 0, source.videoHeight || source.height || 0];

  const draw = (source, mirrored, rows) => {
    const [width, height] = sizeOf(source);
    canvas.width = width;
    canvas.height = rows || height;
    pen.setTransform(mirrored ? -1 : 1, 0, 0, 1, mirrored ? width : 0, 0);
    pen.drawImage(source, 0, height - canvas.height, width, canvas.height, 0, 0, width, canvas.height);
  };

  // The number in the strip (see tests/barcode.py); null where the strip does not agree with itself.
  const number = (source, mirrored) => {
    draw(source, mirrored, STRIP);
    const { data, width } = pen.getImageData(0, 0, canvas.width, STRIP);
    const cell = Math.floor(width / (2 * BITS));
    const isWhite = (place) => {
      let sum = 0, count = 0;
      for (let y = STRIP / 4; y < (3 * STRIP) / 4; y += 2)
        for (let x = place * cell + (cell >> 2); x < (place + 1) * cell - (cell >> 2); x += 3) {
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
