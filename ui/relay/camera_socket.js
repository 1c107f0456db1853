// The camera of the WebSocket relay: opens it, and hands its frames to a worker (camera_worker.js, WORKER_SOURCE here),
// which sends them off and paints the answers on the canvas.
//
// Streamlit calls this again whenever `data` changes and cleans up once, when the page leaves it.

const cameras = new WeakMap();

export default function ({ data, parentElement, setStateValue }) {
  const camera = cameras.get(parentElement) ?? new Camera(parentElement);
  cameras.set(parentElement, camera);
  camera.tell = setStateValue;
  camera.set(data);
  return () => { camera.end(); cameras.delete(parentElement); };
}

class Camera {
  constructor(parent) {
    this.button = parent.querySelector("button");
    this.stage = parent.querySelector(".stage");
    this.choice = parent.querySelector("select");
    this.run = null;
    this.button.onclick = () => (this.run ? this.stop() : this.start());
    this.choice.onchange = () => { if (this.run) { this.stop(); this.start(); } };
    this.worker = startWorker();
    this.worker.onmessage = ({ data }) => this.hear(data);
    const canvas = this.stage.querySelector("canvas");
    const fresh = canvas.cloneNode(); // a canvas can be handed over once
    canvas.replaceWith(fresh);
    this.order("canvas", { canvas: fresh.transferControlToOffscreen() });
  }

  set(settings) {
    this.settings = settings;
    this.stage.style.aspectRatio = `${settings.width} / ${settings.height}`;
    this.stage.querySelector("p").textContent = settings.hint;
    this.dress();
    this.order("settings", { inFlight: settings.inFlight, quality: settings.quality });
  }

  async start() {
    const run = (this.run = {});
    this.label("Stop");
    this.tell("problem", "");
    try {
      run.stream = await openCamera(this.settings, this.choice.value);
      if (this.run !== run) return release(run);
      await this.offer(run);
      if (this.run !== run) return;
      run.stream.getVideoTracks()[0].onended = () => this.fail(run, "unplugged");
      const frames = framesOf(run);
      this.order("start", { url: socketUrl(this.settings), token: this.settings.token, frames });
      if (!frames) await this.follow(run);
    } catch (error) {
      this.fail(run, error.name || "failed");
    }
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

  // Where the browser gives no stream of frames: hands over what a <video> presents.
  async follow(run) {
    const video = (run.video = Object.assign(document.createElement("video"), { muted: true, srcObject: run.stream }));
    const look = async () => {
      if (this.run !== run) return;
      video.requestVideoFrameCallback(look);
      this.order("frame", { picture: await createImageBitmap(video) });
    };
    video.requestVideoFrameCallback(look);
    await video.play();
  }

  hear({ event, problem }) {
    if (!this.run) return;
    if (event === "open") this.dress(true);
    else this.fail(this.run, problem);
  }

  order(order, things = {}) {
    const heavy = ["canvas", "frames", "picture"].map((name) => things[name]).filter(Boolean);
    this.worker.postMessage({ order, ...things }, heavy);
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
    this.order("stop");
    this.label("Start the camera");
    this.dress(false);
  }

  // Shows the picture, or the persona while there is none.
  dress(isOn = this.stage.classList.contains("on")) {
    this.stage.classList.toggle("on", isOn);
    this.stage.style.backgroundImage = isOn ? "none" : `url("${this.settings.still}")`;
  }

  end() {
    this.stop();
    this.worker.terminate();
  }

  label(text) {
    this.button.textContent = text;
  }
}

function startWorker() {
  const url = URL.createObjectURL(new Blob([WORKER_SOURCE], { type: "text/javascript" }));
  return new Worker(url);
}

function openCamera({ width, height, fps }, deviceId) {
  if (!navigator.mediaDevices) throw new DOMException("the page is not secure", "insecure");
  const video = { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: fps } };
  const open = (wishes) => navigator.mediaDevices.getUserMedia({ video: wishes, audio: false });
  if (!deviceId) return open(video);
  return open({ ...video, deviceId: { exact: deviceId } }).catch((error) => {
    if (error.name === "OverconstrainedError") return open(video); // it was unplugged meanwhile
    throw error;
  });
}

// The camera's frames as a stream that a worker can read; undefined where the browser has no such thing.
function framesOf({ stream }) {
  if (!("MediaStreamTrackProcessor" in window)) return undefined;
  const [track] = stream.getVideoTracks();
  return new MediaStreamTrackProcessor({ track, maxBufferSize: 1 }).readable;
}

function socketUrl({ path }) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}${path}`;
}

function release(run) {
  run.stream?.getTracks().forEach((track) => { track.onended = null; track.stop(); });
}
