"""Names and texts of strangers in reports, tables, pictures and on the terminal."""

import csv
import io
import json
import re
import warnings
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from byzflower.cli import main as cli
from byzflower.cli.console import complain, console, say
from byzflower.clients import app as client_apps
from byzflower.clients import cohort_client_app
from byzflower.experiments.recipe import load_plan
from byzflower.experiments.report import escape
from byzflower.experiments.report.plots import plot_accuracy
from byzflower.experiments.runner import ERROR_FILE, is_done
from byzflower.flower.text import plain
from byzflower.server.engines import simulation

ANYTHING = st.text(st.characters(categories=None), max_size=60) | st.text(
    "\\|[]()<>&$_'\"=+-@ab \n\x1b{}%#~^"
)
EVIL = [
    "</td><script>alert(1)</script>\u2028",
    "=cmd|'/C calc'!A0",
    "$\\frac{$",
    "_hidden",
    "[red]a[/nothing] :smile:",
    "[x](javascript:alert(1)) ![](http://a/b)",
    "a | b \\| c\n| d |",
    "\x1b[2J\x1b]0;title\x07\r\nerror: forged",
    "\\input{/etc/passwd} 50 % & more",
    "../../../tmp/x",
]


@given(ANYTHING)
def test_every_medium_gets_printable_lines(text):
    for function in (escape.markdown, escape.html, escape.csv_cell, escape.tex, escape.label):
        shown = function(text)
        assert shown.isprintable()
        shown.encode()
    assert re.fullmatch(r"[\w@.-]*", escape.file_name(text))
    assert ".." not in escape.file_name(text)


@given(ANYTHING)
def test_markdown_has_no_live_character(text):
    shown = re.sub(r"\\[\\|\[\]]", "", escape.markdown(text))
    assert not set("\\|[]<") & set(shown)


@given(ANYTHING)
def test_html_reads_as_the_text(text):
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            raise AssertionError(tag)

        handle_endtag = handle_comment = handle_decl = handle_pi = unknown_decl = handle_starttag

        def handle_data(self, data):
            seen.append(data)

    Reader.handle_endtag = Reader.handle_comment = lambda self, what: pytest.fail(what)
    reader = Reader()
    reader.feed(escape.html(text))
    reader.close()
    assert "".join(seen) == escape._one_line(text)


@given(ANYTHING)
def test_no_cell_is_a_formula(text):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([escape.csv_cell(text), 1])
    ((cell, one),) = csv.reader(io.StringIO(out.getvalue()))
    assert one == "1"
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")) or float(cell) is not None


@pytest.mark.parametrize("number", ["-0.5", "+1e-3", "-inf", "0.1"])
def test_numbers_stay_numbers_in_a_table(number):
    assert escape.csv_cell(number) == number


@given(ANYTHING)
def test_latex_has_no_live_character(text):
    shown = escape.tex(text)
    for escaped in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}"):
        shown = shown.replace(escaped, "")
    assert not set("\\~^&%$#_{}") & set(re.sub(r"\\[&%$#_{}]", "", shown))


