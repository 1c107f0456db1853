"""All commands under one name: `understudy COMMAND ...`, or `python -m understudy COMMAND ...`."""

import runpy
import sys
from pathlib import Path

_COMMANDS = {
    "app": ("streamlit", "the pages: Live, Studio, Models, Convert"),
    "camera": ("understudy.camera", "your camera, swapped, as a camera for other programs"),
    "consent": ("understudy.consent", "make, check and revoke consent records"),
    "convert": ("understudy.convert", "a clip in, a swapped clip out"),
    "evaluate": ("training.evaluate", "how good a bundle's personas are, on clips"),
    "extract": ("training.extract", "the faces of clips and photos, as a faceset"),
    "personas": ("understudy.personas", "what ships, one name a line"),
    "release": ("pipelines.release", "from clips to a deployed model"),
    "serve": ("serving.local_server", "a bundle on localhost"),
    "train": ("training.train", "train, export and register"),
}
_ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run the command that the first argument names, with the others; returns its exit status."""
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else "", sys.argv[2:])
    if name not in _COMMANDS:
        lines = [f"  {command:10} {what}" for command, (_, what) in _COMMANDS.items()]
        print("\n".join(["usage: understudy COMMAND ...", *lines]), file=sys.stderr if name[:2] != "-h" else sys.stdout)
        return 0 if name in ("-h", "--help") else 2
    module, _ = _COMMANDS[name]
    if name == "app":
        script = next(path for path in (_ROOT / "app.py", _ROOT / "understudy_app.py") if path.is_file())
        arguments = ["run", str(script), *arguments]
    sys.argv = [f"understudy {name}", *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        print(f"'understudy {name}' needs {error.name}. Install understudy[train,serve,pipelines].", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
