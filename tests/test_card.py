"""The model card, the way to the hub, and the configs for accelerate."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from huggingface_hub.utils import filter_repo_objects

from dreamprm.cli import main
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.prm.folder import PRMConfig
from dreamprm.training import hub
from dreamprm.training.config import TrainConfig
from dreamprm.training.hub import MARKER, model_card, push_to_hub, write_card

ACCELERATE = Path(__file__).parents[1] / "configs" / "accelerate"
SUMMARY = {
    "version": "0.1.0",
    "accuracy": {
        "charts": {
            "first_sample": {"n": 200, "mean": 0.5, "ci95": [0.43, 0.57]},
            "dreamprm": {"n": 200, "mean": 0.71, "ci95": [0.645, 0.77]},
        },
        "dials": {"dreamprm": {"n": 200, "mean": 0.6, "ci95": [0.53, 0.67]}},
    },
}


class FakeApi:
    """Remembers what it was asked for; fails where told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_repo", {"repo_id": repo_id} | options))
        if self.error is not None:
            raise self.error

    def upload_folder(self, **options: Any) -> None:
        self.calls.append(("upload_folder", options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What training writes, without the tensors."""
    path = tmp_path / "prm"
    path.mkdir()
    weights = {"clean": 1.25, "a|b": 0.75}
    config = asdict(TrainConfig(max_steps=50, meta_loss="mse", save_steps=7))
    training = {"model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct", "config": config}
    training |= {"domains": {"clean": 1000, "a|b": 234}}
    facts = asdict(PRMConfig()) | {"domain_weights": weights}
    for name, content in (("prm", facts), ("training", training)):
        (path / f"{name}_config.json").write_text(json.dumps(content))
    (path / "weights.json").write_text(json.dumps(weights))
    return path


def test_the_card_tells_data_weights_and_settings(folder: Path) -> None:
    card = model_card(folder, "me/prm", SUMMARY)
    data = ModelCard(card).data
    assert (data.library_name, data.pipeline_tag) == ("dreamprm", "image-text-to-text")
    assert data.base_model == "Qwen/Qwen2-VL-2B-Instruct"
    assert "arxiv:2505.20241" in data.tags and "peft" not in data.tags
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")
    assert "1,234 labelled trajectories of 2 domains" in card
    clean, other = card.index("| clean | 1.250 |"), card.index("| a\\|b | 0.750 |")
    assert clean < other  # largest first
    for row in (
        *("| `max_steps` | `50` |", "| `meta_loss` | `mse` |", "| method | charts | dials |"),
        "| dreamprm | 71.0 [64.5, 77.0] | 60.0 [53.0, 67.0] |",
        "| first_sample | 50.0 [43.0, 57.0] |  |",
    ):
        assert row in card
    # How it was run and what is the default do not say what it is.
    for absent in ("save_steps", "learning_rate", "without evaluation results"):
        assert absent not in card
    lines = card.splitlines()
    for i in (i for i, line in enumerate(lines) if line.startswith("|---")):
        assert lines[i - 2] == "" and lines[i + 1].startswith("|"), "one table, without gaps"
    other = model_card(folder, "me/prm", {"F1 of errors": 0.61234})
    assert "| F1 of errors | 0.6123 |" in other


def test_what_is_not_recorded_is_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "prm_config.json").write_text(json.dumps(asdict(PRMConfig())))
    card = model_card(tmp_path, "me/prm")
    assert card.count("Not recorded in the model's folder.") == 2
    assert "No results were given" in card and "without evaluation results" in card
    assert not any(word in card for word in ("Weights of the domains", "bi-level", "arxiv"))


def change_training(folder: Path, **changes: Any) -> None:
    path = folder / "training_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_paths_of_this_machine_stay_here(folder: Path) -> None:
    change_training(folder, model_name_or_path="/home/me/models/backbone")
    card = model_card(folder, "me/prm")
    assert "/home/me" not in card and "base_model" not in card
    assert "| backbone | backbone |" in card


@pytest.mark.parametrize("wrong", [{"accuracy": {"charts": {"a": 1}}}, {"x": "much"}, {"x": None}])
def test_an_evaluation_of_another_kind_is_refused(folder: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="neither a summary"):
        model_card(folder, "me/prm", wrong)


def refusal(status: int) -> HfHubHTTPError:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError("Not yours\nmore", response=response)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LocalTokenNotFoundError("Token is required"), "not logged in to the hub: run `hf auth"),
        (refusal(403), "the hub refused 'me/prm' \\(run `hf auth login`\\): Not yours;"),
        (refusal(500), "the hub refused 'me/prm': Not yours;"),
        (HfHubHTTPError.__mro__[1]("no route"), "cannot reach the hub: no route;"),
        (TimeoutError("timed out"), "cannot reach the hub: timed out;"),
    ],
)
def test_a_failed_upload_says_where_the_model_is(folder: Path, error: Exception, told: str) -> None:
    with pytest.raises(DreamPRMError, match=told) as found:
        push_to_hub(folder, "me/prm", api=FakeApi(error))
    assert str(found.value).endswith(f"the model is safe in {folder}")
    assert "\n" not in str(found.value)


def test_push_writes_the_card_keeps_ones_own_and_uploads_all_but_checkpoints(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    api, card, summary = FakeApi(), folder / "README.md", tmp_path / "summary.json"
    monkeypatch.setattr(hub, "HfApi", lambda: api)
    summary.write_text(json.dumps(SUMMARY))
    words = ["push", "--model_name_or_path", str(folder), "--repo_id", "me/prm"]
    assert main([*words, "--card_only"]) == 0 and api.calls == []
    assert main([*words, "--evaluation", str(summary), "--private"]) == 0
    assert "71.0" in card.read_text(), "ours is written anew"
    assert "https://huggingface.co/me/prm" in capsys.readouterr().out
    (made, how), (uploaded, what) = api.calls
    assert (made, how["private"], how["exist_ok"]) == ("create_repo", True, True)
    target = (uploaded, what["repo_id"], what["folder_path"])
    assert target == ("upload_folder", "me/prm", str(folder))
    files = ["model.safetensors", "checkpoints/checkpoint-5/state.json", "history.jsonl"]
    files.append("checkpoints/.checkpoint-6.partial/state.json")
    kept = list(filter_repo_objects(files, ignore_patterns=what["ignore_patterns"]))
    assert kept == ["model.safetensors", "history.jsonl"]

    own = card.read_text().replace(MARKER, "")
    card.write_text(own)
    assert main([*words, "--card_only"]) == 0
    assert card.read_text() == own
    assert main([*words, "--evaluation", str(tmp_path / "none.json")]) == 1
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["single_gpu", "ddp", "fsdp2"])
def test_accelerate_reads_the_shipped_configs(name: str) -> None:
    config = load_config_from_file(str(ACCELERATE / f"{name}.yaml"))
    assert config.mixed_precision == "no"  # bf16 is dreamprm's
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
        assert config.fsdp_config["fsdp_auto_wrap_policy"] == "TRANSFORMER_BASED_WRAP"
        # Otherwise only the first process would have the weights.
        assert config.fsdp_config["fsdp_cpu_ram_efficient_loading"] is False


def test_adapters_name_their_base_and_weights_may_be_given(folder: Path) -> None:
    adapter = {"base_model_name_or_path": "Qwen/Qwen2-VL-7B-Instruct"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    change_training(folder, config={"learn_weights": False, "unheard_of": 3})  # a later version's
    card = model_card(folder, "me/prm")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["base_model"] == "Qwen/Qwen2-VL-7B-Instruct"
    assert front["base_model_relation"] == "adapter" and "peft" in front["tags"]
    assert "Given, not learned; their mean is 1." in card and "bi-level" not in card
    assert "| `unheard_of` | `3` |" in card


def test_what_others_could_not_use_is_not_uploaded(folder: Path, tmp_path: Path) -> None:
    api: Any = FakeApi()
    with pytest.raises(DreamPRMError, match=r"holds no prm_config\.json"):
        push_to_hub(tmp_path, "me/prm", api=api)
    with pytest.raises(DreamPRMError, match="repo_id: .*give owner/name"):
        write_card(folder, "me prm/x")
    assert not (folder / "README.md").exists()
    adapter = {"base_model_name_or_path": "/home/me/base"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(DreamPRMError, match="others do not have"):
        push_to_hub(folder, "me/prm", api=api)
    assert api.calls == []
