// Reads the frame number off the bottom strip of a picture (see benchmarks/harness/barcode.py); on a page or in a worker.
(() => {
  const BITS = 10, STRIP = 24;
  const canvas = self.document ? document.createElement("canvas") : new OffscreenCanvas(1, STRIP);
  const pen = canvas.getContext("2d", { willReadFrequently: true });

  // The number; null where the strip does not agree with itself.
  self.barcodeNumber = (source, width, height, mirrored) => {
    canvas.width = width;
    canvas.height = STRIP;
    pen.setTransform(mirrored ? -1 : 1, 0, 0, 1, mirrored ? width : 0, 0);
    pen.drawImage(source, 0, height - STRIP, width, STRIP, 0, 0, width, STRIP);
    const { data } = pen.getImageData(0, 0, width, STRIP);
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
})();
