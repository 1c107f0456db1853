// The camera of the WebSocket relay: JPEG frames out, shown frames back onto a canvas.
//
// At most data.inFlight frames are under way; a camera frame that finds none free is dropped,
// so the newest wins and nothing queues. Answers come in the order of their frames.
// Streamlit calls this again whenever `data` changes and cleans up once, when the page leaves it.

const cameras = new WeakMap();

export default function ({ data, parentElement, setStateValue }) {
  const camera = cameras.get(parentElement) ?? new Camera(parentElement);
  cameras.set(parentElement, camera);
  camera.settings = data;
  camera.tell = setStateValue;
  return () => { camera.stop(); cameras.delete(parentElement); };
}

class Camera {
  constructor(parent) {
    this.button = parent.querySelector("button");
    this.canvas = parent.querySelector("canvas");
    this.pen = this.canvas.getContext("2d");
    this.stage = parent.querySelector(".stage");
    this.choice = parent.querySelector("select");
    this.run = null;
    this.button.onclick = () => (this.run ? this.stop() : this.start());
    this.choice.onchange = () => { if (this.run) { this.stop(); this.start(); } };
  }

  async start() {
    const run = (this.run = { underWay: 0, sent: 0, painted: 0 });
    this.label("Stop");
    this.tell("problem", "");
    try {
      run.stream = await openCamera(this.settings, this.choice.value);
      if (this.run !== run) return release(run);
      await this.offer(run);
      run.stream.getVideoTracks()[0].onended = () => this.fail(run, "unplugged");
      run.video = Object.assign(document.createElement("video"), { muted: true, srcObject: run.stream });
      await run.video.play();
      run.socket = await openSocket(this.settings);
      if (this.run !== run) return release(run);
    } catch (error) {
      return this.fail(run, error.name || "failed");
    }
    run.socket.onclose = () => this.fail(run, "closed");
    run.socket.onmessage = (message) => this.paint(run, message.data);
    this.stage.classList.add("on");
    this.send(run);
  }

  // Lets the viewer choose where there are several cameras; browsers name them once one was allowed.
  async offer(run) {
    const devices = await navigator.mediaDevices.enumerateDevices();
    const cameras = devices.filter((device) => device.kind === "videoinput");
    const current = run.stream.getVideoTracks()[0].getSettings().deviceId;
    this.choice.replaceChildren(...cameras.map(({ label, deviceId }, place) =>
      new Option(label || `Camera ${place + 1}`, deviceId, false, deviceId === current)));
    this.choice.hidden = cameras.length < 2;
  }

  // Sends the newest camera frame whenever one is presented and a place is free.
  send(run) {
    const sheet = new OffscreenCanvas(run.video.videoWidth, run.video.videoHeight);
    const pen = sheet.getContext("2d");
    const look = async () => {
      if (this.run !== run) return;
      run.video.requestVideoFrameCallback(look);
      if (run.underWay >= this.settings.inFlight) return;
      run.underWay++;
      if (sheet.width !== run.video.videoWidth) {
        sheet.width = run.video.videoWidth;
        sheet.height = run.video.videoHeight;
      }
      pen.drawImage(run.video, 0, 0);
      const jpeg = await sheet.convertToBlob({ type: "image/jpeg", quality: this.settings.quality });
      if (run.socket.readyState === WebSocket.OPEN) run.socket.send(jpeg);
    };
    run.video.requestVideoFrameCallback(look);
  }

  async paint(run, jpeg) {
    const number = ++run.sent;
    run.underWay--;
    const picture = await createImageBitmap(jpeg);
    if (this.run === run && number > run.painted) {
      run.painted = number;
      if (this.canvas.width !== picture.width || this.canvas.height !== picture.height) {
        this.canvas.width = picture.width;
        this.canvas.height = picture.height;
      }
      this.pen.drawImage(picture, 0, 0);
    }
    picture.close();
  }

  fail(run, problem) {
    if (this.run !== run) return;
    this.stop();
    this.tell("problem", problem);
  }

  stop() {
    const run = this.run;
    this.run = null;
    if (run) release(run);
    this.label("Start the camera");
    this.stage.classList.remove("on");
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  label(text) {
    this.button.textContent = text;
  }
}

function openCamera({ width, height }, deviceId) {
  if (!navigator.mediaDevices) throw new DOMException("the page is not secure", "insecure");
  const video = { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: 30 } };
  const open = (wishes) => navigator.mediaDevices.getUserMedia({ video: wishes, audio: false });
  if (!deviceId) return open(video);
  return open({ ...video, deviceId: { exact: deviceId } }).catch((error) => {
    if (error.name === "OverconstrainedError") return open(video); // it was unplugged meanwhile
    throw error;
  });
}

function openSocket({ path, token }) {
  return new Promise((resolve, reject) => {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${path}`);
    socket.binaryType = "blob";
    socket.onopen = () => { socket.send(token); resolve(socket); };
    socket.onerror = () => reject(new DOMException("no connection", "unreachable"));
  });
}

function release(run) {
  run.stream?.getTracks().forEach((track) => { track.onended = null; track.stop(); });
  if (run.socket) { run.socket.onclose = null; run.socket.close(); }
}
