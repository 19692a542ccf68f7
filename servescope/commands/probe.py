"""What we understand of a model server or of a saved metrics page."""

from __future__ import annotations

import json
from pathlib import Path

import click

from agent.access import Access
from agent.pages import probe as understanding


@click.command()
@click.argument("where", metavar="URL|FILE")
@click.option("--json", is_flag=True, expose_value=False, help="The same: its answer is JSON of a stable shape.")
@click.option("--key-file", type=click.Path(path_type=Path), default=None, help="File with the key its pages want.")
@click.option("--key-env", default="", metavar="NAME", help="Environment variable that holds that key instead.")
@click.option("--key-header", default="authorization", show_default=True, help="Header that carries it.")
def probe(where: str, key_file: Path | None, key_env: str, key_header: str) -> None:
    """What we understand of a model server or of a saved metrics page, as JSON."""
    click.echo(json.dumps(understanding.probe(where, access=Access.checked(key_file, key_env, key_header)), indent=2))
