"""JSON as text for people. Pure: it knows no field's meaning, so that the node may say more tomorrow."""

from typing import Any


def text(value: Any, indent: str = "") -> str:
    """Maps as `key: value` lines, lists of maps as aligned tables; ends with a newline."""
    if isinstance(value, dict):
        lines = []
        for key, inner in value.items():
            if isinstance(inner, dict) or _is_table(inner):
                lines.append(f"{indent}{key}:\n{text(inner, indent + '  ')}")
            else:
                lines.append(f"{indent}{key}: {_cell(inner)}\n")
        return "".join(lines)
    if _is_table(value):
        return _table(value, indent)
    return f"{indent}{_cell(value)}\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _table(rows: list[dict[str, Any]], indent: str) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    return "".join(
        indent
        + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in cells
    )


def _cell(value: Any) -> str:
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{key}={_cell(inner)}" for key, inner in value.items())
    return str(value)
