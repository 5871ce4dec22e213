import io

from rich.console import Console

from amenable.recipes.reports.terminal import Grid, fixed_width, print_lines, rich_table


def test_a_file_has_a_fixed_width_and_a_terminal_its_own() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=60)
    assert fixed_width(terminal, 110) is terminal
    assert fixed_width(Console(file=io.StringIO(), width=60), 110).width == 110


def test_lines_are_printed_as_they_are() -> None:
    file = io.StringIO()
    print_lines(Console(file=file, width=80), ["[bold]x[/bold]", "2"])
    assert file.getvalue() == "[bold]x[/bold]\n2\n"


def test_a_grid_names_its_rows_on_the_left() -> None:
    file = io.StringIO()
    Console(file=file, width=40).print(rich_table(Grid("t", ("", "a"), [("row", "1"), ("x", "22")])))
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert "row    1" in lines[3] and "x     22" in lines[4]
