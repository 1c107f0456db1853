// A guided take: prompts over the mirrored picture, recorded by the browser, sent as base64 when it is over.

const recorders = new WeakMap();

export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
  const recorder = recorders.get(parentElement) ?? new Recorder(parentElement);
  recorders.set(parentElement, recorder);
  Object.assign(recorder, { settings: data, setState: setStateValue, trigger: setTriggerValue });
  return () => { recorder.stop(); recorders.delete(parentElement); };
}

class Recorder {
  constructor(parent) {
    this.stage = parent.querySelector(".stage");
    this.video = parent.querySelector("video");
    this.prompt = parent.querySelector(".prompt");
    this.bar = parent.querySelector(".bar");
    this.button = parent.querySelector("button");
    this.button.onclick = () => (this.stream ? this.stop() : this.start());
    this.problem = "";
  }

  async start() {
    this.tell("");
    if (!window.isSecureContext || !navigator.mediaDevices) return this.tell("insecure");
    const mime = ["video/webm;codecs=vp8", "video/webm", "video/mp4"].find((kind) => window.MediaRecorder?.isTypeSupported(kind));
    if (!mime) return this.tell("unsupported");
    try {
      const video = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 25 } };
      this.stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
      this.video.srcObject = this.stream;
      await this.video.play();
    } catch (error) {
      this.stop();
      return this.tell(error.name || "failed");
    }
    this.stage.classList.add("on");
    this.button.textContent = "Stop";
    const parts = [];
    const recorder = new MediaRecorder(this.stream, { mimeType: mime, videoBitsPerSecond: 2_500_000 });
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.start(1000);
    const isWhole = await this.lead();
    recorder.onstop = () => isWhole && this.send(new Blob(parts, { type: mime }));
    if (recorder.state !== "inactive") recorder.stop(); else recorder.onstop();
    this.stop();
  }

  // Shows one prompt after the other; false when it was stopped in between.
  async lead() {
    const total = this.settings.prompts.reduce((sum, prompt) => sum + prompt.seconds, 0);
    let gone = 0;
    for (const { text, seconds } of this.settings.prompts) {
      this.prompt.textContent = text;
      const until = performance.now() + seconds * 1000;
      while (performance.now() < until) {
        if (!this.stream) return false;
        await new Promise((resolve) => setTimeout(resolve, 50));
        this.bar.style.width = `${(100 * (gone + seconds - (until - performance.now()) / 1000)) / total}%`;
      }
      gone += seconds;
    }
    return true;
  }

  send(blob) {
    if (blob.size > this.settings.mostBytes) return this.tell("large");
    const reader = new FileReader();
    reader.onload = () => this.trigger("take", { mime: blob.type, data: String(reader.result).split(",", 2)[1] });
    reader.readAsDataURL(blob);
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
    this.stage.classList.remove("on");
    this.prompt.textContent = "";
    this.bar.style.width = "0";
    this.button.textContent = "Record";
  }

  tell(problem) {
    if (problem === this.problem) return;
    this.problem = problem;
    this.setState("problem", problem);
  }
}
