"""How the help of a command shows the commands below it."""

from typing import Any

from typer.core import TyperGroup


class CommandGroup(TyperGroup):
    """Commands under their headings."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write all commands under their headings; by itself, a list without headings is written that cuts what is long."""
        headings: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.commands[name]
            rows = headings.setdefault(command.rich_help_panel or "Commands", [])
            rows.append((name, command.get_short_help_str(limit=1000)))
        width = max(map(len, self.commands))
        for heading, rows in headings.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])
