"""docker, vllm, ollama and llama-server for the README's commands: what each would refuse.

Called under the program's name. It looks at the arguments and at the files that they name, and
ends with 1 and a sentence where the program would not start with them.
"""

import json
import re
import sys
from pathlib import Path

from gguf import GGUFReader

VLLM_RANK = 16  # its --max-lora-rank unless told otherwise


def main(program: str, arguments: list[str]) -> None:
    {"docker": docker, "vllm": vllm, "ollama": ollama, "llama-server": llama_server}[program](
        arguments
    )


def after(flag: str, arguments: list[str]) -> list[str]:
    """Every value of a flag."""
    return [arguments[at + 1] for at, word in enumerate(arguments) if word == flag]


def need(true: object, sentence: str) -> None:
    if not true:
        sys.exit(f"stand-in: {sentence}")


def docker(arguments: list[str]) -> None:
    if arguments[0] == "build":
        declared = re.findall(r"(?m)^ARG (\w+)", (Path(arguments[-1]) / "Dockerfile").read_text())
        for given in after("--build-arg", arguments):
            need(given.partition("=")[0] in declared, f"the Dockerfile has no {given}")
    elif arguments[0] == "run":
        from trainer.settings import unknown_variables

        names = {given.partition("=")[0]: "x" for given in after("-e", arguments)}
        need(not unknown_variables(names), f"{unknown_variables(names)}")
        need(arguments[-1] == "qlora-job", "not the image that was built")
        for flag, value in (("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges")):
            need(after(flag, arguments) == [value], f"no {flag} {value}")
        need("--read-only" in arguments, "its root can be written")
    else:
        import yaml

        need(arguments[0] == "compose", f"docker {arguments[0]}?")
        (file,) = after("-f", arguments)
        services = yaml.safe_load(Path(file).read_text())["services"].values()
        profiles = {name for service in services for name in service.get("profiles", ())}
        need(set(after("--profile", arguments)) <= profiles, f"profiles are {profiles}")


def vllm(arguments: list[str]) -> None:
    """As vLLM's PEFTHelper checks an adapter."""
    need(arguments[0] == "serve" and "--enable-lora" in arguments, "LoRA is off")
    need(after("--quantization", arguments) == ["bitsandbytes"], "not the base it was trained on")
    (module,) = after("--lora-modules", arguments)
    folder = Path(module.partition("=")[2])
    config = json.loads((folder / "adapter_config.json").read_text())
    ranks = after("--max-lora-rank", arguments) or [str(VLLM_RANK)]
    need(config["r"] <= int(ranks[0]), f"rank {config['r']} is above --max-lora-rank")
    need(config["bias"] == "none" and not config["modules_to_save"], "more than LoRA")
    need(not config["use_dora"], "DoRA")
    need((folder / "adapter_model.safetensors").is_file(), "no weights")
    (template,) = after("--chat-template", arguments)
    need("message" in Path(template).read_text(), "not a chat template")


def ollama(arguments: list[str]) -> None:
    need(arguments[0] == "create", f"ollama {arguments[0]}?")
    (file,) = after("-f", arguments)
    lines = Path(file).read_text().splitlines()
    models = [line.split()[1] for line in lines if line.startswith(("FROM ", "ADAPTER "))]
    need(models, "no FROM")
    for model in models:
        GGUFReader(Path(file).parent / model)
    need(any(line.startswith('TEMPLATE """') for line in lines), "no TEMPLATE")


def llama_server(arguments: list[str]) -> None:
    (model,) = after("-m", arguments)
    need(GGUFReader(model).fields["general.architecture"].contents() == "llama", "not a llama")


if __name__ == "__main__":
    main(Path(sys.argv[1]).name, sys.argv[2:])
