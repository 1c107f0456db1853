// The WebSocket relay's line, in a worker: whatever else the page does, frames go out and come back on time.
//
// At most `inFlight` frames are under way; a camera frame that finds none free is dropped, so the newest wins and
// nothing queues. Answers come in the order of their frames, and are painted on the page's canvas from here.

let run = null;
let canvas = null;
let pen = null;
const settings = { inFlight: 1, quality: 0.85 };

const orders = {
  // The page's canvas (OffscreenCanvas), once.
  canvas(order) {
    canvas = order.canvas;
    pen = canvas.getContext("2d");
  },
  settings: ({ inFlight, quality }) => Object.assign(settings, { inFlight, quality }),
  // Opens the socket at `url`, to which `token` is the key. Frames come from a stream (`frames`), or as `frame` orders.
  start({ url, token, frames }) {
    stop();
    run = new Line(url, token);
    if (frames) run.follow(frames.getReader());
  },
  frame: ({ picture }) => (run ? run.send(picture, picture.width, picture.height) : picture.close()),
  stop,
};

self.onmessage = ({ data }) => orders[data.order](data);

function stop() {
  run?.close();
  run = null;
  pen?.clearRect(0, 0, canvas.width, canvas.height);
}

class Line {
  constructor(url, token) {
    this.underWay = this.answered = this.painted = 0;
    this.sheet = new OffscreenCanvas(1, 1);
    this.pen = this.sheet.getContext("2d");
    this.socket = new WebSocket(url, ["understudy.frames", token]);
    this.socket.binaryType = "blob";
    let problem = "unreachable";
    this.socket.onopen = () => {
      problem = "closed";
      this.tell({ event: "open" });
    };
    this.socket.onclose = () => this.tell({ event: "problem", problem });
    this.socket.onmessage = (message) => this.paint(message.data);
  }

  tell(event) {
    if (run === this) self.postMessage(event);
  }

  // Sends the camera's frames until the stream ends.
  async follow(reader) {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      if (run !== this) {
        value.close();
        return reader.cancel();
      }
      this.send(value, value.displayWidth, value.displayHeight);
    }
  }

  // Sends a VideoFrame or an ImageBitmap where a place is free, and lets go of it.
  async send(picture, width, height) {
    const isFree = this.socket.readyState === WebSocket.OPEN && this.underWay < settings.inFlight;
    if (!isFree) return picture.close();
    this.underWay++;
    fit(this.sheet, width, height);
    this.pen.drawImage(picture, 0, 0, width, height);
    picture.close();
    const jpeg = await this.sheet.convertToBlob({ type: "image/jpeg", quality: settings.quality });
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(jpeg);
  }

  async paint(jpeg) {
    const number = ++this.answered;
    this.underWay--;
    const picture = await createImageBitmap(jpeg);
    if (run === this && number > this.painted) {
      this.painted = number;
      fit(canvas, picture.width, picture.height);
      pen.drawImage(picture, 0, 0);
    }
    picture.close();
  }

  close() {
    this.socket.onclose = null;
    this.socket.close();
  }
}

function fit(sheet, width, height) {
  if (sheet.width === width && sheet.height === height) return;
  sheet.width = width;
  sheet.height = height;
}
