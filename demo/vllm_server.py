"""A real vLLM on the CPU over a tiny Llama with random weights.

Run as ``python -m demo.vllm_server --port 18100 --folder DIR --otlp http://127.0.0.1:14318``, or with
``--install-only``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from agent.errors import ServescopeError
from demo.vllm_install import VllmUnavailableError, install

ROOT: Final = Path(__file__).parent.parent
VENV: Final = ROOT / ".venv-vllm"
BLOCKS: Final = 64
"""KV cache blocks: few, so that a flood fills them within seconds."""
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
    model = folder / "tiny"
    if not (model / "config.json").exists():
        model.mkdir(parents=True, exist_ok=True)
        made = subprocess.run([str(python), "-c", _MODEL, str(model)], capture_output=True, text=True, check=False)
        if made.returncode:
            raise VllmUnavailableError(f"the tiny model can't be made: {made.stderr.strip()[-400:]}")
    return model


def command(vllm: Path, model: Path, port: int, otlp: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the server."""
    arguments = [
        str(vllm), "serve", str(model), "--served-model-name", "tiny", "--load-format", "dummy",
        "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "1024",
        "--num-gpu-blocks-override", str(BLOCKS), "--max-num-seqs", "32",
        "--enable-prompt-tokens-details",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PATH": f"{vllm.parent}:{os.environ.get('PATH', '')}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "1" if (os.cpu_count() or 1) > 1 else "0",
        "OTEL_SERVICE_NAME": "vllm-a",
    }
    if otlp:
        arguments += ["--otlp-traces-endpoint", f"{otlp}/v1/traces"]
        environment |= {
            "OTEL_EXPORTER_OTLP_TRACES_INSECURE": "true",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        }
    return arguments, environment


def program(vllm: str) -> Path:
    """The ``vllm`` program: the one named, else ours, installed on first use."""
    if not vllm:
        return install(VENV, lambda line: click.echo(line, err=True))
    path = Path(vllm)
    path = path / "bin" / "vllm" if (path / "bin" / "vllm").exists() else path
    if not path.is_file():
        raise VllmUnavailableError(f"there is no vllm program at {vllm}", "Give the program or its virtual environment")
    return path


@click.command()
@click.option("--install-only", is_flag=True, help="Install, then stop.")
@click.option("--port", type=int, default=18100, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Scratch folder.")
@click.option("--otlp", default="", help="Base URL of an OTLP/HTTP receiver.")
@click.option("--vllm", default="", help="An installed vllm program or its virtual environment.")
def main(install_only: bool, port: int, folder: Path | None, otlp: str, vllm: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    try:
        path = program(vllm)
        if install_only:
            return
        model = make_model(path.parent / "python", folder or ROOT / ".venv-vllm" / "models")
    except ServescopeError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    arguments, environment = command(path, model, port, otlp)
    process = subprocess.Popen(arguments, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)

    def stop(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    code = process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    sys.exit(max(code, 0))


if __name__ == "__main__":
    main()
