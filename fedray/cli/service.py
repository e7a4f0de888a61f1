"""The verb that answers prompts over HTTP: serve."""

import os
from importlib.util import find_spec
from typing import Annotated

import typer

from fedray.cli.shared import app, run_folder

TOKEN = "FEDRAY_SERVE_TOKEN"
NEEDS = ("fastapi", "prometheus_client", "starlette", "uvicorn")


@app.command(
    epilog=(
        'Example: fedray serve runs/ink runs/chalk, then curl --json \'{"prompt": "a photo of a bag",'
        ' "adapter": "chalk"}\' http://127.0.0.1:8000/generate -o bag.png. FEDRAY_SERVE_TOKEN: the token that'
        " requests have to show as Authorization: Bearer. RAY_ADDRESS: the cluster to run on."
    )
)
def serve(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A run folder; or several with LoRA adapters over one base model, each chosen by its name.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen on. Another than loopback needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8000,
    replicas: Annotated[
        int, typer.Option(min=1, max=1000, help="Processes that make images, each with the model.")
    ] = 1,
    gpus_per_replica: Annotated[
        float | None, typer.Option(min=0, help="Otherwise one where there are some.")
    ] = None,
    queue: Annotated[
        int, typer.Option(min=0, max=1000, help="Requests that may wait; beyond them 429.")
    ] = 16,
    max_steps: Annotated[int, typer.Option(min=1, max=10_000, help="Of the sampler, a request.")] = 150,
    route: Annotated[
        str, typer.Option(help="What paths begin with, beside others' applications on a cluster.")
    ] = "/",
) -> None:
    """Answer prompts over HTTP by Ray Serve: POST /generate gives a PNG; / is a page to try it."""
    from fedray.scenario import ScenarioError

    if missing := [name for name in NEEDS if find_spec(name) is None]:
        got = f"Ray Serve without {' and '.join(missing)}"
        raise ScenarioError([f"fedray serve: got {got}, expected pip install 'fedray[serve]'"])
    if route != "/" and (not route.startswith("/") or route.endswith("/")):
        raise typer.BadParameter(f"--route: got {route!r}, expected one like /ink")
    from fedray.http_service.requests import Limits
    from fedray.http_service.runs import read_runs
    from fedray.http_service.service import digest_of, refuse_open

    token = os.environ.get(TOKEN) or None
    refuse_open(host, token)
    served = read_runs([run_folder(run) for run in runs])
    from fedray.http_service.deployment import Endpoint, serve

    def on_start(address: str) -> None:
        adapters = ", ".join(run.name for run in served)
        typer.echo(f"{adapters} at {address}" + (" (token needed)" if token else "") + "; Ctrl-C ends it")

    endpoint = Endpoint(host, port, route, replicas, gpus_per_replica, digest_of(token))
    serve(served, Limits(queue=queue, steps=max_steps), endpoint, on_start)
