// Faces to choose from: a radio group with one tab stop. Arrow keys move and choose, as a radio group's do.

const pickers = new WeakMap();

export default function ({ data, parentElement, setStateValue }) {
  const picker = pickers.get(parentElement) ?? new Picker(parentElement);
  pickers.set(parentElement, picker);
  picker.tell = setStateValue;
  picker.set(data);
  return () => { picker.end(); pickers.delete(parentElement); };
}

class Picker {
  constructor(parent) {
    this.root = parent.querySelector(".faces");
    this.root.onkeydown = (event) => this.move(event);
    this.onNumber = ({ detail }) => this.choose(this.faces[detail - 1]);
    document.addEventListener("understudy:persona", this.onNumber);
    this.drawn = "";
  }

  set({ label, groups, chosen }) {
    const drawn = JSON.stringify([label, groups]);
    if (drawn !== this.drawn) this.draw(label, groups);
    const isFirst = !this.drawn;
    this.drawn = drawn;
    this.mark(chosen);
    // The page's first question: whoever comes by keyboard need not pass the navigation and the picture.
    if (isFirst && document.activeElement === document.body) this.faces.find((face) => face.tabIndex === 0)?.focus({ preventScroll: true });
  }

  end() {
    document.removeEventListener("understudy:persona", this.onNumber);
  }

  get faces() {
    return [...this.root.querySelectorAll("[role=radio]")];
  }

  draw(label, groups) {
    let number = 0;
    this.root.setAttribute("aria-label", label);
    this.root.replaceChildren(...groups.flatMap(({ title, personas }) => [
      ...(groups.length > 1 ? [Object.assign(document.createElement("div"), { className: "title", textContent: title })] : []),
      ...personas.map((persona) => this.face(persona, ++number)),
    ]));
  }

  face({ name, title, src, note }, number) {
    const face = document.createElement("button");
    face.type = "button";
    face.dataset.name = name;
    face.setAttribute("role", "radio");
    face.setAttribute("aria-label", note ? `${title}, ${note}` : title);
    if (number < 10) face.setAttribute("aria-keyshortcuts", String(number));
    const image = Object.assign(document.createElement("img"), { src, alt: "", draggable: false });
    const words = Object.assign(document.createElement("span"), { className: "name", textContent: title });
    face.append(image, words);
    if (note) face.append(Object.assign(document.createElement("span"), { className: "note", textContent: note }));
    face.onclick = () => this.choose(face);
    return face;
  }

  choose(face) {
    if (!face) return;
    this.mark(face.dataset.name);
    this.tell("persona", face.dataset.name);
  }

  mark(name) {
    const { faces } = this;
    const at = Math.max(0, faces.findIndex((face) => face.dataset.name === name));
    faces.forEach((face, place) => {
      face.setAttribute("aria-checked", String(place === at));
      face.tabIndex = place === at ? 0 : -1;
    });
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const { faces } = this;
    const ends = { Home: 0, End: faces.length - 1 };
    const from = faces.indexOf(event.target.closest("[role=radio]"));
    if (from < 0 || (!step && !(event.key in ends))) return;
    event.preventDefault();
    const face = faces[event.key in ends ? ends[event.key] : (from + step + faces.length) % faces.length];
    this.choose(face);
    face.focus();
    face.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}
