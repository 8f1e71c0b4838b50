"""The command that trains: ``python -m e3nn_direct.train --help``. One seed on one machine gives one checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from conservbench import process


@click.command()
@click.argument("checkpoint", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--data", default="mlearn-si", show_default=True, help="A data set with a training and a test split.")
@click.option("--epochs", default=40, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=20251101, show_default=True, type=click.IntRange(min=0))
def main(checkpoint: Path, data: str, epochs: int, seed: int) -> None:
    """Train a direct-force network and write CHECKPOINT, a safetensors file.

    Example: python -m e3nn_direct.train si-e3nn-direct.safetensors
    """
    process.configure()
    with process.quiet_loading():
        # torch reads the number of threads where it is imported
        from e3nn_direct.network import save_network
        from e3nn_direct.training import Recipe, load_split, mean_error, settings_of, train

        try:
            frames, test = load_split(data, "train"), load_split(data, "test")
        except (ValueError, OSError) as error:
            raise click.UsageError(str(error)) from error
        settings = settings_of(frames)
        training = train(frames, settings, Recipe(epochs=epochs, seed=seed))
        for epoch, network in enumerate(training, start=1):
            if epoch % 5 == 0 or epoch == epochs:
                click.echo(f"epoch {epoch}: {mean_error(network, test):.1f} meV/Å on test frames", err=True)
        save_network(network, checkpoint)
    click.echo(f'sha256 = "{hashlib.sha256(checkpoint.read_bytes()).hexdigest()}"')


if __name__ == "__main__":
    main()
