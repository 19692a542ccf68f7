"""A real vLLM on the CPU over a tiny Llama with random weights.

Run as ``python -m demo.vllm_server --port 18100 --folder DIR --otlp http://127.0.0.1:14318``, or with
``--install-only``.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from base.errors import ServescopeError
from demo.vllm_install import VllmUnavailableError, install
from servescope.launch import supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).parent.parent
VENV: Final = ROOT / ".venv-vllm"
MODEL: Final = "tiny"
BLOCKS: Final = 64
"""KV cache blocks (of 128 tokens): few, so that a flood fills them within seconds."""
_BIND: Final = "VLLM_CPU_OMP_THREADS_BIND"
_FEW_CORES: Final = 4
MAX_TOKENS: Final = 1024
"""Longest request, prompt and answer together."""
_STOP_SECONDS: Final = 10.0
_INTERPRETER: Final = re.compile(rb"/[^\s\"']*/python[0-9.]*")
_MODEL: Final = """
import sys, random
from pathlib import Path
from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast
folder = Path(sys.argv[1])
words = "queue cache token batch request model server engine prefill decode latency memory block fast slow".split()
draw = random.Random(3)
text = [" ".join(draw.choices(words, k=40)) for _ in range(400)]
raw = Tokenizer(models.BPE())
raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
raw.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
raw.train_from_iterator(text, trainer)
fast = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
fast.chat_template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
fast.save_pretrained(folder)
config = LlamaConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=4, vocab_size=1024, max_position_embeddings=2048, dtype="bfloat16",
                     bos_token_id=0, eos_token_id=1)
config.architectures = ["LlamaForCausalLM"]
config.save_pretrained(folder)
"""


def make_model(python: Path, folder: Path) -> Path:
    """Write configuration and tokenizer of a tiny Llama; weights are made up by the server itself.

    Raises:
        VllmUnavailableError: The environment lacks transformers or tokenizers.
    """
    model = folder / MODEL
    if not (model / "config.json").exists():
        model.mkdir(parents=True, exist_ok=True)
        made = subprocess.run([str(python), "-c", _MODEL, str(model)], capture_output=True, text=True, check=False)
        if made.returncode:
            raise VllmUnavailableError(f"the tiny model can't be made: {made.stderr.strip()[-400:]}")
    return model


def command(
    vllm: Path, model: Path, port: int, *, otlp: str = "", protocol: str = "http/protobuf", service: str = "vllm-a"
) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the server.

    Args:
        vllm: The ``vllm`` program.
        model: Folder of the model.
        port: Port on 127.0.0.1.
        otlp: Base URL of an OTLP receiver for its traces, or "" for none.
        protocol: ``http/protobuf``, or ``grpc`` (vLLM's own default).
        service: ``service.name`` of its spans.
    """
    arguments = [
        str(vllm), "serve", str(model), "--served-model-name", MODEL, "--load-format", "dummy",
        "--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(MAX_TOKENS),
        "--num-gpu-blocks-override", str(BLOCKS), "--max-num-seqs", "32",
        "--enable-prompt-tokens-details", "--disable-uvicorn-access-log",
        # Compiling takes a minute and a half at the first start and makes two layers no faster.
        "--enforce-eager",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PATH": f"{vllm.parent}:{os.environ.get('PATH', '')}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # One for each data-parallel rank, divided by |, where somebody asks for several.
        _BIND: os.environ.get(_BIND, str(max(os.sched_getaffinity(0)))),
        "OTEL_SERVICE_NAME": service,
    }
    if otlp:
        arguments += ["--otlp-traces-endpoint", otlp if protocol == "grpc" else f"{otlp}/v1/traces"]
        environment |= {
            "OTEL_EXPORTER_OTLP_TRACES_INSECURE": "true",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": protocol,
        }
    return arguments, environment


def _leave_room() -> None:
    """On few cores keep to the last one.

    vLLM's engine and worker wait by calling ``sched_yield`` again and again. Spread over two cores they leave others no
    turn while there is work: streams reach their clients whole, a second and a half late.
    """
    cores = os.sched_getaffinity(0)
    if 1 < len(cores) < _FEW_CORES:
        os.sched_setaffinity(0, {max(cores)})


def program(vllm: str, say: Callable[[str], None] = lambda line: click.echo(line, err=True)) -> Path:
    """The ``vllm`` program: the one named (or that of the virtual environment named), else ours.

    Args:
        vllm: Path, or "" for ours, which is installed on first use.
        say: Prints a line of progress.

    Raises:
        VllmUnavailableError: There is none at that path, or ours can't be installed.
    """
    if not vllm:
        return install(VENV, say)
    path = Path(vllm).expanduser().absolute()
    path = path / "bin" / "vllm" if (path / "bin" / "vllm").exists() else path
    if not path.is_file():
        raise VllmUnavailableError(f"there is no vllm program at {vllm}", "Give the program or its virtual environment")
    return path


def interpreter(vllm: Path) -> Path:
    """The Python that runs a ``vllm`` program: the one in its first lines, else its neighbour."""
    with vllm.open("rb") as script:
        found = _INTERPRETER.search(script.read(1024))
    named = Path(os.fsdecode(found[0])) if found else None
    return named if named is not None and named.exists() else vllm.resolve().parent / "python"


@click.command()
@click.option("--install-only", is_flag=True, help="Install, then stop.")
@click.option("--port", type=int, default=18100, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Scratch folder.")
@click.option("--otlp", default="", help="Base URL of an OTLP receiver.")
@click.option("--protocol", type=click.Choice(["http/protobuf", "grpc"]), default="http/protobuf", show_default=True)
@click.option("--service", default="vllm-a", show_default=True, help="service.name of its spans.")
@click.option("--vllm", default="", help="An installed vllm program or its virtual environment.")
@click.argument("more", nargs=-1)
def main(
    install_only: bool,
    port: int,
    folder: Path | None,
    otlp: str,
    protocol: str,
    service: str,
    vllm: str,
    more: tuple[str, ...],
) -> None:
    """Serve until SIGTERM or SIGINT; MORE is handed to vllm serve."""
    try:
        path = program(vllm)
        if install_only:
            return
        model = make_model(interpreter(path), folder or ROOT / ".venv-vllm" / "models")
    except ServescopeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    arguments, environment = command(path, model, port, otlp=otlp, protocol=protocol, service=service)
    sys.exit(_serve([*arguments, *more], environment))


def _serve(arguments: list[str], environment: dict[str, str]) -> int:
    _leave_room()
    process = subprocess.Popen(
        arguments, env=environment, stdin=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=supervisor.die_with_parent,  # noqa: PLW1509 - one prctl call; a killed demo must not leave vLLM
    )  # fmt: skip
    asked = threading.Event()

    def stop(*_: object) -> None:
        asked.set()
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while process.poll() is None and not asked.wait(0.5):
        pass
    try:
        code = process.wait(_STOP_SECONDS if asked.is_set() else None)
    except subprocess.TimeoutExpired:
        code = 1
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its engine and worker too, when it could not end them
    process.wait()
    return 0 if asked.is_set() else code or 1


if __name__ == "__main__":
    main()
