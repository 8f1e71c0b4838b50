"""Command line. A verb's module is imported when the verb is used, and imports what it needs when it runs."""

from __future__ import annotations

import sys
import traceback
import warnings
from importlib import import_module
from typing import Any, NoReturn

import click

from conservbench.hint import did_you_mean

VERBS = {
    "run": "conservbench.cli.run:run",
    "score": "conservbench.cli.score:score",
    "check": "conservbench.cli.check:check",
    "baseline": "conservbench.cli.baseline:baseline",
    "board": "conservbench.cli.board:board",
    "validate": "conservbench.cli.validate:validate",
    "export": "conservbench.cli.export:export",
    "list": "conservbench.cli.list_:list_",
    "show": "conservbench.cli.show:show",
    "cite": "conservbench.cli.cite:cite",
    "data": "conservbench.cli.data:data",
    "train": "conservbench.cli.train:train",
    "finetune": "conservbench.cli.finetune:finetune",
}

USAGE = 2
"""Exit code of wrong words, names, cards and files. Others: 0 fine, 1 a gate failed; 3 and 4, see ``run``."""

BUG = 70
"""Exit code of an error nobody foresaw (EX_SOFTWARE)."""


class CommandError(Exception):
    """An error told in one line, with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Verbs(click.Group):
    """Group that imports verbs on use and tells every error in one line on standard error."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names of the verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in VERBS:
            ctx.fail(f"no verb {cmd_name!r}{did_you_mean(cmd_name, VERBS)}")
        module, _, attribute = VERBS[cmd_name].partition(":")
        return getattr(import_module(module), attribute)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; turn what it raises into one line."""
        try:
            return super().invoke(ctx)
        except (CommandError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.obj:
                traceback.print_exc()
            # wrong names, cards and files are ValueError or OSError throughout the package
            if isinstance(error, ValueError | OSError):
                raise CommandError(str(error), USAGE) from error
            advice = "conservbench --debug ... shows where"
            raise CommandError(f"{type(error).__name__}: {error} ({advice})", BUG) from error

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run the command line and exit."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                code = super().main(*args, **{"prog_name": "conservbench", **kwargs, "standalone_mode": False})
        except CommandError as error:
            click.echo(f"conservbench: {' '.join(str(error).split())}", err=True)
            code = error.exit_code
        except click.ClickException as error:
            click.echo(f"conservbench: {' '.join(error.format_message().split())}", err=True)
            code = USAGE
        except click.Abort:
            code = 130
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=Verbs, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="conservbench")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Measure how conservative machine-learned forces are, and what it costs when they are not.

    \b
    Example: conservbench run -m si-mace-direct -p nve
    """
    ctx.obj = debug
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _show_warning(message: Warning | str, *_where: Any, **_how: Any) -> None:
    click.echo(f"conservbench: warning: {message}", err=True)
