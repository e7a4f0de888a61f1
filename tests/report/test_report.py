import csv
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from PIL import Image

from fedray import shipped
from fedray.report import numbers, recorded
from fedray.report.page import write
from fedray.scenario import ScenarioError
from fedray.terminal import size
from tests.report.made import jsonl, made_up, with_everything

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
OPTIONS += ["--disable-component-update", "--disable-sync"]
# allows nothing but what follows it; the tests' own script is let in for looking
POLICY = "default-src 'none';"
# What a person would see, written into the title by the page itself once it is laid out.
LOOK = """<script>addEventListener("load", () => {
  const shown = e => e.getBoundingClientRect().width > 20 && e.getBoundingClientRect().height > 20;
  document.title = JSON.stringify({
    images: [...document.images].map(i => i.naturalWidth),
    pictures: [...document.querySelectorAll("svg")].filter(shown).map(s => s.getAttribute("aria-label")),
    paths: [...document.querySelectorAll("svg path")].filter(p => p.getBoundingClientRect().width > 0).length,
    wide: document.documentElement.scrollWidth, screen: innerWidth,
    cut: [...document.querySelectorAll("img, table")].filter(e => e.getBoundingClientRect().right > innerWidth).length,
    told: [...document.querySelectorAll("details:not(.screen) pre")].map(e => e.checkVisibility()),
    totals: [...document.querySelectorAll("#totals tr")].map(r => [...r.children].map(c => c.innerText.trim())),
    paper: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
  });
})</script></head>"""


