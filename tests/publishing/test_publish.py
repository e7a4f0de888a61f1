"""`fedray publish`: what lies in the folder, what does not, and the way to the hub."""

import json

import pytest
from huggingface_hub import ModelCard, constants

from fedray import shipped
from fedray.publishing.card import fenced, markdown, snippet
from fedray.publishing.settings import settings
from tests.helpers import rows, write
from tests.publishing.hub import REPO, TOKEN, running
from tests.report.made import SHA256, with_everything


@pytest.fixture
def hub(monkeypatch):
    with running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def made(tmp_path):
    """A finished run whose files say all that a run's may, over clients with names, at paths of their own."""
    (tmp_path / "base").mkdir()
    run = with_everything(tmp_path / "run", description="Ours; see <b>x</b> & [y](http://z) | 1*2_3")
    result = json.loads((run / "result.json").read_text()) | {"final": rows(run / "metrics.jsonl")[-1]}
    (run / "result.json").write_text(json.dumps(result))
    (run / "model" / ".cache").mkdir(parents=True)
    (run / "model" / ".cache" / "secret").touch()
    config = {"labels": ["bag"], "_name_or_path": str(tmp_path / "base"), "merges": ["/ /", "//"]}
    config["base_model_name_or_path"] = "/gone/clinic"
    (run / "model" / "config.json").write_text(json.dumps(config))
    (run / "model" / "model.safetensors").write_bytes(b"weights")
    (run / "model" / "README.md").write_text("a library's own")
    return run


def test_nothing_of_the_clients_data_is_in_a_real_runs_repository(unbroken, tmp_path, fedray):
    _, run = unbroken
    code, said, err = fedray("publish", run, REPO, "--dry-run", tmp_path / "out", "--json")
    assert code == 0, err
    result = json.loads(said)
    out = tmp_path / "out"
    files = {str(file.relative_to(out)): file for file in out.rglob("*") if file.is_file()}
    assert {one["name"]: one["bytes"] for one in result["files"]} == {
        name: file.stat().st_size for name, file in files.items()
    }
    assert {"model_index.json", "pytorch_lora_weights.safetensors", "fedray.json", "README.md"} <= {*files}
    data = shipped.resolve("shipped:ink", tmp_path)
    folders = {folder for folder in data.iterdir() if folder.is_dir()}
    names = {file.name for folder in folders for file in (folder, *folder.glob("*.png"))}
    captions = {row["text"] for file in data.rglob("metadata.jsonl") for row in rows(file)}
    assert len(names) > 10
    assert len(captions) > 3
    private = {*names, *captions, str(run.parent), str(run.parents[1])}
    for name, file in files.items():
        content = file.read_bytes()
        assert not [text for text in private if text.encode() in content], name


def test_the_card_has_metadata_that_the_hub_reads_and_the_runs_numbers(made, tmp_path, fedray):
    code, _, err = fedray("publish", made, REPO, "--dry-run", tmp_path / "out", "--license", "openrail")
    assert code == 0, err
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "openrail"
    assert card.data.pipeline_tag == "text-to-image"
    assert {"federated-learning", "relay", "lora"} <= {*card.data.tags}
    assert "base_model" not in card.data.to_dict()  # it ships with fedray, and is not on the hub
    metrics = {one.metric_name: one.metric_value for one in card.data.eval_results}
    assert metrics == {"training loss": 0.4, "images recognised": 0.2}
    assert SHA256 in card.text
    assert "| sidelink | 2 kB |" in card.text
    assert "| energy of devices, radios and server | 6 J |" in card.text
    assert "ink, which ships with fedray, over 5 clients" in card.text
    assert "title = {One}" in card.text
    facts = json.loads((tmp_path / "out" / "fedray.json").read_text())
    assert (facts["seed"], facts["settings"]["tuning"]["rank"]) == (0, 8)


