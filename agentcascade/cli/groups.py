"""Groups of commands: one that is misspelt is answered with the nearest name, or with all of them."""

from __future__ import annotations

import click


class NamingGroup(click.Group):
    """A group that names its commands where it is given one that it does not have."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from agentcascade.errors import did_you_mean

            named = did_you_mean(args[0], self.list_commands(ctx))
            raise click.UsageError(f"{error.message.rstrip('.')}: {named}", ctx) from None
