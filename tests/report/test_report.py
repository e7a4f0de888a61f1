import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from fedray.report import recorded
from fedray.report.page import write
from tests.report.made import made_up

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# What a person would see, written into the title by the page itself once it is laid out.
LOOK = """<script>addEventListener("load", () => {
  const shown = e => e.getBoundingClientRect().width > 20 && e.getBoundingClientRect().height > 20;
  document.title = JSON.stringify({
    images: [...document.images].map(i => i.naturalWidth),
    pictures: [...document.querySelectorAll("svg")].filter(shown).map(s => s.getAttribute("aria-label")),
    paths: [...document.querySelectorAll("svg path")].filter(p => p.getBoundingClientRect().width > 0).length,
    wide: document.documentElement.scrollWidth, screen: innerWidth,
    totals: [...document.querySelectorAll("#totals tr")].map(r => [...r.children].map(c => c.innerText.trim())),
    paper: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
  });
})</script></head>"""


def seen(page, tmp_path, width=1100, dark=False):
    """The page in headless Chromium, offline."""
    looked = tmp_path / f"looked-{width}-{dark}.html"
    looked.write_text(page.read_text().replace("</head>", LOOK))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
    options += ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = [CHROMIUM, *options, "--virtual-time-budget=4000", "--dump-dom", looked.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    title = re.search(r"<title>(.*?)</title>", dom, re.S)[1]
    return json.loads(title.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


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
    totals = dict(shown["totals"])
    result = json.loads((run / "result.json").read_text())
    assert totals["rounds"] == "3"
    assert totals["weights_sha256"] == result["weights_sha256"][:12]
    assert totals["sidelink"] == f"{result['final']['bytes_sidelink'] / 1e6:.4g} MB"
    assert totals["energy"] == f"{result['final']['energy_j']:.4g} J"
    assert totals["training loss"] == f"{result['final']['loss']:.4g}"
    brightness = [sum(map(int, re.findall(r"\d+", shown[which])[:3])) for which in ("paper", "ink")]
    assert (brightness[0] < brightness[1]) == dark


def test_the_page_needs_no_network_and_escapes_what_users_wrote(tmp_path):
    page = write([made_up(tmp_path / "run", [0.5, 0.4], every=1, description="<script>alert(1)</script>")]).read_text()
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)", page)
    assert not re.findall(r"url\((?!#)|@import", page)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>bag" not in page


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
    assert sum(parts["seconds"].values()) == pytest.approx(final["sim_time_s"])  # a relay does one thing at a time
    with_two = parts["seconds"]["sidelink"]  # its sender and its receiver
    alone = sum(parts["seconds"][kind] for kind in ("training", "uplink", "downlink"))
    assert waiting == pytest.approx(5 * final["sim_time_s"] - 2 * with_two - alone)
    nodes = recorded.by_node(run)
    assert [n["node"] for n in nodes] == ["server", *(f"client-{i}" for i in range(5))]
    assert sum(n["bytes"] for n in nodes) == final["bytes_uplink"] + final["bytes_downlink"] + final["bytes_sidelink"]


def test_several_runs_are_one_table_with_what_differs_and_what_each_target_took(tmp_path):
    slow = [1.0 - 0.05 * t for t in range(12)]
    runs = [made_up(tmp_path / "lora", slow), made_up(tmp_path / "full", [x * 0.8 for x in slow], sidelink=50_000, tuning={"kind": "full"})]
    page = write(runs, tmp_path / "both.html").read_text()
    assert page.startswith("<!doctype html>")
    found = recorded.read(runs)
    assert recorded.differences(found) == {"tuning.kind": ["lora", "full"], "tuning.rank": [8, None]}
    targets = recorded.loss_targets(found)
    assert all(run.reached(t) for run in found for t in targets)
    assert targets == sorted(targets, reverse=True)
    for run in found:
        assert f"{recorded.along(run.reached(targets[-1]), 'bytes') / 1000:.4g} kB" in page
    assert "loss reached" in page


def test_a_broken_run_says_what_stopped_it_and_what_to_try(tmp_path):
    folder = made_up(tmp_path / "run", [0.5])
    (folder / "error.json").write_text(json.dumps({"error": "DataFailure", "message": "client 3 in round 2: no", "next": "mend it"}))
    page = write([folder]).read_text()
    assert "broken after round 1" in page
    assert "client 3 in round 2: no" in page
    assert "What to try: mend it" in page


def test_a_folder_without_a_run_is_refused(fedray, tmp_path):
    code, _, err = fedray("report", tmp_path)
    assert code == 2
    assert err == f"{tmp_path}: got a folder that holds no run, expected one with scenario.resolved.yaml\n"