def test_what_users_wrote_is_text_in_the_card_and_paths_lose_their_folders(made, tmp_path, fedray):
    citation = "@article{x,\n title = {``` <script>}\n}\n"
    (made / "CITATION.bib").write_text(citation)
    fedray("publish", made, REPO, "--dry-run", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert r"Ours; see &lt;b&gt;x&lt;/b&gt; &amp; \[y\](http\://z) \| 1\*2\_3" in text
    assert "````bibtex\n@article" in text
    assert "a library's own" not in text
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {"labels": ["bag"], "_name_or_path": "base", "merges": ["/ /", "//"]} | {
        "base_model_name_or_path": "clinic"
    }
    assert not (tmp_path / "out" / ".cache").exists()


@pytest.mark.parametrize(
    ("files", "task", "line"),
    [
        (["model_index.json"], "text-to-image", 'DiffusionPipeline.from_pretrained("me/ink")'),
        (
            ["config.json", "tokenizer_config.json"],
            "text-generation",
            "AutoModelForCausalLM.from_pretrained(",
        ),
        (["adapter_config.json"], "text-generation", 'AutoPeftModel.from_pretrained("me/ink")'),
        (["config.json", "x.safetensors"], None, "hf_hub_download(\"me/ink\", 'x.safetensors')"),
    ],
)
def test_the_card_opens_a_model_with_the_library_that_reads_its_files(files, task, line):
    text = snippet(REPO, files, task)
    compile(text, "snippet", "exec")
    assert line in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1. no list", "1\\. no list"),
        ("- no list", "\\- no list"),
        ("two\nlines", "two\\\\nlines"),
        ("# no `code`", "\\# no \\`code\\`"),
        ("www.x", "www\\.x"),
        ("+ no list", "\\+ no list"),
        ("83.1% (n = 4)", "83.1% (n = 4)"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text, shown):
    assert markdown(text) == shown


def test_a_block_of_code_is_ended_by_nothing_within_it():
    assert fenced("a ```` b").startswith("`````\n")
    assert fenced("a").split("\n") == ["```", "a", "```"]


def test_settings_are_numbers_and_fedrays_own_words(tmp_path):
    from fedray.scenario import load

    changes = {
        "data.sites": {"Smith": {"path": "/home/smith/scans", "folders": ["smith-1", "smith-2"]}},
        "population": {"clients": 2},
        "tuning.targets": ["attn.to_q"],
        "model.prior": {"prompt": "a photo of my cat", "images": 4},
        "evaluation.prompts": ["Anna"],
    }
    scenario = load(write(tmp_path / "mine.yaml", changes)).scenario
    told = settings(scenario)
    for word in ("Smith", "smith", "attn", "cat", "Anna", "shipped", "tiny-sd"):
        assert word not in str(told)
    assert told["model"]["prior"]["images"] == 4
    assert (told["tuning"]["kind"], told["tuning"]["rank"]) == ("lora", 8)


def test_a_repository_is_made_and_has_what_the_dry_run_wrote(made, tmp_path, hub, fedray):
    code, said, err = fedray("publish", made, REPO, "--private", "--json")
    assert code == 0, err
    result = json.loads(said)
    assert (result["url"], result["commit"]) == (f"{hub.endpoint}/{REPO}", "a" * 40)
    assert hub.created["visibility"] == "private"
    assert hub.message == f"run: 2 rounds, weights {SHA256[:12]}"
    fedray("publish", made, REPO, "--dry-run", tmp_path / "out")
    assert hub.files == {
        str(file.relative_to(tmp_path / "out")): file.read_bytes()
        for file in (tmp_path / "out").rglob("*")
        if file.is_file()
    }


def test_a_hub_that_does_not_take_it_is_one_line_and_exit_code_1(made, hub, fedray, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    code, said, err = fedray("publish", made, REPO)
    assert (code, said) == (1, "")
    assert err.startswith(f"{REPO}: got 401 from {hub.endpoint} (")
    assert err.endswith("expected a token of an account that may write there: hf auth login, or HF_TOKEN\n")
    assert err.count("\n") == 1
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, err = fedray("publish", made, REPO)
    assert (code, err.count("\n")) == (1, 1)
    assert err.endswith("expected http://127.0.0.1:9 to answer\n")


def test_bad_usage_is_refused_before_anything_is_written_or_sent(made, tmp_path, fedray):
    def refused(*arguments):
        code, said, err = fedray("publish", *arguments)
        assert (code, said) == (2, "")
        return err

    for name in ("ink", "me/ink/lora", "me/in k", "../x", "/x"):
        assert refused(made, name).startswith(f"{name}: got no name of a repository, expected owner/name")
    assert "--license Apache 2: got no such name" in refused(made, REPO, "--license", "Apache 2")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert refused(made, REPO, "--dry-run", tmp_path / "full") == (
        f"--dry-run {tmp_path / 'full'}: got a folder that holds other files, expected a new or an empty"
        " folder\n"
    )
    (made / "model" / "out").symlink_to(tmp_path)
    assert "got a link out of the run folder" in refused(made, REPO, "--dry-run", tmp_path / "out")
    (made / "result.json").unlink()
    assert refused(made, REPO, "--dry-run", tmp_path / "out") == (
        f"{made}: got a run that is not done, expected one that has come to its end (fedray run --resume"
        f" {made})\n"
    )
    assert not (tmp_path / "out").exists()