def test_ordinary_names_are_not_changed():
    for name in ("multikrum", "ipm eps=10", "best accuracy", "a-b (c, d)", "Größe", "lr 0.1", "n = 3 > 2"):
        for function in (escape.markdown, escape.csv_cell, escape.tex, escape.label):
            assert function(name) == name
    assert escape.file_name("seconds a round") == "seconds-a-round"
    assert escape.file_name("HR@10") == "HR@10"


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(EVIL) | ANYTHING)
def test_pictures_can_have_any_names(tmp_path_factory, text):
    history = [{"round": i, "accuracy": 0.5} for i in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that the font lacks
        plot_accuracy({text: history, text + "b": history}, tmp_path_factory.mktemp("a") / "a.png", text)


@pytest.mark.parametrize("text", EVIL)
def test_the_terminal_shows_names_as_they_are(text):
    with console.capture() as captured:
        say(text)
        complain(f"{text}\nanother")
    said, *errors = captured.get().split("\n")
    assert said == "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    assert all(line == "" or line.startswith("error: ") for line in errors)
    assert all(line.isprintable() for line in errors)


# -- from the clients to the report ----------------------------------------------------------------------


class Hostile:
    """A client of the run that also reports under evil names; or that raises evil texts."""

    def __init__(self, client, number):
        self.client, self.number = client, number

    def fit(self, parameters, config):
        if self.number == 0:
            raise type("Evil<script>\n", (ValueError,), {})("\n".join(EVIL))
        arrays, size, metrics = self.client.fit(parameters, config)
        return arrays, size, {**metrics, **dict.fromkeys(EVIL, 0.5)}


def evil_recipe():
    attacks = [{"label": text, "attack": "none", "lr": 0.1 + i / 100} for i, text in enumerate(EVIL)]
    strategies = [{"label": text[::-1], "strategy": "median", "seed": i} for i, text in enumerate(EVIL[:2])]
    strategies.append({"label": EVIL[3], "strategy": "median", "seed": 9})
    return {
        "title": EVIL[0],
        "about": "\n".join(EVIL),
        "reproduces": EVIL[6],
        "also": [EVIL[9], plain(EVIL[6], 100)],
        "base": {"model": "mlp", "clients": 4, "byzantine": 0, "rounds": 1, "batches": 1},
        "cross": {"attack": attacks, "strategy": strategies},
        "claim": [{"text": EVIL[5], "lower": {"attack": EVIL[0]}}],
    }


def pages_of(target):
    for path in target.iterdir():
        if path.suffix in (".md", ".csv", ".tex", ".svg"):
            yield path, path.read_text(encoding="utf-8")


class Page(HTMLParser):
    tags = ()

    def handle_starttag(self, tag, attrs):
        self.tags = {*self.tags, tag}
        assert not any(name.startswith("on") for name, _ in attrs)
        assert not any(name in ("src", "href") and not value.startswith("#") for name, value in attrs)


def test_from_hostile_clients_to_the_report(tmp_path, monkeypatch):
    make = lambda *asked: Hostile(client_apps._node_client(*asked), asked[0])  # noqa: E731
    monkeypatch.setattr(simulation, "client_app", cohort_client_app(make, client_apps.hosted_clients))
    recipe = tmp_path / "evil.toml"
    recipe.write_text(tomli_w.dumps(evil_recipe()), encoding="utf-8")
    plan = load_plan(recipe, out=str(tmp_path / "runs"))
    folder = plan.folder(tmp_path / "runs")
    for cell in plan.cells[4::4]:  # each attack once, all strategies
        simulation.simulate(cell.config)
    (failed, *_) = plan.cells
    failed.config.folder().mkdir(parents=True)
    (failed.config.folder() / ERROR_FILE).write_text("Traceback\n" + EVIL[0] + EVIL[4], encoding="utf-8")
    done = [cell for cell in plan.cells if is_done(cell.config)]
    assert {cell.labels["strategy"] for cell in done} == {*plan.axes["strategy"]}

    # What was recorded is a line a round, and plain text.
    for path in folder.rglob("rounds.jsonl"):
        lines = path.read_text().splitlines()
        assert len(lines) == 2
        last = json.loads(lines[-1])
        ((client, reason),) = [own.values() for own in last["quarantined"]]
        assert client == 0
        assert reason.startswith(r"client raised: Evil<script>\n: </td><script>alert(1)</script>\u2028\n=cmd")
        assert last["train"].keys() >= {r"a | b \| c\n| d |", r"\x1b[2J\x1b]0;title\x07\r\nerror: forged"}
        assert all(name.isprintable() for name in last["train"])

    (folder / "recipe.toml").write_text(recipe.read_text(encoding="utf-8"), encoding="utf-8")
    target, page = folder / "report", tmp_path / "page.html"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner(env={"COLUMNS": "200"}).invoke(
            cli.make_app(), ["report", str(folder), "--html", str(page)]
        )
    assert result.exit_code == 0, result.output
    assert all(line.isprintable() for line in result.output.split("\n"))
    assert {path.parent for path in target.rglob("*")} == {target}
    for path, text in pages_of(target):
        assert all(line.isprintable() for line in text.split("\n") if path.suffix != ".svg")
        if path.suffix == ".svg":
            ElementTree.fromstring(text)
    text = (target / "report.md").read_text(encoding="utf-8")
    assert "<" not in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert tables
    for table in tables:
        cells = {len(re.split(r"(?<!\\)\|", row.replace(r"\\", ""))) for row in table.splitlines()}
        assert cells == {len(plan.axes["strategy"]) + 3}
    pictures = re.findall(r"(?<!\\)\]\((.*?)\)", text)
    assert pictures
    assert all((target / name).is_file() for name in pictures)
    with open(target / "accuracy-0.csv", newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert len(cells) == 8 * (1 + len(plan.cells))
    assert not any(cell.startswith(("=", "+", "@")) for cell in cells)
    reader = Page()
    reader.feed(page.read_text(encoding="utf-8"))
    assert not reader.tags & {"script", "img", "a", "iframe", "object", "link"}

    result = CliRunner().invoke(
        cli.make_app(), ["grid", str(recipe), "--out", str(tmp_path / "runs"), "--dry-run"]
    )
    assert result.exit_code == 0
    assert all(line.isprintable() for line in result.output.split("\n"))
