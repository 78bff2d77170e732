"""`accmpeg cluster serve`, and the import path for `serve run` and manifests: the server on Ray Serve.

serve run accmpeg.cli.cluster_serve:app config=/etc/accmpeg/serve.toml max-replicas=4
"""

import logging
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from accmpeg.cli.cluster import Address, cluster_app
from accmpeg.cli.config import ConfigFile, log_effective_settings
from accmpeg.cli.logs import set_up_logs
from accmpeg.cli.options import settings_from
from accmpeg.cli.serve import SECRETS, Access, settings_of
from accmpeg.cluster.scaling import Scale
from accmpeg.options import Option
from accmpeg.server.settings import Limits, ServerSettings

__all__ = ["app", "cluster_serve"]

LOOK_S = 2.0

log = logging.getLogger(__name__)


def cluster_serve(
    context: typer.Context,
    *,
    address: Address = None,
    scale: Scale,
    every_node: Annotated[
        bool, Option("Let cameras connect to every node with a replica, not the head alone.")
    ] = False,
    detach: Annotated[bool, Option("Return when the replicas serve, and leave them running.")] = False,
    settings: ServerSettings,
    access: Access,
    limits: Limits,
    config: ConfigFile = None,
) -> None:
    """Serve cameras from a Ray cluster: replicas of `accmpeg serve` behind Ray Serve's proxies.

    All options of `accmpeg serve` hold, and its configuration files. Cards and files must be on all nodes, at
    the same paths. SIGTERM and Ctrl-C say goodbye to the cameras and end the replicas. With --detach they are
    left running; the command changes what is served when it runs again.
    """
    from accmpeg.cluster import serving
    from accmpeg.cluster.connect import connected
    from accmpeg.cluster.needs import check_needs

    meant = _meant(context.params)
    scale.check(meant)
    set_up_logs(access.log_format, access.log_level)
    log_effective_settings(context, SECRETS)
    files = (meant.site_profile, meant.accmodel, meant.tls_certificate, meant.tls_key)
    with connected(address) as joined:
        check_needs([file for file in files if file is not None], meant.dnns, [])
        logs = partial(set_up_logs, access.log_format, access.log_level)
        serving.start(
            serving.application(meant, scale, logs), meant, scale, "every" if every_node else "head"
        )
        where = {"host": meant.host, "port": meant.port, "proxies": _where(every_node)}
        log.info("serving", extra={"cluster": joined, **where})
        if detach:
            return
        told = ""
        try:
            while (now := serving.state())[0] != "GONE":
                if now[0] != told:
                    told = now[0]
                    log.info("replicas", extra={"state": told, "reason": now[1]})
                time.sleep(LOOK_S)
        except KeyboardInterrupt:
            log.info("draining")
            serving.remove()


def app(options: dict[str, Any]) -> Any:
    """What `serve run` deploys; `options` are those of `accmpeg cluster serve`."""
    from accmpeg.cluster.serving import application

    command: Any = typer.main.get_command(cluster_app)
    serve = command.commands["serve"]
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with serve.make_context("serve", given, **serve.context_settings) as context:
        access = settings_from(Access, context.params)
        logs = partial(set_up_logs, access.log_format, access.log_level)
        return application(_meant(context.params), settings_from(Scale, context.params), logs)


def _meant(options: dict[str, Any]) -> ServerSettings:
    """The settings, with paths as they are called on all nodes, whose working directories differ."""
    settings = settings_of(options)
    paths: dict[str, Any] = {
        each.name: value.absolute()
        for each in fields(settings)
        if isinstance(value := getattr(settings, each.name), Path)
    }
    settings = replace(settings, dnns=tuple(card.absolute() for card in settings.dnns), **paths)
    settings.check()
    return settings


def _where(every_node: bool) -> str:
    return "every node with a replica, and the head" if every_node else "head"
