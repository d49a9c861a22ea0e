"""`manage.py models list | import FILE | export [FILE] | scan [FOLDER]`."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from typing_extensions import override

from gantry.modelfiles.scan import default_folder
from gantry.modelfiles.yaml_nodes import LARGEST_FILE
from models_admin import catalog
from models_admin.actor import COMMAND
from models_admin.exceptions import ActionRefused, InvalidDefinition
from models_admin.model_files import without_tilde
from models_admin.overview import ModelRow, current_job, model_rows
from models_admin.templatetags.gantry_format import gigabytes


class Command(BaseCommand):
    """The list of models, from a terminal."""

    help = "List the models, import or export a models.yaml, or scan a folder for GGUF files."

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True, metavar="list | import | export | scan")
        commands.add_parser("list", help="every model with its state")
        importing = commands.add_parser(
            "import", help="take over the models of a models.yaml: all, or none if it has errors"
        )
        importing.add_argument("file", type=Path)
        exporting = commands.add_parser("export", help="write a models.yaml")
        exporting.add_argument("file", type=Path, nargs="?", help="the terminal when left out")
        scanning = commands.add_parser("scan", help="find GGUF files in a folder")
        scanning.add_argument("folder", type=Path, nargs="?", help="the cache of llama.cpp when left out")

    @override
    def handle(self, *args: Any, command: str, **options: Any) -> None:
        run = {"list": self._list, "import": self._import, "export": self._export, "scan": self._scan}[command]
        try:
            run(options)
        except InvalidDefinition as exc:
            lines = [f"{place}: {message}" for place, message in exc.errors]
            raise CommandError("\n".join(lines if len(lines) == 1 else [str(exc), *lines])) from exc
        except ActionRefused as exc:
            raise CommandError(f"{exc} {exc.hint}".strip()) from exc
        except OSError as exc:
            raise CommandError(f"{exc.filename}: {exc.strerror}") from exc

    def _list(self, _options: dict[str, Any]) -> None:
        rows = model_rows(current_job())
        if not rows:
            self.stdout.write("There are no models yet. Scan a folder or import a models.yaml.")
        cells = [_cells(row) for row in rows]
        widths = [max(len(line[column]) for line in cells) for column in range(4)] if cells else []
        for line in cells:
            padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
            self.stdout.write("  ".join([*padded, line[-1]]).rstrip())

    def _import(self, options: dict[str, Any]) -> None:
        file: Path = options["file"]
        report = catalog.import_models_yaml(_read(file), file_name=file.name, actor=COMMAND)
        self.stdout.write(f"{file}: {report}.")
        for model_id, reason in report.damaged:
            self.stderr.write(f"{model_id}: the file {reason}")

    def _export(self, options: dict[str, Any]) -> None:
        file: Path | None = options["file"]
        text = catalog.export_models_yaml()
        if file is None:
            self.stdout.write(text, ending="")
        else:
            file.write_text(text, encoding="utf-8")
            self.stdout.write(f"Written to {file}.")

    def _scan(self, options: dict[str, Any]) -> None:
        folder: Path = options["folder"] or default_folder()
        if not without_tilde(folder).is_dir():
            raise CommandError(f"There is no folder {folder}.")
        report = catalog.import_folder(folder, actor=COMMAND)
        for path, reason in report.problems:
            self.stderr.write(f"{path}: {reason}")
        self.stdout.write(f"{folder}: {report}.")


def _read(file: Path) -> str:
    """The text of a file; of one that is too large as much as shows that it is.

    Raises:
        CommandError: it is no text.
        OSError: it cannot be read.
    """
    with file.open("rb") as handle:
        data = handle.read(LARGEST_FILE + 1)
    try:
        return data.decode("utf-8", errors="replace" if len(data) > LARGEST_FILE else "strict")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise CommandError(f"{file} line {line}: this is not UTF-8 text") from exc


def _cells(row: ModelRow) -> list[str]:
    model = row.model
    return [model.model_id, model.parameter_label, gigabytes(model.size_bytes or None), model.quantization, row.words]
