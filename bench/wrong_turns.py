"""What a new user does wrong, and what is said: one sentence that leads on, and no traceback.

    python bench/wrong_turns.py [WORD...]

Each turn is a command with what is set for it, run in a folder of its own; WORDs choose those whose
description has one of them. Ends with 1 where something crashed, was silent or is no sentence.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_S, MOST_CHARACTERS = 90, 700
BASE = {"QLORA_BASE_MODEL": "builtin:tiny", "QLORA_OUTPUT_URI": "out"}
FAQ = BASE | {"QLORA_DATA_URI": "faq"}
NOWHERE = "http://127.0.0.1:9"

# what is done, the command behind `entrypoint.py`, what is set
TURNS: list[tuple[str, str, dict[str, str]]] = [
    ("a misspelt command", "trian", FAQ),
    ("a misspelt flag", "--lora-rank 4", FAQ),
    ("a misspelt variable", "inspect", FAQ | {"QLORA_LERNING_RATE": "1"}),
    ("no output", "train", {"QLORA_DATA_URI": "faq"}),
    ("a folder of photographs", "inspect", FAQ | {"QLORA_DATA_URI": "photos"}),
    ("an empty folder", "inspect", FAQ | {"QLORA_DATA_URI": "empty"}),
    ("a folder that is not there", "inspect", FAQ | {"QLORA_DATA_URI": "faqs"}),
    ("columns of other names", "inspect", FAQ | {"QLORA_DATA_URI": "odd.csv"}),
    ("broken JSON", "inspect", FAQ | {"QLORA_DATA_URI": "broken.jsonl"}),
    ("the output within the data", "train", FAQ | {"QLORA_OUTPUT_URI": "faq/out"}),
    ("a place that cannot be written", "train", FAQ | {"QLORA_OUTPUT_URI": "/proc/out"}),
    ("s3 without slashes", "inspect", FAQ | {"QLORA_DATA_URI": "s3:bucket"}),
    ("an unknown base", "plan", FAQ | {"QLORA_BASE_MODEL": "llama3"}),
    ("a hub that is off", "plan", FAQ | {"QLORA_BASE_MODEL": "a/b", "HF_HUB_OFFLINE": "1"}),
    ("a hub out of reach", "plan", FAQ | {"QLORA_BASE_MODEL": "a/b", "HF_ENDPOINT": NOWHERE}),
    ("fp16 without a GPU", "train", FAQ | {"QLORA_PRECISION": "fp16"}),
    ("an unknown GPU", "plan --gpu rtx4090", FAQ),
    ("an adapter that is not there", "ask --adapter nowhere", {}),
    ("an env file that is not there", "plan --env-file none.env", {}),
    ("two wrong values at once", "plan", FAQ | {"QLORA_EPOCHS": "ten", "QLORA_LORA_R": "-1"}),
    ("init without a terminal", "init", {}),
    (
        "a judge that is not there",
        "train",
        FAQ | {"QLORA_JUDGE_URL": NOWHERE, "QLORA_JUDGE_MODEL": "j"},
    ),
    ("python -m trainer", "-m trainer", {}),
    ("columns in German", "inspect", FAQ | {"QLORA_DATA_URI": "frage.csv"}),
    ("a Python that is not one", "make PYTHON=python2 .venv/ready", {}),
    # tried for the first time
    ("a ZIP archive", "inspect", FAQ | {"QLORA_DATA_URI": "faq.zip"}),
    ("a Word file of 1997", "inspect", FAQ | {"QLORA_DATA_URI": "old.doc"}),
    ("a file of no bytes", "inspect", FAQ | {"QLORA_DATA_URI": "nothing.csv"}),
    ("questions without answers", "inspect", FAQ | {"QLORA_DATA_URI": "unanswered.csv"}),
    ("a web address as data", "inspect", FAQ | {"QLORA_DATA_URI": "https://example.org/faq.csv"}),
    ("a data set of the hub", "inspect", FAQ | {"QLORA_DATA_URI": "squad/plain_text"}),
    ("a home folder as ~", "inspect", FAQ | {"QLORA_DATA_URI": "~/my-faq"}),
    ("a path of Windows", "inspect", FAQ | {"QLORA_DATA_URI": "C:\\Users\\me\\faq"}),
    (
        "the address of a base's page",
        "plan",
        FAQ | {"QLORA_BASE_MODEL": "https://huggingface.co/a/b"},
    ),
    ("a GGUF as base", "plan", FAQ | {"QLORA_BASE_MODEL": "model.gguf"}),
    ("a base of pickles", "train", FAQ | {"QLORA_BASE_MODEL": "pickled"}),
    ("a data file as adapter", "ask --adapter faq/faq.csv", {}),
    ("an output of no finished run", "ask --adapter empty", {}),
    ("a flag of another command", "ask --lora-r 4 --adapter faq", {}),
    ("a table that is none", "inspect", FAQ | {"QLORA_DATA_URI": "none.xlsx"}),
    ("the env file first", "--env-file none.env plan", {}),
    ("a flag without its value", "train --epochs", FAQ),
    ("a word too many", "train faq", FAQ),
    ("a recipe that is none", "plan --recipe faq", FAQ),
    ("an env file with spaces", "plan --env-file spaces.env", {}),
    ("an env file of a shell", "plan --env-file shell.env", {}),
    ("a limit of nothing", "plan --max-length 4", FAQ),
    ("a block beyond the base", "plan --max-length 100000000", FAQ),
    ("no run to resume", "train", FAQ | {"QLORA_RESUME": "must"}),
    ("a question of nothing", 'ask --adapter faq " "', {}),
    # tried for the first time
    ("a misspelt variable in an env file", "inspect --env-file typo.env", {}),
    ("an env file of Windows", "inspect --examples 0 --env-file windows.env", {}),
    ("an env file of PowerShell", "inspect --env-file powershell.env", {}),
    ("a variable in small letters", "train", {"qlora_data_uri": "faq", "qlora_output_uri": "out"}),
    ("a base at ~", "plan", FAQ | {"QLORA_BASE_MODEL": "~/no-model"}),
    ("one file as data", "inspect --examples 0", FAQ | {"QLORA_DATA_URI": "faq/faq.csv"}),
    ("two folders as data", "inspect", FAQ | {"QLORA_DATA_URI": "faq,prose"}),
    ("a file: address as data", "inspect", FAQ | {"QLORA_DATA_URI": "file:///data/faq"}),
    ("s3 without a bucket", "inspect", FAQ | {"QLORA_DATA_URI": "s3://"}),
    ("s3 with three slashes", "train", FAQ | {"QLORA_OUTPUT_URI": "s3:///models"}),
    ("the output is the data", "train", FAQ | {"QLORA_OUTPUT_URI": "faq"}),
    ("all GPUs where none is", "-m trainer.launch --nproc-per-node=gpu entrypoint.py", FAQ),
    ("CUDA devices where none is", "plan", FAQ | {"CUDA_VISIBLE_DEVICES": "0,1"}),
    ("a base with a space", "plan", FAQ | {"QLORA_BASE_MODEL": "HuggingFaceTB/SmolLM2 135M"}),
    ("a base without its owner", "plan", FAQ | {"QLORA_BASE_MODEL": "SmolLM2-135M-Instruct"}),
    ("an adapter as base", "plan", FAQ | {"QLORA_BASE_MODEL": "adapter"}),
    ("a base as adapter", "ask --adapter base", {}),
    ("a built-in base that is none", "plan", FAQ | {"QLORA_BASE_MODEL": "builtin:small"}),
    ("a decimal comma", "plan", FAQ | {"QLORA_LEARNING_RATE": "0,0002"}),
    ("a number with commas", "plan", FAQ | {"QLORA_MAX_STEPS": "1,000"}),
    ("a port that is none", "ask --adapter faq --serve --port 99999999", {}),
]


def prepare(folder: Path) -> None:
    """What the turns are given."""
    for name in ("faq", "photos", "empty", "prose", "pickled", "base", "adapter"):
        (folder / name).mkdir()
    rows = "".join(f"What is {n} and {n}?,It is {2 * n} in all.\n" for n in range(40))
    (folder / "faq" / "faq.csv").write_text("question,answer\n" + rows)
    (folder / "photos" / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(300))
    (folder / "odd.csv").write_text("foo,bar\n" + rows)
    (folder / "frage.csv").write_text("Frage,Antwort\n" + rows)
    (folder / "broken.jsonl").write_text('{"question": "a", "answer": \n' * 20)
    (folder / "nothing.csv").touch()
    (folder / "none.xlsx").write_text("question,answer\n" + rows)
    (folder / "unanswered.csv").write_text("question,answer\n" + "How long?,\n" * 40)
    (folder / "old.doc").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(2000))
    (folder / "prose" / "a.txt").write_text("The house is large and old. " * 40)
    with zipfile.ZipFile(folder / "faq.zip", "w") as archive:
        archive.write(folder / "faq" / "faq.csv", "faq.csv")
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    tiny = ROOT / "trainer" / "builtin" / "tiny"
    for file in tiny.glob("*.json"):
        (folder / "pickled" / file.name).write_bytes(file.read_bytes())
    (folder / "pickled" / "pytorch_model.bin").write_bytes(bytes(100))
    for file in tiny.iterdir():
        (folder / "base" / file.name).write_bytes(file.read_bytes())
    (folder / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(bytes(100))
    set_up = "QLORA_DATA_URI=faq\nQLORA_BASE_MODEL=builtin:tiny\n"
    (folder / "typo.env").write_text(set_up + "QLORA_EPOCH=3\n")
    (folder / "windows.env").write_bytes(("\ufeff" + set_up.replace("\n", "\r\n")).encode())
    (folder / "powershell.env").write_text(set_up, encoding="utf-16")
    (folder / "spaces.env").write_text("QLORA_DATA_URI = faq\nQLORA_BASE_MODEL = builtin:tiny\n")
    (folder / "shell.env").write_text('export QLORA_DATA_URI="faq"\n')


def turn(command: str, given: dict[str, str], folder: Path) -> tuple[int, str, float]:
    """Exit code, what was said, and seconds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QLORA_")}
    environment |= {"QLORA_SCRATCH_DIR": str(folder / "scratch")} | given
    words = shlex.split(command)
    if words[0] == "make":
        words, folder = ["make", "-B", *words[1:]], ROOT
    elif words[0] == "-m":
        words = [str(ROOT / word) if word == "entrypoint.py" else word for word in words]
        words, environment["PYTHONPATH"] = [sys.executable, *words], str(ROOT)
    else:
        words = [sys.executable, str(ROOT / "entrypoint.py"), *words]
    begin = time.monotonic()
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=MOST_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    said = done.stderr.strip() or done.stdout.strip()
    if words[0] == "make":  # which has a last word of its own
        said = done.stdout.strip()
    return done.returncode, said, time.monotonic() - begin


def main(chosen: list[str]) -> int:
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        for number, (what, command, given) in enumerate(TURNS, 1):
            if chosen and not any(word in what for word in chosen):
                continue
            try:
                code, said, seconds = turn(command, given, Path(name))
            except subprocess.TimeoutExpired:
                code, said, seconds = -1, "", MOST_S
            last = said.splitlines()[-1] if said else ""
            crashed = "Traceback" in said or "error: unexpected" in last or code < 0
            wrong = crashed or not last or (code > 0 and len(last) > MOST_CHARACTERS)
            bad += wrong
            mark = "!!" if wrong else "  "
            print(
                f"{mark}{number:3} {what}: exit {code}, {seconds:.1f} s\n      {last[:400]}",
                flush=True,
            )
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
