"""`git theta doctor`: find what is wrong, and say what mends it."""

import click

from git_theta import diagnosis
from git_theta.commands import output
from git_theta.commands.place import find_place

__all__ = ["command"]


@click.command(short_help="Find what is wrong, and say what mends it.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
def command(as_json: bool) -> int:
    """Look at the set-up, and at the repository if there is one; each thing wrong with the command that mends it.

    Exits with 1 if anything was found. A missing pre-push hook is put in place at once.
    """
    place = find_place()
    found = list(diagnosis.examine(place.repository, place.store()) if place else diagnosis.examine(None, None))
    if as_json:
        output.print_json({"findings": [{"problem": item.problem, "remedy": item.remedy} for item in found]})
    else:
        for item in found:
            print(f"{item.problem}\n    to mend it: {item.remedy}")
        if not found:
            print("all is well" if place else "all is well (this is no repository: only the set-up was looked at)")
    return 1 if found else 0