def seen(page, tmp_path, width=1100, dark=False):
    """The page in headless Chromium, offline."""
    looked = tmp_path / f"looked-{width}-{dark}.html"
    text = page.read_text()
    assert text.count(POLICY) == 1
    looked.write_text(text.replace(POLICY, f"{POLICY} script-src 'unsafe-inline';").replace("</head>", LOOK))
    options = [*OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
    options += ["--blink-settings=preferredColorScheme=0"] if dark else []
    return json.loads(title_in_chromium(looked, *options))


def title_in_chromium(page, *options):
    command = [CHROMIUM, *(options or OPTIONS), "--virtual-time-budget=4000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return html.unescape(re.search(r"<title>(.*?)</title>", dom, re.S)[1])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
@pytest.mark.parametrize(("width", "dark"), [(1100, False), (420, True)])
def test_a_browser_shows_the_pictures_and_the_numbers_of_a_real_run(unbroken, tmp_path, width, dark):
    _, run = unbroken
    page = write([run], tmp_path / "report.html")
    shown = seen(page, tmp_path, width, dark)
    assert shown["images"] == [Image.open(g).width for g in sorted((run / "samples").iterdir())]
    assert shown["pictures"] == ["training loss against rounds", "timeline of a round"]
    assert shown["paths"] > 20
    assert shown["wide"] <= shown["screen"]
    assert shown["cut"] == 0
    totals = dict(shown["totals"])
    result = json.loads((run / "result.json").read_text())
    assert totals["rounds"] == "3"
    assert totals["weights_sha256"] == result["weights_sha256"][:12]
    assert totals["sidelink"] == f"{result['final']['bytes_sidelink'] / 1e6:.4g} MB"
    assert totals["energy"] == size(result["final"]["energy_j"], "J")
    assert totals["training loss"] == f"{result['final']['loss']:.4g}"
    brightness = [sum(map(int, re.findall(r"\d+", shown[which])[:3])) for which in ("paper", "ink")]
    assert (brightness[0] < brightness[1]) == dark


def test_the_page_needs_no_network_and_escapes_what_users_wrote(tmp_path):
    page = write(
        [made_up(tmp_path / "run", [0.5, 0.4], every=1, description="<script>alert(1)</script>")]
    ).read_text()
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)", page)
    assert not re.findall(r"url\((?!#)|@import", page)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>bag" not in page


EVIL = """"'><script>document.title = 'ran'</script><img src=x onerror="document.title = 'ran'"><svg onload="document.title = 'ran'">"""
EVIL += """<a href="javascript:1">$\\frac{$ $x^2$ \\g<0> \\1 {{ 7 * 7 }} id="x_1" font: 3px </text></svg></style></pre>"""
FOLDER = """<img src=x onerror="document.title = 'ran'"> \\1 $x"""


class Elements(HTMLParser):
    """Every element of a page: its name with its attributes' names; and all values of attributes."""

    def __init__(self, page):
        super().__init__()
        self.kinds, self.values, self.text = set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.kinds.add((tag, *sorted(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data):
        self.text += data


def full_page(folder, text, twin="twin"):
    """The page of two runs with `text` wherever a run's files hold any."""
    for i, path in enumerate((folder, folder.with_name(twin))):
        run = with_everything(
            path, name="run", description=text, **{"evaluation.prompts": [f"{text}{i}", text]}
        )
        for name, changes in {
            "error.json": {"message": text, "next": text},
            "env.json": {"python": text, "platform": text, "packages": {text: text}, "command": text},
            "partition.json": {"labels": [text, "coat"]},
        }.items():
            (run / name).write_text(json.dumps(json.loads((run / name).read_text()) | changes))
        if i == 0:
            (run / "result.json").unlink()  # it broke
        split = json.loads((run / "split.json").read_text())
        split |= {
            "cut": text,
            "inputs": [text],
            "crossings": {"smashed": [{"names": [text], "shape": [1], "dtype": text}]},
        }
        (run / "split.json").write_text(json.dumps(split))
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rows = [row | {f"eval_{text}": 0.5, f"{text}_images": 3, f"eval_{text}_floor": 0.1} for row in rows]
        (run / "metrics.jsonl").write_text(jsonl(rows))
        (run / "samples" / "round-0002.txt").write_text(text)
        (run / "samples" / "round-0001.png").write_text(text)
        (run / "CITATION.bib").write_text(text)
    return write([folder, folder.with_name(twin)], folder.parent / "page.html")


def test_hostile_names_everywhere_make_no_element_no_handler_and_no_script(tmp_path):
    harmless = Elements(full_page(tmp_path / "a" / "run", "harmless").read_text())
    page = full_page(tmp_path / "b" / FOLDER, EVIL, FOLDER + "2").read_text()
    hostile = Elements(page)
    assert hostile.kinds <= harmless.kinds
    assert not [
        kind
        for kind in hostile.kinds
        if kind[0] in ("script", "a", "iframe", "object", "embed", "form", "base", "link")
    ]
    assert not [name for kind in hostile.kinds for name in kind[1:] if name.startswith("on")]
    assert not [value for value in hostile.values if value.strip().lower().startswith("javascript:")]
    assert hostile.text.count(EVIL) > 20
    # a label in its picture
    assert EVIL[:20] in hostile.text.split("Whose data")[1].split("What was painted")[0]
    assert f"{numbers.name(EVIL)} against rounds" in hostile.values


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_nothing_planted_runs_in_a_browser_neither_escaped_nor_let_through(tmp_path):
    page = full_page(tmp_path / "run", EVIL)
    assert title_in_chromium(page) == "run and twin · fedray"
    without_policy = page.with_name("without.html")  # the escapes alone
    without_policy.write_text(page.read_text().replace("Content-Security-Policy", "nothing"))
    assert title_in_chromium(without_policy) == "run and twin · fedray"
    planted = page.with_name("planted.html")  # the policy alone
    planted.write_text(page.read_text().replace("<main>", f"<main>{EVIL[4:]}"))
    assert title_in_chromium(planted) == "run and twin · fedray"
    planted.write_text(without_policy.read_text().replace("<main>", f"<main>{EVIL[4:]}"))
    assert title_in_chromium(planted) == "ran"  # neither of them


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_in_print_the_page_is_light_and_its_folded_parts_are_open(tmp_path):
    page = write([made_up(tmp_path / "run", [0.5, 0.4])])
    assert seen(page, tmp_path, dark=True)["told"] == [False]
    page.write_text(page.read_text().replace("@media print", "@media screen"))
    shown = seen(page, tmp_path, dark=True)
    assert shown["told"] == [True]
    assert shown["paper"] == "rgb(255, 255, 255)"


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_shares_interval_is_wilsons_as_published(successes, n, low, high):
    """Newcombe 1998, Two-sided confidence intervals for the single proportion, Table I, method 3."""
    found = numbers.interval(
        "eval_recognised", {"eval_recognised": round(successes / n, 6), "eval_images": float(n)}
    )
    assert found == (n, pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_a_share_of_unknown_number_has_no_interval():
    for row in (
        {"eval_recognised": 0.5},
        {"eval_recognised": None, "eval_images": 4},
        {"eval_recognised": 1.5, "eval_images": 4},
    ):
        assert numbers.interval("eval_recognised", row) is None
    assert numbers.interval("eval_recognised", {"eval_recognised": 0.5, "eval_images": 0}) is None


def test_the_page_has_the_scenario_the_command_and_the_numbers_to_copy(tmp_path):
    folder = made_up(tmp_path / "run", [0.5, None, 0.3], every=3)
    (folder / "baseline.json").write_text(json.dumps({"eval_recognised": 0.1, "eval_images": 40.0}))
    (folder / "env.json").write_text(json.dumps({"command": "fedray run quickstart --seed 0"}))
    shown = Elements(write([folder]).read_text()).text
    assert (folder / "scenario.resolved.yaml").read_text() in shown
    assert f"fedray run {folder / 'scenario.resolved.yaml'} --out {folder}-again" in shown
    assert "fedray run quickstart --seed 0" in shown
    copied = list(csv.DictReader(shown[shown.index("run,round,") :].split("\n\n")[0].splitlines()))
    assert [row["round"] for row in copied[:4]] == ["0", "1", "2", "3"]
    assert [row["loss"] for row in copied[:4]] == ["", "0.5", "", "0.3"]
    assert [row["eval_recognised"] for row in copied[:4]] == ["0.1", "", "", "0.3"]


def test_every_number_of_a_metric_stands_under_one_name_with_its_meaning_and_its_trials(tmp_path):
    shown = Elements(write([made_up(tmp_path / "run", [0.5, 0.4], every=1)]).read_text()).text
    assert shown.count("training loss") == 3  # a tile, a picture and the table
    assert shown.count("images recognised") == 3
    assert not re.search(r"(?<!training )(?<!test )loss\n", shown)
    assert numbers.MEANINGS["eval_recognised"] in shown
    assert "n = 40, 95%: 10.5% to 34.8%" in shown  # 8 of 40, by Wilson's closed form with z = 1.96


def test_all_grids_are_shown_or_evenly_many_with_the_first_and_the_newest(tmp_path):
    run = made_up(tmp_path / "run", [0.5])
    (run / "samples").mkdir()
    for grids, shown in ((9, range(9)), (100, (0, 5, 10, 95, 99))):
        for n in range(grids):
            Image.new("RGB", (4, 4)).save(run / "samples" / f"round-{n:04d}.png")
        found = [n for n, _ in recorded.read([run])[0].samples.grids]
        assert set(shown) <= set(found)
        assert len(found) == (9 if grids == 9 else 21)
        assert write([run]).read_text().count("<img") == len(found)
    for n in (0, 99):
        Image.new("RGB", (4, 4)).save(run / "samples" / f"reconstructions-{n:04d}.png")
    page = write([run]).read_text()
    assert page.count("<img") == len(found) + 1, "the last sheet of reconstructions"
    assert "held-out pictures, and their reconstructions" in page


def test_series_hold_the_base_model_every_round_and_any_axis(tmp_path):
    folder = made_up(tmp_path / "run", [0.5, None, 0.3, 0.2], every=2)
    (folder / "baseline.json").write_text(json.dumps({"eval_recognised": 0.1}))
    (run,) = recorded.read([folder])
    assert run.series("loss", "rounds") == ([1, 3, 4], [0.5, 0.3, 0.2])
    assert run.series("loss", "bytes") == ([1000, 3000, 4000], [0.5, 0.3, 0.2])
    assert run.series("eval_recognised", "joules") == ([0, 6, 12], [0.1, 0.2, 0.4])


def test_a_target_is_reached_when_the_mean_of_five_losses_is(tmp_path):
    (run,) = recorded.read([made_up(tmp_path / "run", [1.0, 0.1, 0.9, 0.5, 0.5, 0.5, 0.1, 0.0])])
    assert [round(loss, 6) for _, loss in run.smooth_loss()] == [0.6, 0.5, 0.5, 0.32]
    assert run.reached(0.6)["round"] == 5
    assert run.reached(0.5 + 1e-9)["round"] == 6
    assert run.reached(0.4)["sim_time_s"] == 16.0
    assert run.reached(0.3) is None


def test_shares_add_up_to_the_ledger(unbroken):
    (run,) = recorded.read([unbroken[1]])
    final, parts = run.rows[-1], recorded.shares(run)
    for direction in ("uplink", "downlink", "sidelink"):
        assert parts["bytes"][direction] == final[f"bytes_{direction}"]
    assert sum(parts["joules"].values()) == pytest.approx(final["energy_j"])
    waiting = parts["seconds"].pop("waiting")
    # a relay does one thing at a time
    assert sum(parts["seconds"].values()) == pytest.approx(final["sim_time_s"])
    with_two = parts["seconds"]["sidelink"]  # its sender and its receiver
    alone = sum(parts["seconds"][kind] for kind in ("training", "uplink", "downlink"))
    assert waiting == pytest.approx(5 * final["sim_time_s"] - 2 * with_two - alone)
    nodes = recorded.by_node(run)
    assert [n["node"] for n in nodes] == ["server", *(f"client-{i}" for i in range(5))]
    assert (
        sum(n["bytes"] for n in nodes)
        == final["bytes_uplink"] + final["bytes_downlink"] + final["bytes_sidelink"]
    )


def test_several_runs_are_one_table_with_what_differs_and_what_each_target_took(tmp_path):
    slow = [1.0 - 0.05 * t for t in range(12)]
    runs = [
        made_up(tmp_path / "lora", slow),
        made_up(tmp_path / "full", [x * 0.8 for x in slow], sidelink=50_000, tuning={"kind": "full"}),
    ]
    page = write(runs, tmp_path / "both.html").read_text()
    assert page.startswith("<!doctype html>")
    found = recorded.read(runs)
    different = recorded.differences(found)
    assert (different["tuning.kind"], different["tuning.rank"]) == (["lora", "full"], [8, None])
    assert all(key.startswith("tuning.") for key in different)
    targets = recorded.loss_targets(found)
    assert all(run.reached(t) for run in found for t in targets)
    assert targets == sorted(targets, reverse=True)
    for run in found:
        assert f"{recorded.metric_at(run.reached(targets[-1]), 'bytes') / 1000:.4g} kB" in page
    assert "training loss reached" in page


def test_runs_of_one_name_are_told_apart_by_the_ends_of_their_paths(tmp_path):
    runs = [
        made_up(tmp_path / one / two / "run", [0.5], name="run")
        for one, two in (("a", "x"), ("a", "y"), ("b", "x"))
    ]
    assert [run.name for run in recorded.read(runs)] == ["a/x/run", "a/y/run", "b/x/run"]
    assert [run.name for run in recorded.read(runs[:2])] == ["x/run", "y/run"]


def test_a_schedule_that_is_not_whole_cannot_be_run_again_on_another_network(tmp_path):
    run = made_up(tmp_path / "run", [0.5])
    text = (run / "timeline.jsonl").read_text()
    for wrong in (text.replace('"after": []', '"after": ["nobody"]'), text.replace("send-1", "train-1")):
        (run / "timeline.jsonl").write_text(wrong)
        with pytest.raises(
            ScenarioError, match=r"timeline.jsonl: got step .* of round 1, .*, expected a whole schedule"
        ):
            write([run], network=shipped.scenarios()["quickstart"])


def test_a_sweep_does_not_follow_a_variant_that_is_a_link_out_of_it(tmp_path):
    sweep = made_up(tmp_path / "sweeps" / "sweep", [0.5], sweep={"variants": {"one": {"training.rounds": 2}}})
    elsewhere = made_up(tmp_path / "elsewhere", [0.5])
    (sweep / "one").symlink_to(elsewhere)
    with pytest.raises(ScenarioError, match="one: got a link out of the run folder"):
        write([sweep])
    (sweep / "one").unlink()
    made_up(sweep / "one", [0.5])
    assert [run.name for run in recorded.read([sweep])] == ["one"]


def test_a_broken_run_says_what_stopped_it_and_what_to_try(tmp_path):
    folder = made_up(tmp_path / "run", [0.5])
    (folder / "error.json").write_text(
        json.dumps({"error": "DataFailure", "message": "client 3 in round 2: no", "next": "mend it"})
    )
    page = write([folder]).read_text()
    assert "broken after round 1" in page
    assert "client 3 in round 2: no" in page
    assert "What to try: mend it" in page


def test_a_folder_without_a_run_is_refused(fedray, tmp_path):
    code, _, err = fedray("report", tmp_path)
    assert code == 2
    assert err == f"{tmp_path}: got a folder that holds no run, expected one with scenario.resolved.yaml\n"
